//! A reset reaches what is kept beside the store.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use sluicegate::algorithms::op::Op;
use sluicegate::model::{AlgorithmKind, Check, Clock, CounterKey, Hits, HoldId, Limit, Transaction};
use sluicegate::store::remote::transport::{Delivery, Transport};
use sluicegate::store::remote::{Options, Remote};
use sluicegate::store::{Cause, Correction, MemoryStore, Store, StoreError};

use crate::sim::{End, Network, SimClock, limit, one, pipeline, take};

fn replica(network: &Arc<Network>, leases: bool) -> Arc<Remote<End>> {
    let clock = SimClock::new(0) as Arc<dyn Clock>;
    pipeline(network, clock, Duration::from_secs(5), |plain| Options {
        denial_keys: Some(100),
        lease_keys: leases.then_some(100),
        ..plain
    })
}

#[tokio::test(start_paused = true)]
async fn what_was_denied_before_a_reset_is_not_denied_after_it() {
    for seed in 0..50 {
        let network = Network::new(seed, 0);
        let replica = replica(&network, false);
        let rule = limit(AlgorithmKind::SlidingWindow, 3, 3600);
        let check = take(&rule, "x", 1);
        for _ in 0..3 {
            assert!(replica.check(&one(check.clone())).await.expect("answered")[0].allowed);
        }
        // Answers that are under way while it is reset may be older than the reset, and come later.
        let asked: Vec<_> = (0..4)
            .map(|_| {
                let (replica, check) = (Arc::clone(&replica), check.clone());
                tokio::spawn(async move { replica.check(&one(check)).await })
            })
            .collect();
        // They leave in a call of their own, which the reset overtakes or not.
        tokio::time::sleep(Duration::from_micros(1)).await;
        let done = replica.reset(&[(check.key.clone(), rule)]).await;
        assert_eq!((done.counters, done.failed), (1, None));
        for asked in asked {
            asked.await.expect("no panic").expect("answered");
        }
        let outcome = replica.check(&one(check)).await.expect("answered")[0];
        assert!(!outcome.cached, "seed {seed}: {outcome:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn leases_and_corrections_of_the_counter_are_forgotten() {
    let network = Network::new(7, 0);
    let replica = replica(&network, true);
    let rule = limit(AlgorithmKind::SlidingWindow, 1000, 3600);
    let check = take(&rule, "x", 1);
    while replica.stats().leased_hits == 0 {
        assert!(replica.check(&one(check.clone())).await.expect("answered")[0].allowed);
    }
    replica.correct(Correction::unplaced(&check, 500, Cause::Fallback));
    let done = replica.reset(&[(check.key.clone(), rule)]).await;
    assert!(done.counters == 1 && done.hits > 0, "{done:?}");
    let stats = replica.stats();
    assert_eq!((stats.leased_hits, stats.lease_keys, stats.corrections), (0, 0, 0));
    replica.flush(Duration::from_secs(1)).await;
    let left = replica.check(&one(check)).await.expect("answered")[0].remaining;
    assert_eq!(left, 999);
}

/// The hold is still open in the store, and nobody will settle it.
#[tokio::test(start_paused = true)]
async fn the_end_of_a_hold_is_owed_after_a_reset_as_before() {
    let network = Network::new(7, 0);
    let replica = replica(&network, false);
    let rule = Limit {
        hold_us: 600_000_000,
        ..limit(AlgorithmKind::SlidingWindow, 100, 3600)
    };
    let id = HoldId::new(1, [0; 9]);
    let check = Check {
        hits: Hits::Hold { hits: 40, id },
        ..take(&rule, "x", 1)
    };
    assert_eq!(
        replica.check(&one(check.clone())).await.expect("answered")[0].remaining,
        60
    );
    replica.correct(Correction::release(&check, id, 40, Cause::Hold));
    let done = replica.reset(&[(check.key.clone(), rule)]).await;
    assert_eq!((done.counters, done.failed), (1, None));
    replica.flush(Duration::from_secs(1)).await;
    let look = Check {
        hits: Hits::Peek,
        ..check
    };
    assert_eq!(replica.check(&one(look)).await.expect("answered")[0].remaining, 100);
}

/// A server that answers late, and notes what is announced.
#[derive(Clone)]
struct Late {
    store: Arc<MemoryStore>,
    late_ms: Arc<AtomicU64>,
    announced: Arc<Mutex<Vec<CounterKey>>>,
}

impl Transport for Late {
    async fn send(&self, _shard: u16, calls: &[Transaction<Op>]) -> Delivery {
        let answers = calls.iter().map(|call| self.store.check_ops(call)).collect();
        tokio::time::sleep(Duration::from_millis(self.late_ms.load(Ordering::Relaxed))).await;
        Delivery::Answered(Ok(answers))
    }

    async fn announce(&self, _log: &CounterKey, counters: &[CounterKey]) -> Result<(), StoreError> {
        self.announced.lock().extend_from_slice(counters);
        Ok(())
    }
}

/// Decisions have 15 ms; nobody but an operator waits for a reset.
#[tokio::test(start_paused = true)]
async fn a_reset_waits_longer_than_a_decision_and_what_is_unknown_is_not_announced() {
    let keys = std::num::NonZeroUsize::new(100).expect("not zero");
    let server = Late {
        store: Arc::new(MemoryStore::new(keys, SimClock::new(1_000_000_000_000))),
        late_ms: Arc::default(),
        announced: Arc::default(),
    };
    let options = Options {
        denial_keys: Some(100),
        reset_log: Some(CounterKey::from_raw("log")),
        ..Options::plain(Duration::from_millis(15))
    };
    let remote = Remote::new([server.clone()], |_| 0, &options, None, SimClock::new(0));
    let rule = limit(AlgorithmKind::SlidingWindow, 3, 3600);
    let check = take(&rule, "x", 1);
    for late_ms in [30, 5000] {
        server.late_ms.store(1, Ordering::Relaxed);
        while remote.check(&one(check.clone())).await.expect("answered")[0].allowed {}
        assert!(remote.check(&one(check.clone())).await.expect("answered")[0].cached);
        server.late_ms.store(late_ms, Ordering::Relaxed);
        let done = remote.reset(&[(check.key.clone(), rule)]).await;
        if late_ms == 30 {
            assert_eq!((done.counters, done.unknown, done.hits, &done.failed), (1, 0, 3, &None));
        } else {
            assert_eq!((done.counters, done.unknown), (0, 1));
            assert_eq!(done.failed.map(|error| error.kind()), Some("timeout"));
        }
        let announced = std::mem::take(&mut *server.announced.lock());
        let known = if late_ms == 30 {
            std::slice::from_ref(&check.key)
        } else {
            &[]
        };
        assert_eq!(announced, known, "{late_ms} ms");
        server.late_ms.store(1, Ordering::Relaxed);
        let after = remote.check(&one(check.clone())).await.expect("answered")[0];
        assert!(after.allowed && !after.cached, "{late_ms} ms: {after:?}");
    }
}
