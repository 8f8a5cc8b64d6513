//! Leases of token buckets that refill by the second.

use crate::shares::demand;
use crate::world::World;

/// A bucket of a minute's rate.
const BURST: u64 = 6000;
const PER_SECOND: f64 = 100.0;

fn rules(refill: bool) -> String {
    format!(
        "domain: edge
rlqs: {{ refill: {refill} }}
descriptors:
  - key: name
    rate_limit: {{ requests_per_unit: {BURST}, unit: minute, algorithm: token_bucket }}
"
    )
}

fn never_over(world: &World, what: &str) {
    let least = world.upstream.least(BURST, PER_SECOND);
    // A step of the upstream may take in what came up to a step later.
    assert!(least >= -PER_SECOND / 50.0, "{what}: a bucket would be {least} short");
}

/// Requests come as the rate says: no second has many times what the others have, and all of the rate is used.
#[tokio::test(start_paused = true)]
async fn a_rate_is_used_up_evenly() {
    for (envoys, skewed) in [(1, false), (4, false), (4, true), (16, false), (16, true)] {
        let mut most = [0; 2];
        for (refill, most) in [false, true].into_iter().zip(&mut most) {
            let mut world = World::new(5, &rules(refill), envoys);
            let demand = demand(envoys, 3.0 * PER_SECOND, skewed);
            world.run(90, &demand).await;
            let start = world.now();
            world.run(120, &demand).await;
            let what = format!("{envoys} Envoys, skewed: {skewed}, refill: {refill}");
            never_over(&world, &what);
            #[allow(clippy::cast_precision_loss, reason = "small")]
            let used = world.upstream.since(start) as f64 / (120.0 * PER_SECOND);
            *most = world.upstream.worst_since(start, 1_000_000);
            println!("{what}: {used:.3} of the rate, at most {most} in a second");
            assert!(used >= 0.93 || !refill, "{what}: {used} of the rate");
        }
        // Fifteen streams whose share is less than a request a second have leases without a rate.
        let is_even = envoys < 16 || !skewed;
        assert!(
            most[1] <= 110 || !is_even,
            "{envoys} Envoys, skewed: {skewed}: {most:?}"
        );
    }
}

/// While demand is within the rate nobody is denied but the first requests of a bucket.
#[tokio::test(start_paused = true)]
async fn within_the_rate_nobody_waits() {
    for (envoys, skewed) in [(1, false), (4, true), (16, false)] {
        let mut world = World::new(5, &rules(true), envoys);
        world.run(120, &demand(envoys, 0.8 * PER_SECOND, skewed)).await;
        never_over(&world, "calm");
        let (allowed, denied) = world.answered();
        assert!(denied * 100 < allowed, "{envoys} Envoys: {denied} of {allowed} denied");
    }
}

/// Whatever dies or stands still, no more passes than the bucket gives.
#[tokio::test(start_paused = true)]
async fn faults_pass_no_bucket() {
    for (seed, total) in (1..).zip([300.0, 90.0, 20.0]) {
        let mut world = World::new(seed, &rules(true), 4);
        let demand = demand(4, total, seed == 2);
        for round in 0..8 {
            world.run(14, &demand).await;
            match round % 4 {
                0 => {
                    world.kill(world.servers.len() - 1);
                    world.run(3, &demand).await;
                    world.serve(true);
                }
                1 => {
                    world.stopped[0] = true;
                    world.run(11 + round, &demand).await;
                    world.stopped[0] = false;
                }
                2 => world.envoys[1].disconnect(),
                _ => world.run(20, &[total / 8.0]).await,
            }
        }
        never_over(&world, "faults");
        assert!(world.upstream.since(0) > 1000, "leased all the while");
    }
}
