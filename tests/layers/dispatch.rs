//! What leaves in one call, and what becomes of those that wait when a call fails in an unusual way.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures::future::join_all;
use parking_lot::Mutex;
use sluicegate::algorithms::op::Op;
use sluicegate::model::{AlgorithmKind, Check, Hits, Transaction};
use sluicegate::store::remote::transport::{Delivery, Transport};
use sluicegate::store::remote::{Bound, Bounds, MAX_CHECKS, Options, Remote};
use sluicegate::store::{Cause, Correction, MemoryStore, Store};

use crate::sim::{SimClock, limit, one, take};

/// A server close by that notes how long its calls are, and panics in some of them.
#[derive(Clone)]
struct Noted {
    store: Arc<MemoryStore>,
    lengths: Arc<Mutex<Vec<usize>>>,
    panics: Arc<AtomicUsize>,
}

impl Noted {
    fn new() -> Self {
        let keys = std::num::NonZeroUsize::new(10_000).expect("not zero");
        Self {
            store: Arc::new(MemoryStore::new(keys, SimClock::new(1_000_000_000_000))),
            lengths: Arc::default(),
            panics: Arc::default(),
        }
    }

    fn pipeline(&self, options: &Options) -> Arc<Remote<Self>> {
        Remote::new([self.clone()], |_| 0, options, None, SimClock::new(0))
    }
}

impl Transport for Noted {
    async fn send(&self, _shard: u16, calls: &[Transaction<Op>]) -> Delivery {
        self.lengths
            .lock()
            .push(calls.iter().map(|call| call.checks.len()).sum());
        tokio::time::sleep(Duration::from_micros(50)).await;
        let panics = self.panics.load(Ordering::Relaxed);
        if panics > 0 {
            self.panics.store(panics - 1, Ordering::Relaxed);
            panic!("as a fault of this program would");
        }
        Delivery::Answered(Ok(calls.iter().map(|call| self.store.check_ops(call)).collect()))
    }
}

fn plain() -> Options {
    Options::plain(Duration::from_secs(5))
}

#[tokio::test(start_paused = true)]
async fn a_call_is_bounded_by_its_checks() {
    let server = Noted::new();
    let remote = server.pipeline(&plain());
    let rule = limit(AlgorithmKind::SlidingWindow, 1000, 60);
    let large = |n: usize| Transaction {
        checks: (0..64).map(|m| take(&rule, &format!("{n} {m}"), 1)).collect(),
        ..Transaction::default()
    };
    let requests: Vec<_> = (0..64).map(large).collect();
    for answer in join_all(requests.iter().map(|request| remote.check(request))).await {
        assert_eq!(answer.expect("answered").len(), 64);
    }
    let lengths = server.lengths.lock();
    assert!(lengths.iter().all(|length| *length <= MAX_CHECKS), "{lengths:?}");
    assert_eq!(lengths.iter().sum::<usize>(), 64 * 64);
}

#[tokio::test(start_paused = true)]
async fn calls_in_flight_are_bounded_and_what_is_turned_away_counts_nothing() {
    let server = Noted::new();
    let bounds = Bounds {
        in_flight: 1,
        ..Bounds::default()
    };
    let remote = server.pipeline(&Options { bounds, ..plain() });
    let rule = limit(AlgorithmKind::Concurrency, 2, 60);
    let hit = one(take(&rule, "x", 1));
    let first = {
        let (remote, hit) = (Arc::clone(&remote), hit.clone());
        tokio::spawn(async move { remote.check(&hit).await })
    };
    while server.lengths.lock().is_empty() {
        tokio::task::yield_now().await;
    }
    let error = remote.check(&hit).await.expect_err("one is in flight");
    assert_eq!(error.kind(), "overloaded");
    // A release that is turned away is owed all the same.
    let release = one(Check {
        hits: Hits::Refund(1),
        ..hit.checks[0].clone()
    });
    assert!(remote.check(&release).await.is_err());
    assert!(first.await.expect("no panic").expect("answered")[0].allowed);
    assert_eq!(remote.stats().corrections, 1);
    let in_flight = Bound::ALL.iter().position(|bound| *bound == Bound::InFlight);
    assert_eq!(remote.stats().bounds[in_flight.expect("one of them")], 2);
    let left = remote.check(&hit).await.expect("answered")[0].remaining;
    assert_eq!(left, 1, "the first was released");
}

#[tokio::test(start_paused = true)]
async fn a_panic_leaves_no_key_without_a_leader() {
    let server = Noted::new();
    let remote = server.pipeline(&Options { join: true, ..plain() });
    let rule = limit(AlgorithmKind::SlidingWindow, 1000, 60);
    server.panics.store(1, Ordering::Relaxed);
    let ask = || {
        let remote = Arc::clone(&remote);
        tokio::spawn(async move { remote.check(&one(take(&rule, "x", 1))).await })
    };
    let first = ask();
    tokio::time::sleep(Duration::from_micros(10)).await;
    // These wait for the key.
    let others: Vec<_> = (0..10).map(|_| ask()).collect();
    assert!(first.await.expect("its own task lives").is_err());
    for other in others {
        other.await.expect("no panic").expect("answered");
    }
    ask().await.expect("no panic").expect("answered");
}

#[tokio::test(start_paused = true)]
async fn a_correction_that_gives_back_ends_a_cached_denial() {
    let server = Noted::new();
    let remote = server.pipeline(&Options {
        denial_keys: Some(100),
        ..plain()
    });
    let rule = limit(AlgorithmKind::SlidingWindow, 1, 60);
    let hit = one(take(&rule, "x", 1));
    let taken = remote.check(&hit).await.expect("answered")[0];
    assert!(taken.allowed && !remote.check(&hit).await.expect("answered")[0].allowed);
    assert!(remote.check(&hit).await.expect("answered")[0].cached);
    remote.correct(Correction::give_back(&hit.checks[0], &taken, 1, Cause::Permit));
    remote.flush(Duration::from_secs(1)).await;
    assert!(remote.check(&hit).await.expect("answered")[0].allowed);
    assert_eq!(remote.stats().corrections, 0);
}

/// A refund that cannot be sent is owed, and given once the server is back; a charge is the failure mode's.
#[tokio::test(start_paused = true)]
async fn a_refund_that_was_not_sent_is_given_later() {
    struct Away(Noted, Arc<AtomicUsize>);
    impl Transport for Away {
        async fn send(&self, shard: u16, calls: &[Transaction<Op>]) -> Delivery {
            if self.1.load(Ordering::Relaxed) > 0 {
                return Delivery::NotSent(sluicegate::store::StoreError::Unavailable("away".into()));
            }
            self.0.send(shard, calls).await
        }
    }
    let (server, away) = (Noted::new(), Arc::new(AtomicUsize::new(0)));
    let remote = Remote::plain(
        Away(server.clone(), away.clone()),
        Duration::from_secs(5),
        SimClock::new(0),
    );
    let rule = limit(AlgorithmKind::Concurrency, 1, 60);
    let hit = one(take(&rule, "x", 1));
    assert!(remote.check(&hit).await.expect("answered")[0].allowed);
    away.store(1, Ordering::Relaxed);
    let release = one(Check {
        hits: Hits::Refund(1),
        ..hit.checks[0].clone()
    });
    assert!(remote.check(&release).await.is_err());
    away.store(0, Ordering::Relaxed);
    remote.flush(Duration::from_secs(1)).await;
    assert!(remote.check(&hit).await.expect("answered")[0].allowed);
}
