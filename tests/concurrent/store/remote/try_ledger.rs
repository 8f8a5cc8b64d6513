//! The ledger: while a counter's corrections are in flight no other call decides it, whoever waits for them goes on, and
//! nothing that is owed is lost or told twice.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use shuttle::future::{block_on, yield_now};
use shuttle::rand::Rng;
use shuttle::thread;

use super::carried::{Carried, Fate};
use super::ledger::Ledger;
use super::{check, ledger};
use crate::algorithms::op::Op;
use crate::explore::explore;
use crate::model::{AlgorithmKind, CounterKey};
use crate::store::{Cause, Correction};

/// What the store has been told, and which counters some call is deciding at the moment.
#[derive(Default)]
struct Store {
    told: BTreeMap<CounterKey, i64>,
    /// Of each counter: calls to it that are under way, and whether one of them carries corrections.
    deciding: BTreeMap<CounterKey, (usize, bool)>,
}

impl Store {
    fn begin(&mut self, key: &CounterKey, carries: bool) {
        let (calls, carried) = self.deciding.entry(key.clone()).or_default();
        assert!(!carries || !*carried, "{key}: corrections are in flight twice");
        (*calls, *carried) = (*calls + 1, *carried || carries);
    }

    fn end(&mut self, key: &CounterKey, carries: bool) {
        let (calls, carried) = self.deciding.entry(key.clone()).or_default();
        (*calls, *carried) = (*calls - 1, *carried && !carries);
    }
}

fn record(ledger: &Ledger, key: &str, delta: i64) {
    let check = check(key, AlgorithmKind::SlidingWindow, Op::Acquire(1));
    ledger.record(Correction::unplaced(&check, delta, Cause::Fallback));
}

/// A call to these counters, which waits for corrections that are in flight as the dispatcher does.
async fn call(ledger: &Arc<Ledger>, store: &Mutex<Store>, keys: &[CounterKey]) {
    let mut carried = Carried::nothing(ledger);
    while let Err(landed) = ledger.claim(keys.iter(), &mut carried, 8) {
        landed.await;
    }
    carry(store, carried, keys).await;
}

async fn flush(ledger: &Arc<Ledger>, store: &Mutex<Store>) {
    let carried = ledger.claim_any(8, 8, |_, _| true);
    let keys: Vec<_> = carried.counters().cloned().collect();
    carry(store, carried, &keys).await;
}

/// Sends what is carried; whether it arrives is left to chance.
async fn carry(store: &Mutex<Store>, mut carried: Carried, keys: &[CounterKey]) {
    let carries: Vec<bool> = keys.iter().map(|key| carried.has(key)).collect();
    {
        let mut store = store.lock().expect("the store");
        keys.iter()
            .zip(&carries)
            .for_each(|(key, carries)| store.begin(key, *carries));
    }
    let corrections = carried.transaction(|_, _| None);
    carried.sent();
    yield_now().await;
    let fate = match shuttle::rand::thread_rng().gen_range(0..3) {
        0 => Fate::NotApplied,
        _ => Fate::Applied,
    };
    {
        let mut store = store.lock().expect("the store");
        for (key, carries) in keys.iter().zip(&carries) {
            store.end(key, *carries);
        }
        for check in corrections.checks.iter().filter(|_| fate == Fate::Applied) {
            let told = store.told.entry(check.key.clone()).or_default();
            *told += match check.hits {
                Op::Debit(hits) => i64::try_from(hits).expect("few"),
                Op::Refund(hits) => -i64::try_from(hits).expect("few"),
                other => panic!("{other:?}"),
            };
        }
    }
    carried.end(fate);
}

#[test]
fn corrections_are_in_flight_once_nobody_waits_for_ever_and_all_arrive() {
    explore(|| {
        let (ledger, store) = (ledger(), Arc::new(Mutex::new(Store::default())));
        let keys = ["a", "b"].map(CounterKey::from_raw);
        record(&ledger, "a", 1);
        record(&ledger, "b", 1);
        let mut tasks = Vec::new();
        for own in [vec![0], vec![0, 1], vec![1]] {
            let (ledger, store) = (Arc::clone(&ledger), Arc::clone(&store));
            let keys: Vec<_> = own.iter().map(|at: &usize| keys[*at].clone()).collect();
            tasks.push(thread::spawn(move || block_on(call(&ledger, &store, &keys))));
        }
        for delta in [2, -1] {
            let ledger = Arc::clone(&ledger);
            tasks.push(thread::spawn(move || record(&ledger, "a", delta)));
        }
        {
            let (ledger, store) = (Arc::clone(&ledger), Arc::clone(&store));
            tasks.push(thread::spawn(move || block_on(flush(&ledger, &store))));
        }
        for task in tasks {
            task.join().expect("a task");
        }
        while !ledger.is_empty() {
            block_on(flush(&ledger, &store));
        }
        let store = store.lock().expect("the store");
        assert_eq!(store.told.values().sum::<i64>(), 4 - 1, "{:?}", store.told);
        assert_eq!(store.told[&keys[0]], 2);
    });
}

/// A call that found nothing to carry has seen that nothing was in flight.
#[test]
fn no_call_decides_a_counter_whose_corrections_another_one_carries() {
    explore(|| {
        let (ledger, store) = (ledger(), Arc::new(Mutex::new(Store::default())));
        record(&ledger, "a", 1);
        let tasks: Vec<_> = (0..3)
            .map(|_| {
                let (ledger, store) = (Arc::clone(&ledger), Arc::clone(&store));
                thread::spawn(move || {
                    block_on(async move {
                        let keys = [CounterKey::from_raw("a")];
                        let mut carried = Carried::nothing(&ledger);
                        while let Err(landed) = ledger.claim(keys.iter(), &mut carried, 8) {
                            landed.await;
                        }
                        if carried.is_empty() {
                            let carrying = store.lock().expect("the store").deciding.get(&keys[0]).copied();
                            assert!(
                                carrying.is_none_or(|(_, carries)| !carries),
                                "decided without a correction"
                            );
                        }
                        carry(&store, carried, &keys).await;
                    });
                })
            })
            .collect();
        for task in tasks {
            task.join().expect("a task");
        }
    });
}
