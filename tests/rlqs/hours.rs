//! Windows of a minute and of an hour: virtual time costs nothing but its steps.

use crate::shares::{demand, rules};
use crate::world::World;

/// What happens in a window: a server dies, an Envoy stands still, streams break, demand comes and goes.
async fn lives(world: &mut World, demand: &[f64], window_s: u64) {
    for round in 0..6 {
        world.run(window_s / 4, demand).await;
        match round % 3 {
            0 => {
                world.kill(world.servers.len() - 1);
                world.run(3, demand).await;
                world.serve(true);
            }
            1 => {
                world.stopped[0] = true;
                world.run((window_s / 8).min(400), demand).await;
                world.stopped[0] = false;
            }
            _ => {
                let half = world.envoys.len() / 2;
                world.envoys[..half]
                    .iter_mut()
                    .for_each(crate::envoy::Envoy::disconnect);
            }
        }
    }
    world.run(window_s, demand).await;
}

async fn windows(limit: u64, window_s: u64, envoys: usize) {
    for (seed, (times, skewed)) in (1..).zip([(3.0, true), (0.9, false)]) {
        let mut world = World::new(seed, &rules(limit, &format!("{window_s}s")), envoys);
        #[allow(clippy::cast_precision_loss, reason = "small")]
        let rate = limit as f64 / window_s as f64;
        let demand = demand(envoys, rate * times, skewed);
        lives(&mut world, &demand, window_s).await;
        let (worst, all) = (world.upstream.worst(window_s * 1_000_000), world.upstream.since(0));
        println!("{envoys} Envoys, {window_s} s, {times} times the limit: at most {worst} of {limit}, {all} in all");
        world.never_over(limit, window_s * 1_000_000);
        assert!(all > limit, "leased all the while");
    }
}

#[tokio::test(start_paused = true)]
async fn a_minute_is_kept_whatever_happens_in_it() {
    windows(6000, 60, 8).await;
}

#[tokio::test(start_paused = true)]
#[ignore = "a minute of computing"]
async fn a_minute_is_kept_by_many_envoys() {
    windows(6000, 60, 64).await;
}

#[tokio::test(start_paused = true)]
#[ignore = "minutes of computing"]
async fn an_hour_is_kept_whatever_happens_in_it() {
    windows(36_000, 3600, 4).await;
    windows(36_000, 3600, 64).await;
}
