//! The in-memory store.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::thread;

use sluicegate::algorithms::State;
use sluicegate::algorithms::limit::{LimitSpec, build};
use sluicegate::model::time::SECOND_US;
use sluicegate::model::{
    AlgorithmKind, Clock, Enforcement, Hits, HoldId, Limit, ManualClock, MonotonicClock, RetryAfter, Transaction, Unit,
    Window,
};
use sluicegate::store::memory::sweep_forever;
use sluicegate::store::{MemoryStore, Store};

use crate::limits::{all, gated, per_minute, sliding, take};

const MINUTE_US: u64 = 60 * SECOND_US;
const NOON_US: u64 = 1_700_000_000 * SECOND_US;

fn store(max_keys: usize) -> (MemoryStore, Arc<ManualClock>) {
    let clock = Arc::new(ManualClock::new(NOON_US));
    let max_keys = NonZeroUsize::new(max_keys).expect("not zero");
    (MemoryStore::new(max_keys, clock.clone()), clock)
}

/// Takes one hit; whether it was admitted.
fn hit(store: &MemoryStore, name: &str, limit: Limit) -> bool {
    store.check_now(&all([take(name, limit, 1)]))[0].allowed
}

/// Takes one hit from each of `count` counters of their own.
fn flood(store: &MemoryStore, name: &str, count: usize, limit: Limit) {
    for n in 0..count {
        assert!(hit(store, &format!("{name}{n}"), limit));
    }
}

#[test]
fn keys_are_bounded_and_every_loss_is_counted() {
    for max_keys in [1, 10, 1000, 5000] {
        let (store, _) = store(max_keys);
        flood(&store, "flood", 20_000, sliding(10));
        let stats = store.stats();
        assert!(stats.keys <= max_keys as u64, "{stats:?}");
        assert!(stats.keys >= max_keys as u64 * 9 / 10, "{stats:?}");
        assert_eq!(stats.keys + stats.evicted, 20_000, "{stats:?}");
        assert_eq!(stats.expired, 0);
    }
}

#[test]
fn a_flood_does_not_reset_the_counter_that_stops_its_sender() {
    for algorithm in AlgorithmKind::ALL {
        let (store, _) = store(2000);
        let limit = per_minute(algorithm, 100);
        while hit(&store, "attacker", limit) {}
        flood(&store, "flood", 100_000, limit);
        assert!(!hit(&store, "attacker", limit), "{algorithm}");
        assert!(store.stats().evicted > 90_000);
    }
}

#[test]
fn what_has_expired_goes_before_anything_that_counts() {
    let (store, clock) = store(1000);
    let brief = per_minute(AlgorithmKind::TokenBucket, 6);
    let long = sliding(1000);
    // The brief ones are back to empty after 10 s, though they have used more of their quota.
    flood(&store, "long", 500, long);
    flood(&store, "brief", 500, brief);
    clock.advance(11 * SECOND_US);
    flood(&store, "new", 400, long);
    assert_eq!(store.stats().evicted, 0, "{:?}", store.stats());
    for n in 0..500 {
        let outcome = store.check_now(&all([take(&format!("long{n}"), long, 1)]))[0];
        assert_eq!(outcome.remaining, 998, "long{n} was forgotten");
    }
}

#[test]
fn expired_counters_are_swept_and_their_memory_given_back() {
    let (store, clock) = store(100_000);
    flood(&store, "flood", 50_000, sliding(10));
    let full = store.stats();
    assert_eq!(full.keys, 50_000);
    clock.advance(3 * MINUTE_US);
    // A slice of every shard at a time: no call does it all.
    store.sweep(16);
    let after_one = store.stats();
    assert!(after_one.keys > 30_000 && after_one.keys < 50_000, "{after_one:?}");
    for _ in 0..2000 {
        store.sweep(16);
    }
    let swept = store.stats();
    assert_eq!((swept.keys, swept.expired, swept.evicted), (0, 50_000, 0));
    assert!(swept.table_bytes * 8 < full.table_bytes, "{swept:?} {full:?}");
    assert!(hit(&store, "flood1", sliding(1)));
}

#[test]
fn a_flood_of_new_keys_sweeps_as_it_goes() {
    let (store, clock) = store(100_000);
    // A minute's worth at a time for a long time: what expires makes room without the background task.
    for round in 0..20 {
        flood(&store, &format!("round{round}:"), 5000, sliding(10));
        clock.advance(2 * MINUTE_US);
    }
    let stats = store.stats();
    assert_eq!(stats.evicted, 0);
    assert!(stats.keys < 30_000, "{stats:?}");
}

#[tokio::test(start_paused = true)]
async fn the_background_task_sweeps_and_ends_with_the_store() {
    let (store, clock) = store(10_000);
    let store = Arc::new(store);
    flood(&store, "flood", 10_000, sliding(10));
    clock.advance(3 * MINUTE_US);
    let task = tokio::spawn(sweep_forever(Arc::downgrade(&store)));
    while store.stats().keys > 0 {
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    drop(store);
    task.await.expect("it ends");
}

#[test]
fn bytes_for_each_key_stay_in_their_bounds() {
    for keys in [1000_usize, 10_000, 60_000, 115_000, 200_000] {
        let (store, _) = store(1_000_000);
        flood(&store, "k", keys, per_minute(AlgorithmKind::TokenBucket, 10));
        let per_key = store.stats().table_bytes / keys as u64;
        assert!(per_key <= 120, "{per_key} B for each of {keys}");
        // A sliding window keeps its slices on the heap, in two pieces with some 16 B of overhead each.
        let mut state = State::new(&sliding(10));
        for slice in 0..64 {
            let now_us = NOON_US + slice * 2 * SECOND_US;
            sluicegate::algorithms::apply(&sliding(10), &mut state, now_us, 1);
        }
        let sliding = per_key + state.heap_bytes() as u64 + 32;
        assert!(sliding <= 320, "{sliding} B for each of {keys}");
    }
}

#[test]
fn what_counts_nothing_takes_no_room() {
    let (store, _) = store(1000);
    let limit = sliding(10);
    for hits in [Hits::Peek, Hits::Refund(5), Hits::Acquire(11)] {
        let mut check = take("nobody", limit, 1);
        check.hits = hits;
        let _ = store.check_now(&all([check.clone()]));
        let _ = store.check_now(&all([check, take("other", limit, 11)]));
    }
    assert_eq!(store.stats().keys, 0);
}

#[test]
fn a_denied_transaction_takes_nothing_anywhere() {
    let (store, _) = store(100_000);
    let (few, many) = (sliding(2), sliding(100));
    let both = all([take("many", many, 1), take("few", few, 1)]);
    let admitted = (0..10).filter(|_| store.check_now(&both)[1].allowed).count();
    assert_eq!(admitted, 2);
    let denied = store.check_now(&both);
    assert!(denied[0].allowed && !denied[1].allowed);
    assert_eq!(denied[0].remaining, 98, "as things stand");
    assert!(matches!(denied[1].retry_after, RetryAfter::Micros(1..)));
    // In shadow mode the denial stands alone.
    let shadow = all([take("many", many, 1), gated(Enforcement::Shadow, take("few", few, 1))]);
    assert_eq!(store.check_now(&shadow)[0].remaining, 97);
}

#[test]
fn a_key_that_stands_twice_is_counted_twice() {
    let (store, _) = store(100_000);
    let limit = sliding(3);
    let twice = all([take("k", limit, 1), take("k", limit, 1), take("other", limit, 1)]);
    let first = store.check_now(&twice);
    assert_eq!((first[0].remaining, first[1].remaining), (2, 1));
    let second = store.check_now(&twice);
    assert!(second[0].allowed && !second[1].allowed && second[2].allowed);
    assert_eq!(second[2].remaining, 2, "nothing was taken");
    assert!(hit(&store, "k", limit) && !hit(&store, "k", limit));
}

#[test]
fn many_checks_of_one_request_are_one_decision() {
    let (store, _) = store(100_000);
    let limit = sliding(5);
    let checks = |n: u64| all((0..40).map(move |k| take(&format!("k{}", (k * n) % 41), limit, 1)));
    for n in [1, 3, 7, 11, 40] {
        assert!(store.check_now(&checks(n)).iter().all(|outcome| outcome.allowed));
    }
    assert_eq!(store.stats().keys, 41);
}

/// Runs `task` on 8 threads and adds up what it returns.
fn race(store: &Arc<MemoryStore>, task: impl Fn(&MemoryStore, usize) -> u64 + Send + Sync + 'static) -> u64 {
    let task = Arc::new(task);
    let threads: Vec<_> = (0..8)
        .map(|n| {
            let (store, task) = (store.clone(), task.clone());
            thread::spawn(move || task(&store, n))
        })
        .collect();
    threads.into_iter().map(|t| t.join().expect("no panic")).sum()
}

fn shared() -> Arc<MemoryStore> {
    let clock: Arc<dyn Clock> = Arc::new(MonotonicClock::new());
    Arc::new(MemoryStore::new(NonZeroUsize::new(100_000).expect("not zero"), clock))
}

#[test]
fn racing_threads_admit_exactly_the_limit() {
    for algorithm in [
        AlgorithmKind::SlidingWindow,
        AlgorithmKind::SlidingLog,
        AlgorithmKind::FixedWindow,
        AlgorithmKind::Concurrency,
    ] {
        let limit = per_minute(algorithm, 1000);
        let admitted = race(&shared(), move |store, _| {
            (0..1000).filter(|_| hit(store, "one", limit)).count() as u64
        });
        assert_eq!(admitted, 1000, "{algorithm}");
    }
}

#[test]
fn racing_transactions_over_shared_keys_neither_lock_up_nor_leak() {
    let limit = sliding(1000);
    let keys = 7;
    let store = shared();
    // Each thread asks for pairs in another order; a pair is taken whole or not at all.
    let pairs = race(&store, move |store, thread| {
        let pair = |n: usize| -> Transaction {
            let (a, b) = ((n + thread) % keys, (n * 3 + thread * 5 + 1) % keys);
            all([take(&format!("k{a}"), limit, 1), take(&format!("k{b}"), limit, 1)])
        };
        let passes = |n: &usize| store.check_now(&pair(*n)).iter().all(|outcome| outcome.allowed);
        (0..3000).filter(passes).count() as u64
    });
    let left: u64 = (0..keys)
        .map(|k| {
            let mut peek = take(&format!("k{k}"), limit, 1);
            peek.hits = Hits::Peek;
            store.check_now(&all([peek]))[0].remaining
        })
        .sum();
    assert_eq!(left + 2 * pairs, 1000 * keys as u64);
    assert!(pairs > 3000, "{pairs}");
}

#[tokio::test]
async fn a_reset_keeps_open_holds_and_tells_what_was_used() {
    let (store, _) = store(100);
    let spec = LimitSpec {
        hold_us: Some(MINUTE_US),
        ..LimitSpec::new(AlgorithmKind::SlidingWindow, 100, Window::of(Unit::Hour))
    };
    let limit = build(&spec).expect("a limit");
    let ask = |hits| {
        let mut check = take("a", limit, 1);
        check.hits = hits;
        store.check_now(&all([check]))[0]
    };
    let id = HoldId::new(NOON_US, [0; 9]);
    ask(Hits::Debit(30));
    assert_eq!(ask(Hits::Hold { hits: 20, id }).remaining, 50);
    let done = store.reset(&[(take("a", limit, 1).key, limit)]).await;
    assert_eq!((done.counters, done.hits), (1, 30));
    assert_eq!(ask(Hits::Peek).remaining, 80, "the hold is still open");
    assert_eq!(ask(Hits::Settle { hits: 5, id }).remaining, 95);
}
