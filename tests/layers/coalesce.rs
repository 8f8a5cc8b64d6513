//! One call under way for each key.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use sluicegate::algorithms::op::Op;
use sluicegate::model::{AlgorithmKind, Check, Hits, Transaction};
use sluicegate::store::remote::transport::{BreakerScope, Delivery, Transport};
use sluicegate::store::remote::{MAX_CHECKS, Options, Remote};
use sluicegate::store::{Store, StoreError};

use crate::sim::{End, Network, SimClock, limit, one, pipeline, take};

fn joined(network: &Arc<Network>, timeout: Duration) -> Arc<Remote<End>> {
    pipeline(network, SimClock::new(0), timeout, |plain| Options {
        join: true,
        ..plain
    })
}

#[tokio::test(start_paused = true)]
async fn those_that_wait_go_together_and_exactly_the_limit_passes() {
    let remote = Network::new(1, 0);
    let layer = joined(&remote, Duration::from_secs(5));
    let rule = limit(AlgorithmKind::SlidingWindow, 100, 60);
    let ask = |_| {
        let layer = Arc::clone(&layer);
        tokio::spawn(async move { layer.check(&one(take(&rule, "x", 1))).await.expect("answered")[0].allowed })
    };
    let tasks: Vec<_> = (0..500).map(ask).collect();
    let mut passed = 0;
    for task in tasks {
        passed += u64::from(task.await.expect("no panic"));
    }
    assert_eq!(passed, 100);
    // The first one, and the others in calls of as many checks as may be.
    let most = 1 + 499_u64.div_ceil(MAX_CHECKS as u64);
    assert!(remote.calls.load(Ordering::Relaxed) <= most, "{:?}", remote.calls);
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_leaves_hands_its_waiters_on() {
    let remote = Network::new(2, 0);
    let layer = joined(&remote, Duration::from_secs(5));
    let rule = limit(AlgorithmKind::SlidingWindow, 100, 60);
    let ask = || {
        let layer = Arc::clone(&layer);
        tokio::spawn(async move { layer.check(&one(take(&rule, "x", 1))).await })
    };
    let leader = ask();
    tokio::task::yield_now().await;
    let waiters: Vec<_> = (0..10).map(|_| ask()).collect();
    tokio::task::yield_now().await;
    leader.abort();
    for waiter in waiters {
        assert!(waiter.await.expect("no panic").expect("answered")[0].allowed);
    }
}

#[tokio::test(start_paused = true)]
async fn an_error_reaches_every_waiter_and_the_key_lives_on() {
    let remote = Network::new(3, 1);
    let layer = joined(&remote, Duration::from_secs(5));
    let rule = limit(AlgorithmKind::SlidingWindow, 100, 60);
    for _ in 0..3 {
        let ask = |_| {
            let layer = Arc::clone(&layer);
            tokio::spawn(async move { layer.check(&one(take(&rule, "x", 1))).await })
        };
        let tasks: Vec<_> = (0..5).map(ask).collect();
        for task in tasks {
            assert!(matches!(task.await.expect("no panic"), Err(StoreError::Timeout(_))));
        }
    }
    assert!(remote.calls.load(Ordering::Relaxed) >= 3);
}

#[tokio::test(start_paused = true)]
async fn a_waiter_gives_up_when_its_time_is_up() {
    let remote = Network::new(4, 0);
    let layer = joined(&remote, Duration::from_micros(10));
    let rule = limit(AlgorithmKind::SlidingWindow, 100, 60);
    let first = {
        let layer = Arc::clone(&layer);
        tokio::spawn(async move { layer.check(&one(take(&rule, "x", 1))).await })
    };
    tokio::task::yield_now().await;
    assert!(matches!(
        layer.check(&one(take(&rule, "x", 1))).await,
        Err(StoreError::NotSent(_))
    ));
    // The call itself was sent: whether it counted is not known.
    let first = first.await.expect("no panic").expect_err("no answer in time");
    assert!(first.is_indeterminate(), "{first}");
}

/// What gives back comes too late for its own call every other time.
struct Hurried {
    network: End,
    returns: AtomicU64,
}

impl Transport for Hurried {
    fn scope(&self) -> BreakerScope {
        BreakerScope::Cluster
    }

    async fn send(&self, shard: u16, calls: &[Transaction<Op>]) -> Delivery {
        let mut checks = calls.iter().flat_map(|call| &call.checks);
        let returns = checks.any(|check| matches!(check.hits, Op::Return { .. } | Op::Refund(_)));
        if returns && self.returns.fetch_add(1, Ordering::Relaxed).is_multiple_of(2) {
            return Delivery::NotSent(StoreError::Timeout(Duration::ZERO));
        }
        self.network.send(shard, calls).await
    }
}

#[tokio::test(start_paused = true)]
async fn who_gave_up_has_taken_nothing_in_the_end() {
    for seed in 0..20 {
        let hurried = Hurried {
            network: End(Network::new(seed, 0)),
            returns: AtomicU64::new(seed),
        };
        let options = Options {
            join: true,
            ..Options::plain(Duration::from_millis(10))
        };
        let layer = Remote::new([hurried], |_| 0, &options, None, SimClock::new(0));
        let rule = limit(AlgorithmKind::SlidingWindow, 1_000, 60);
        let mut tasks = Vec::new();
        for _ in 0..300 {
            let layer = Arc::clone(&layer);
            tasks.push(tokio::spawn(
                async move { layer.check(&one(take(&rule, "x", 1))).await },
            ));
            tokio::time::sleep(Duration::from_micros(300)).await;
        }
        let (mut heard, mut unmade, mut late) = (0, 0, 0);
        for task in tasks {
            match task.await.expect("no panic") {
                Ok(_) => heard += 1,
                Err(StoreError::NotSent(_)) => unmade += 1,
                Err(_) => late += 1,
            }
        }
        assert!(heard > 0 && unmade > 0 && late > 0, "{heard} {unmade} {late}");
        tokio::time::sleep(Duration::from_secs(1)).await;
        for _ in 0..10 {
            layer.flush(Duration::from_secs(1)).await;
        }
        let peek = Check {
            hits: Hits::Peek,
            ..take(&rule, "x", 1)
        };
        let left = loop {
            if let Ok(outcomes) = layer.check(&one(peek.clone())).await {
                break outcomes[0].remaining;
            }
        };
        assert_eq!(left, 1_000 - heard, "{unmade} calls were not made, {late} were late");
    }
}
