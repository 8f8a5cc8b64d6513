//! The records of the ledger, by counter: what merges, and how many there are.

use std::collections::{BTreeMap, BTreeSet};

use smallvec::SmallVec;
use tokio::time::Instant;

use crate::model::{CounterKey, HoldId, Limit};
use crate::store::correction::{Cause, HoldChange};

#[derive(Debug, Default)]
pub(super) struct Book {
    entries: BTreeMap<CounterKey, CounterRecords>,
    /// Counters with a record that gives back hits.
    pub giving: BTreeSet<CounterKey>,
    /// Counters whose corrections are in flight.
    pub in_flight: BTreeSet<CounterKey>,
    /// Records that are not of holds.
    pub hits: usize,
    /// Records of holds.
    pub holds: usize,
    /// When it was last searched for expired records.
    pub swept: Option<Instant>,
    /// When the log last said that a charge was dropped.
    pub warned: Option<Instant>,
}

/// The pending corrections of one counter.
#[derive(Debug, Default)]
pub(super) struct CounterRecords {
    pub hits: SmallVec<[PendingRecord; 1]>,
    /// There may be one for each request of an outage.
    pub holds: BTreeMap<HoldId, PendingRecord>,
}

/// One correction in the book.
#[derive(Debug, Clone)]
pub(super) struct PendingRecord {
    pub limit: Limit,
    pub slice: Option<u64>,
    pub hold: Option<HoldChange>,
    pub delta: i64,
    /// When it expires.
    pub until: Instant,
    /// When hits that it charges count no longer; a hold may have to be ended still.
    pub counts_until: Instant,
    pub cause: Cause,
}

impl PendingRecord {
    /// Whether too many may pass without it. Others only give back.
    pub fn charges(&self) -> bool {
        self.delta > 0 || self.settles()
    }

    /// Whether it settles a hold.
    pub const fn settles(&self) -> bool {
        matches!(self.hold, Some(HoldChange::Settle(_)))
    }

    /// Whether it changes nothing.
    pub fn is_nothing(&self) -> bool {
        self.delta == 0 && self.hold.is_none()
    }

    /// Whether it may be sent again where the fate of its call is unknown.
    pub fn may_be_repeated(&self) -> bool {
        self.delta > 0 || self.hold.is_some_and(HoldChange::is_idempotent)
    }
}

/// Whether a record is newer than those of its counter that are in the book.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RecordOrder {
    /// It was recorded before them, and comes back from a call.
    First,
    /// It is new.
    Last,
}

/// Merges a record with the one of the same slice, if there is one; whether there was.
pub(super) fn merge(records: &mut SmallVec<[PendingRecord; 1]>, record: &PendingRecord) -> bool {
    // In a known slice only records of one cause merge: fallback counters mirror each cause at another time.
    let same =
        |known: &PendingRecord| known.slice == record.slice && (record.slice.is_none() || known.cause == record.cause);
    let Some(at) = records.iter().position(same) else {
        return false;
    };
    let known = &mut records[at];
    known.delta = known.delta.saturating_add(record.delta);
    known.limit = record.limit;
    known.until = known.until.max(record.until);
    known.counts_until = known.counts_until.max(record.counts_until);
    if known.delta == 0 {
        records.remove(at);
    }
    true
}

/// Merges a record of a hold with the one that is known of it. What is settled stays so, by the settlement that came first; what
/// else was said last is done.
pub(super) fn merge_holds(known: &mut PendingRecord, record: PendingRecord, order: RecordOrder) {
    let makes = |record: &PendingRecord| matches!(record.hold, Some(HoldChange::Make(_)));
    if makes(known) && makes(&record) {
        // Two checks of one request.
        known.delta = known.delta.saturating_add(record.delta);
        known.until = known.until.max(record.until);
        return;
    }
    let replaces = match (known.settles(), record.settles()) {
        (false, true) => true,
        (true, false) => false,
        (true, true) => order == RecordOrder::First,
        (false, false) => order == RecordOrder::Last,
    };
    if replaces {
        *known = record;
    }
}

impl CounterRecords {
    fn is_empty(&self) -> bool {
        self.hits.is_empty() && self.holds.is_empty()
    }

    pub fn pop(&mut self) -> Option<PendingRecord> {
        self.hits
            .pop()
            .or_else(|| self.holds.pop_first().map(|(_, record)| record))
    }
}

impl Book {
    /// Records.
    pub const fn len(&self) -> usize {
        self.hits + self.holds
    }

    /// What is recorded of a hold.
    pub fn of_hold(&mut self, key: &CounterKey, id: HoldId) -> Option<&mut PendingRecord> {
        self.entries.get_mut(key)?.holds.get_mut(&id)
    }

    /// Drops all others.
    pub fn retain(&mut self, stays: impl Fn(&PendingRecord) -> bool) {
        (self.hits, self.holds) = (0, 0);
        self.entries.retain(|key, entry| {
            entry.hits.retain(|record| stays(record));
            entry.holds.retain(|_, record| stays(record));
            if entry.hits.iter().all(PendingRecord::charges) {
                self.giving.remove(key);
            }
            self.hits += entry.hits.len();
            self.holds += entry.holds.len();
            !entry.is_empty()
        });
    }

    /// Counters that have corrections and are not in flight, each with its limit.
    pub fn due(&self) -> impl Iterator<Item = (&CounterKey, Limit)> {
        let not_in_flight = self.entries.iter().filter(|(key, _)| !self.in_flight.contains(*key));
        not_in_flight.filter_map(|(key, entry)| {
            let first = entry.hits.first().or_else(|| entry.holds.values().next());
            Some((key, first?.limit))
        })
    }

    /// Whether a counter has corrections that are not in flight.
    pub fn has(&self, key: &CounterKey) -> bool {
        self.entries.contains_key(key)
    }

    /// Adds a record that merges with no other.
    pub fn put(&mut self, key: CounterKey, record: PendingRecord) {
        if record.hold.is_none() && !record.charges() {
            self.giving.insert(key.clone());
        }
        let entry = self.entries.entry(key).or_default();
        match record.hold {
            Some(hold) => {
                self.holds += 1;
                entry.holds.insert(hold.id(), record);
            }
            None => {
                self.hits += 1;
                entry.hits.push(record);
            }
        }
    }

    /// Changes the records of a counter that has any.
    pub fn change<T: Default>(&mut self, key: &CounterKey, change: impl FnOnce(&mut CounterRecords) -> T) -> T {
        let Some(entry) = self.entries.get_mut(key) else {
            return T::default();
        };
        let (hits, holds) = (entry.hits.len(), entry.holds.len());
        let result = change(entry);
        self.hits = self.hits + entry.hits.len() - hits;
        self.holds = self.holds + entry.holds.len() - holds;
        if entry.hits.iter().all(PendingRecord::charges) {
            self.giving.remove(key);
        } else {
            self.giving.insert(key.clone());
        }
        if entry.is_empty() {
            self.entries.remove(key);
        }
        result
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::algorithms::limit::{LimitSpec, build};
    use crate::model::{AlgorithmKind, Unit, Window};

    fn record(change: fn(HoldId) -> HoldChange, delta: i64) -> PendingRecord {
        let limit = build(&LimitSpec::new(
            AlgorithmKind::SlidingWindow,
            1000,
            Window::of(Unit::Hour),
        ))
        .unwrap();
        let until = Instant::now() + Duration::from_secs(3600);
        PendingRecord {
            limit,
            slice: None,
            hold: Some(change(HoldId::new(1, [7; 9]))),
            delta,
            until,
            counts_until: until,
            cause: Cause::Fallback,
        }
    }

    /// What is made, settled and released of one hold, in either order.
    #[test]
    fn what_is_settled_stays_so() {
        use HoldChange::{Make, Release, Settle};
        use RecordOrder::{First, Last};
        let named = |record: &PendingRecord| (record.hold.unwrap(), record.delta);
        for (known, new, order, what) in [
            // Two checks of one request hold together.
            (
                (Make as fn(_) -> _, 5),
                (Make as fn(_) -> _, 3),
                Last,
                (Make as fn(_) -> _, 8),
            ),
            ((Make, 5), (Make, 3), First, (Make, 8)),
            ((Make, 5), (Settle, 3), Last, (Settle, 3)),
            ((Make, 5), (Settle, 3), First, (Settle, 3)),
            ((Make, 5), (Release, -5), Last, (Release, -5)),
            ((Make, 5), (Release, -5), First, (Make, 5)),
            ((Settle, 5), (Make, 3), Last, (Settle, 5)),
            ((Settle, 5), (Make, 3), First, (Settle, 5)),
            // The first of two is done.
            ((Settle, 5), (Settle, 3), Last, (Settle, 5)),
            ((Settle, 5), (Settle, 3), First, (Settle, 3)),
            ((Settle, 5), (Release, -3), Last, (Settle, 5)),
            ((Settle, 5), (Release, -3), First, (Settle, 5)),
            // One that comes back after the hold was ended for its caller's sake is charged all the same.
            ((Release, -5), (Settle, 3), First, (Settle, 3)),
            ((Release, -5), (Settle, 3), Last, (Settle, 3)),
            ((Release, -5), (Make, 3), First, (Release, -5)),
        ] {
            let mut merged = record(known.0, known.1);
            merge_holds(&mut merged, record(new.0, new.1), order);
            assert_eq!(
                named(&merged),
                named(&record(what.0, what.1)),
                "{:?} and {:?}, {order:?}",
                record(known.0, known.1).hold,
                record(new.0, new.1).hold
            );
        }
    }
}
