//! What was admitted here and the shared store does not know of.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::Instant;

use super::{Change, Check, Enforcement, Hits};
use crate::algorithms::quota;
use crate::model::{CounterKey, Limit};

/// Counters that something can be owed on; what is admitted on more is forgotten when the shared store is back.
const MAX_KEYS: usize = 100_000;
/// Between two looks for debts that have lapsed, while there are as many as can be.
const SWEEP_PAUSE: Duration = Duration::from_secs(1);

/// A ledger.
#[derive(Debug, Default)]
pub(super) struct Owed {
    debts: Mutex<Debts>,
    /// How many there are, with those on the way, to be looked at without the lock.
    len: AtomicUsize,
}

#[derive(Debug, Default)]
struct Debts {
    by_key: HashMap<CounterKey, Debt>,
    /// Counters whose debt is being told; dropped when it is known how that went.
    on_the_way: HashMap<CounterKey, watch::Sender<()>>,
    /// When those that had lapsed were dropped.
    swept: Option<Instant>,
}

#[derive(Debug)]
struct Debt {
    limit: Limit,
    /// When a hit was noted last.
    noted: Instant,
    /// Hits that were counted here, less those that were given back.
    hits: i64,
}

/// What there is on a counter.
pub(super) enum Taken {
    /// A debt, which counts as on the way from here on, until [`Owed::end`].
    Debt(Check),
    /// A debt that is on the way already; the sender is gone when that has ended.
    OnTheWay(watch::Receiver<()>),
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
        let now = Instant::now();
        let mut debts = self.debts.lock();
        if let Some(debt) = debts.by_key.get_mut(&check.key) {
            debt.hits = debt.hits.saturating_add(hits);
            (debt.limit, debt.noted) = (check.limit, now);
        } else if debts.has_room(now) {
            let debt = Debt {
                limit: check.limit,
                noted: now,
                hits,
            };
            debts.by_key.insert(check.key.clone(), debt);
        }
        self.note_len(&debts);
    }

    /// Takes out what is owed on a counter.
    pub(super) fn take(&self, key: &CounterKey) -> Option<Taken> {
        let mut debts = self.debts.lock();
        if let Some(ends) = debts.on_the_way.get(key) {
            return Some(Taken::OnTheWay(ends.subscribe()));
        }
        let (key, debt) = debts.by_key.remove_entry(key)?;
        let taken = debt.into_check(key);
        debts.send(taken.iter());
        self.note_len(&debts);
        taken.map(Taken::Debt)
    }

    /// Takes out what is owed on up to `most` counters of those that `of` picks; empty when there are none. All of it
    /// counts as on the way from here on, until [`end`](Self::end).
    pub(super) fn take_any(&self, most: usize, of: impl Fn(&CounterKey, &Limit) -> bool) -> Vec<Check> {
        let mut debts = self.debts.lock();
        let Debts { by_key, on_the_way, .. } = &mut *debts;
        let mine = by_key.extract_if(|key, debt| of(key, &debt.limit) && !on_the_way.contains_key(key));
        let taken: Vec<Check> = mine.filter_map(|(key, debt)| debt.into_check(key)).take(most).collect();
        debts.send(taken.iter());
        self.note_len(&debts);
        taken
    }

    /// The debt on this counter that was on its way has been told, or is noted again.
    pub(super) fn end(&self, key: &CounterKey) {
        let mut debts = self.debts.lock();
        debts.on_the_way.remove(key);
        self.note_len(&debts);
    }

    fn note_len(&self, debts: &Debts) {
        self.len.store(debts.by_key.len() + debts.on_the_way.len(), Relaxed);
    }
}

impl Debts {
    fn send<'c>(&mut self, checks: impl Iterator<Item = &'c Check>) {
        self.on_the_way
            .extend(checks.map(|check| (check.key.clone(), watch::Sender::new(()))));
    }

    /// Whether one more can be noted; drops what has lapsed if there are too many.
    fn has_room(&mut self, now: Instant) -> bool {
        if self.by_key.len() < MAX_KEYS {
            return true;
        }
        if self.swept.is_none_or(|swept| now - swept >= SWEEP_PAUSE) {
            self.swept = Some(now);
            self.by_key.retain(|_, debt| !debt.has_lapsed(now));
        }
        self.by_key.len() < MAX_KEYS
    }
}

impl Debt {
    /// Whether none of its hits can still count: a window that slides looks back over two, and a bucket refills as often
    /// as its quota is larger than what flows in during one.
    fn has_lapsed(&self, now: Instant) -> bool {
        let windows = quota(&self.limit).div_ceil(self.limit.hits.max(1)).max(1);
        let lives_us = self.limit.window_us.saturating_mul(windows).saturating_mul(2);
        now - self.noted >= Duration::from_micros(lives_us)
    }

    fn into_check(self, key: CounterKey) -> Option<Check> {
        let hits = match self.hits {
            0 => return None,
            counted @ 1.. => Hits::Debit(counted.unsigned_abs()),
            given => Hits::Refund(given.unsigned_abs()),
        };
        Some(Check {
            key,
            limit: self.limit,
            hits,
            enforcement: Enforcement::Shadow,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::algorithms::limit::{self, LimitSpec};
    use crate::model::key::{Owner, Part, counter_key};
    use crate::model::{AlgorithmKind, Unit, Window};

    fn hit(unit: Unit, name: &str) -> Check {
        let spec = LimitSpec::new(AlgorithmKind::SlidingWindow, 10, Window::of(unit));
        let limit = limit::build(&spec).unwrap();
        Check {
            key: counter_key("", Owner::Rule, &limit, "test", [Part::Own("key", name)]),
            limit,
            hits: Hits::Acquire(1),
            enforcement: Enforcement::Enforce,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_has_lapsed_makes_room() {
        let owed = Owed::default();
        let is_noted = |check: &Check| {
            owed.add(check, Change::Counted(1));
            owed.debts.lock().by_key.contains_key(&check.key)
        };
        let hour = hit(Unit::Hour, "hour");
        assert!(is_noted(&hour));
        for n in 1..MAX_KEYS {
            owed.add(&hit(Unit::Second, &n.to_string()), Change::Counted(1));
        }
        let more = hit(Unit::Second, "more");
        assert!(!is_noted(&more), "as many as can be, and each still counts");
        tokio::time::advance(Duration::from_secs(2)).await;
        assert!(is_noted(&more));
        assert_eq!(owed.len.load(Relaxed), 2, "the others have lapsed");
        assert!(owed.take(&hour.key).is_some());
    }
}
