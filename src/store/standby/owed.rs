//! What was admitted here and the shared store does not know of.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use parking_lot::Mutex;

use super::{Change, Check, Gate, Hits};
use crate::model::{CounterKey, Limit};

/// Counters that something can be owed on; what is admitted on more is forgotten when the shared store is back.
const MAX_KEYS: usize = 100_000;

/// A ledger.
#[derive(Debug, Default)]
pub(super) struct Owed {
    debts: Mutex<HashMap<CounterKey, Debt>>,
    /// How many there are, to be looked at without the lock.
    len: AtomicUsize,
}

#[derive(Debug)]
struct Debt {
    limit: Limit,
    /// Hits that were counted here, less those that were given back.
    hits: i64,
}

impl Owed {
    pub(super) fn is_empty(&self) -> bool {
        self.len.load(Relaxed) == 0
    }

    /// Notes a change.
    pub(super) fn add(&self, check: &Check, change: Change) {
        let hits = match change {
            Change::None => return,
            Change::Counted(hits) => i64::try_from(hits).unwrap_or(i64::MAX),
            Change::Given(hits) => -i64::try_from(hits).unwrap_or(i64::MAX),
        };
        let mut debts = self.debts.lock();
        let is_full = debts.len() >= MAX_KEYS;
        match debts.entry(check.key.clone()) {
            Entry::Occupied(mut debt) => {
                let debt = debt.get_mut();
                debt.hits = debt.hits.saturating_add(hits);
                debt.limit = check.limit;
            }
            Entry::Vacant(_) if is_full => {}
            Entry::Vacant(place) => {
                place.insert(Debt {
                    limit: check.limit,
                    hits,
                });
            }
        }
        self.len.store(debts.len(), Relaxed);
    }

    /// Takes out what is owed on a counter.
    pub(super) fn take(&self, key: &CounterKey) -> Option<Check> {
        let mut debts = self.debts.lock();
        let (key, debt) = debts.remove_entry(key)?;
        self.len.store(debts.len(), Relaxed);
        debt.into_check(key)
    }

    /// Takes out what is owed on up to `most` counters of those whose limits `of` picks; empty when there are none.
    pub(super) fn take_any(&self, most: usize, of: fn(&Limit) -> bool) -> Vec<Check> {
        let mut debts = self.debts.lock();
        let mine = debts.extract_if(|_, debt| of(&debt.limit));
        let taken = mine.filter_map(|(key, debt)| debt.into_check(key)).take(most).collect();
        self.len.store(debts.len(), Relaxed);
        taken
    }
}

impl Debt {
    fn into_check(self, key: CounterKey) -> Option<Check> {
        let hits = match self.hits {
            0 => return None,
            counted @ 1.. => Hits::Charge(counted.unsigned_abs()),
            given => Hits::Give(given.unsigned_abs()),
        };
        Some(Check {
            key,
            limit: self.limit,
            hits,
            gate: Gate::Observe,
        })
    }
}
