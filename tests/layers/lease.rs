//! Leases: several replicas, one store.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use parking_lot::Mutex;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use sluicegate::model::{AlgorithmKind, Clock, Enforcement, Hits, Transaction};
use sluicegate::store::Store;
use sluicegate::store::remote::{Options, Remote};
use tokio::time::{Instant, sleep};

use crate::sim::{End, Network, SimClock, ideal, limit, one, pipeline, take, worst_window};

/// What a run is made of; rates in hits a second over all replicas.
#[derive(Clone, Copy, Debug)]
struct Run {
    seed: u64,
    algorithm: AlgorithmKind,
    limit: u64,
    window_s: u32,
    replicas: u64,
    demand: f64,
    seconds: u64,
    loss: u32,
}

#[derive(Debug)]
struct Report {
    worst: u64,
    used: f64,
    calls_per_decision: f64,
}

/// Leases alone.
fn leased(network: &Arc<Network>) -> Arc<Remote<End>> {
    pipeline(network, SimClock::new(0), Duration::from_secs(5), |plain| Options {
        lease_keys: Some(100),
        ..plain
    })
}

async fn simulate(run: Run) -> Report {
    let remote = Network::new(run.seed, run.loss);
    let rule = limit(run.algorithm, run.limit, run.window_s);
    let admitted_locally = Arc::new(Mutex::new(Vec::new()));
    let arrivals = Arc::new(Mutex::new(Vec::new()));
    let end = Instant::now() + Duration::from_secs(run.seconds);
    let mut drivers = Vec::new();
    let mut layers: Vec<Arc<Remote<End>>> = Vec::new();
    for replica in 0..run.replicas {
        // Clocks that have nothing to do with each other: only their pace matters.
        let clock: Arc<dyn Clock> = SimClock::new(replica * 7_777_777);
        let stack = pipeline(&remote, clock, Duration::from_secs(1), |plain| Options {
            join: true,
            lease_keys: Some(1000),
            denial_keys: Some(1000),
            ..plain
        });
        layers.push(Arc::clone(&stack));
        let (remote, admitted, arrivals) = (
            Arc::clone(&remote),
            Arc::clone(&admitted_locally),
            Arc::clone(&arrivals),
        );
        drivers.push(tokio::spawn(async move {
            let mut random = SmallRng::seed_from_u64(run.seed * 1000 + replica);
            let mut requests = Vec::new();
            while Instant::now() < end {
                let gap = -(1.0 - random.random::<f64>()).ln() * run.replicas as f64 / run.demand;
                sleep(Duration::from_secs_f64(gap)).await;
                let (stack, remote, admitted) = (Arc::clone(&stack), Arc::clone(&remote), Arc::clone(&admitted));
                arrivals.lock().push(remote.now_us());
                requests.push(tokio::spawn(async move {
                    let sent = Instant::now();
                    let answer = stack.check(&one(take(&rule, "x", 1))).await;
                    if answer.is_ok_and(|outcomes| outcomes[0].allowed) && sent == Instant::now() {
                        admitted.lock().push(remote.now_us());
                    }
                }));
            }
            for request in requests {
                request.await.expect("no panic");
            }
        }));
    }
    for driver in drivers {
        driver.await.expect("no panic");
    }
    // A quiet slice later nothing stays reserved.
    sleep(Duration::from_secs(3)).await;
    for lease in &layers {
        for _ in 0..100 {
            lease.flush(Duration::from_secs(1)).await;
        }
        let stats = lease.stats();
        assert_eq!((stats.leased_hits, stats.corrections), (0, 0), "{run:?}");
    }
    let mut times = remote.counted.lock().clone();
    times.extend_from_slice(&admitted_locally.lock());
    let window_us = u64::from(run.window_s) * 1_000_000;
    let (mut arrivals, admitted) = (arrivals.lock().clone(), times.len());
    let worst = match run.algorithm {
        AlgorithmKind::FixedWindow => worst_fixed(&times, window_us),
        _ => worst_window(&mut times, window_us),
    };
    Report {
        worst,
        used: admitted as f64 / ideal(&mut arrivals, run.limit, window_us) as f64,
        calls_per_decision: remote.calls.load(Ordering::Relaxed) as f64 / arrivals.len() as f64,
    }
}

/// The most hits in one window of the epoch's grid.
fn worst_fixed(times: &[u64], window_us: u64) -> u64 {
    let mut windows = std::collections::HashMap::new();
    for time in times {
        *windows.entry(time / window_us).or_insert(0_u64) += 1;
    }
    windows.into_values().max().unwrap_or(0)
}

const SLIDING: Run = Run {
    seed: 1,
    algorithm: AlgorithmKind::SlidingWindow,
    limit: 1000,
    window_s: 1,
    replicas: 4,
    demand: 5000.0,
    seconds: 10,
    loss: 0,
};

/// Runs a shape with several seeds, and checks what must hold for each.
async fn check(run: Run, least_used: f64, most_calls: f64) {
    for seed in 1..=3 {
        let run = Run { seed, ..run };
        let report = simulate(run).await;
        assert!(report.worst <= run.limit, "{run:?} {report:?}");
        assert!(report.used >= least_used, "{run:?} {report:?}");
        assert!(report.calls_per_decision <= most_calls, "{run:?} {report:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn four_replicas_under_five_times_the_limit() {
    check(SLIDING, 0.92, 0.2).await;
}

#[tokio::test(start_paused = true)]
async fn four_replicas_below_the_limit() {
    check(
        Run {
            demand: 900.0,
            ..SLIDING
        },
        0.95,
        0.6,
    )
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_long_window_with_slices_longer_than_a_lease() {
    check(
        Run {
            limit: 10_000,
            window_s: 60,
            replicas: 8,
            demand: 500.0,
            seconds: 150,
            ..SLIDING
        },
        0.95,
        0.3,
    )
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_small_limit_is_asked_for_hit_by_hit() {
    check(
        Run {
            limit: 20,
            window_s: 2,
            demand: 100.0,
            seconds: 60,
            ..SLIDING
        },
        0.9,
        1.0,
    )
    .await;
}

#[tokio::test(start_paused = true)]
async fn lost_calls_and_lost_answers_only_admit_less() {
    for seed in 1..=3 {
        let run = Run {
            seed,
            loss: 10,
            ..SLIDING
        };
        let report = simulate(run).await;
        assert!(report.worst <= run.limit, "{run:?} {report:?}");
        assert!(report.used > 0.5, "{run:?} {report:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn fixed_windows_end_leases_with_the_window() {
    check(
        Run {
            algorithm: AlgorithmKind::FixedWindow,
            ..SLIDING
        },
        0.9,
        0.2,
    )
    .await;
}

#[tokio::test(start_paused = true)]
async fn token_buckets_are_never_leased() {
    let remote = Network::new(7, 0);
    let lease = leased(&remote);
    let rule = limit(AlgorithmKind::TokenBucket, 1_000_000, 1);
    for _ in 0..500 {
        assert!(lease.check(&one(take(&rule, "x", 1))).await.expect("answered")[0].allowed);
    }
    assert_eq!(remote.calls.load(Ordering::Relaxed), 500);
    assert_eq!(lease.stats().leased_hits, 0);
}

/// Two counters in a request, one of them at its limit: the other's lease gets its hits back.
#[tokio::test(start_paused = true)]
async fn all_or_nothing_over_a_lease_and_the_store() {
    let remote = Network::new(3, 0);
    let lease = leased(&remote);
    let (wide, narrow) = (
        limit(AlgorithmKind::SlidingWindow, 100_000, 60),
        limit(AlgorithmKind::SlidingWindow, 3, 60),
    );
    // Warm up until the wide key is leased.
    while lease.stats().leased_hits == 0 {
        lease.check(&one(take(&wide, "w", 1))).await.expect("answered");
    }
    let used = |remote: &Arc<Network>| {
        let mut peek = take(&wide, "w", 1);
        peek.hits = Hits::Peek;
        100_000 - remote.store.check_now(&one(peek))[0].remaining
    };
    let both = Transaction {
        checks: [take(&wide, "w", 1), take(&narrow, "n", 1)].into_iter().collect(),
        ..Transaction::default()
    };
    let mut passed = 0;
    for _ in 0..20 {
        let before = (lease.stats().leased_hits, used(&remote));
        let outcomes = lease.check(&both).await.expect("answered");
        let now_passed = outcomes.iter().all(|outcome| outcome.allowed);
        passed += u64::from(now_passed);
        if !now_passed {
            assert!(outcomes[0].allowed && !outcomes[1].allowed);
            // Net use = counted - reserved; a denial changed nothing of it (a lease may have ended meanwhile).
            let after = (lease.stats().leased_hits, used(&remote));
            assert_eq!(before.1 - before.0, after.1 - after.0);
        }
    }
    assert_eq!(passed, 3);
}

/// The store judges quota checks together, so none of them may be answered from a lease alone.
#[tokio::test(start_paused = true)]
async fn quota_checks_all_go_to_the_store() {
    let remote = Network::new(5, 0);
    let lease = leased(&remote);
    let rule = limit(AlgorithmKind::SlidingWindow, 100_000, 60);
    while lease.stats().leased_hits == 0 {
        lease.check(&one(take(&rule, "w", 1))).await.expect("answered");
    }
    let before = remote.calls.load(Ordering::Relaxed);
    let mut quota = take(&rule, "w", 1);
    quota.enforcement = Enforcement::Quota(0);
    lease.check(&one(quota)).await.expect("answered");
    assert_eq!(remote.calls.load(Ordering::Relaxed), before + 1);
}
