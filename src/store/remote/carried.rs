//! Corrections in flight: they go with one call, and what becomes of the call decides what becomes of them.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use smallvec::SmallVec;
use tokio::sync::futures::OwnedNotified;
use tokio::time::Instant;

use super::book::{PendingRecord, RecordOrder};
use super::bounds::Bound;
use super::fallback::Fallback;
use super::ledger::Ledger;
use crate::algorithms::op::Op;
use crate::model::{Check, CounterKey, Enforcement, Limit, Transaction};
use crate::store::correction::{Cause, Correction, HoldChange, signed};

/// The corrections of one call. When this is dropped, they return to the ledger or are counted, as the call's fate says.
pub(super) struct Carried {
    ledger: Arc<Ledger>,
    records: Vec<(CounterKey, PendingRecord)>,
    fate: Fate,
}

/// What is known of a call that carried corrections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// The store has applied them.
    Applied,
    /// The store certainly has not.
    NotApplied,
    /// It may have.
    Unknown,
    /// The store will never apply them: another application uses the key.
    Hopeless,
}

impl Carried {
    pub(super) fn nothing(ledger: &Arc<Ledger>) -> Self {
        Self {
            ledger: Arc::clone(ledger),
            records: Vec::new(),
            fate: Fate::NotApplied,
        }
    }

    fn extend(&mut self, key: &CounterKey, records: impl IntoIterator<Item = PendingRecord>) {
        self.records
            .extend(records.into_iter().map(|record| (key.clone(), record)));
    }

    /// Gives leases' unused hits back to the fallback counters, too, once the store has them. Corrections of other causes were
    /// mirrored when they were recorded, or their hits were never mirrored.
    pub(super) fn mirror(&self, fallback: &Fallback) {
        for (key, record) in &self.records {
            if record.cause == Cause::Lease {
                fallback.give_back(key, &record.limit, record.delta.unsigned_abs());
            }
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// Their number.
    pub(super) fn len(&self) -> usize {
        self.records.len()
    }

    /// Whether they are of two counters or more.
    pub(super) fn is_of_several(&self) -> bool {
        let first = self.records.first().map(|(key, _)| key);
        self.counters().any(|key| Some(key) != first)
    }

    pub(super) fn has(&self, key: &CounterKey) -> bool {
        self.records.iter().any(|(carried, _)| carried == key)
    }

    /// Its counters.
    pub(super) fn counters(&self) -> impl Iterator<Item = &CounterKey> + Clone {
        self.records.iter().map(|(key, _)| key)
    }

    /// One of its counters.
    pub(super) fn first(&self) -> Option<CounterKey> {
        self.records.first().map(|(key, _)| key.clone())
    }

    /// Splits off the corrections of the counters that `of` picks.
    pub(super) fn split_off(&mut self, of: impl Fn(&CounterKey) -> bool) -> Self {
        let (picked, kept) = std::mem::take(&mut self.records)
            .into_iter()
            .partition(|(key, _)| of(key));
        self.records = kept;
        Self {
            ledger: Arc::clone(&self.ledger),
            records: picked,
            fate: Fate::NotApplied,
        }
    }

    /// The transaction that applies them. The charges of fallback counters are cut, together, to the hits that, as `still_used`
    /// says, still count there.
    pub(super) fn transaction(&mut self, still_used: impl Fn(&CounterKey, &Limit) -> Option<u64>) -> Transaction<Op> {
        let now = Instant::now();
        let mut left: HashMap<CounterKey, i64> = HashMap::new();
        let mut checks = SmallVec::with_capacity(self.records.len());
        for (key, record) in &mut self.records {
            if record.settles() && record.counts_until <= now {
                record.delta = 0;
            }
            if record.delta > 0
                && record.cause == Cause::Fallback
                && !matches!(record.hold, Some(HoldChange::Make(_)))
                && let Some(used) = still_used(key, &record.limit)
            {
                let left = left.entry(key.clone()).or_insert_with(|| signed(used));
                record.delta = record.delta.min(*left);
                *left -= record.delta;
            }
            if record.is_nothing() {
                continue;
            }
            checks.push(Check {
                key: key.clone(),
                limit: record.limit,
                hits: Correction::op(record.slice, record.hold, record.delta),
                enforcement: Enforcement::Shadow,
            });
        }
        Transaction {
            checks,
            ..Transaction::default()
        }
    }

    /// The call is being sent: its fate is unknown until [`end`](Self::end) sets it.
    pub(super) const fn sent(&mut self) {
        self.fate = Fate::Unknown;
    }

    /// The call has ended with this fate.
    pub(super) fn end(mut self, fate: Fate) {
        self.fate = fate;
    }
}

impl Ledger {
    /// Adds the corrections of these counters to `carried`, of at most `most`, which goes in front of a call to them. Whether
    /// these are all.
    ///
    /// # Errors
    /// When corrections of one of them are in flight with another call; the future completes when such a call has ended.
    pub(super) fn claim<'k>(
        self: &Arc<Self>,
        counters: impl Iterator<Item = &'k CounterKey> + Clone,
        carried: &mut Carried,
        most: usize,
    ) -> Result<bool, OwnedNotified> {
        let mut book = self.book.lock();
        let elsewhere = |key: &&CounterKey| book.in_flight.contains(*key) && !carried.has(key);
        if counters.clone().any(|key| elsewhere(&key)) {
            return Err(Arc::clone(&self.landed).notified_owned());
        }
        let mut is_left = false;
        for key in counters {
            carried.extend(key, self.take(&mut book, key, most.saturating_sub(carried.len())));
            is_left |= book.has(key);
        }
        self.note_len(&book);
        Ok(!is_left)
    }

    /// Takes up to `most` corrections of up to `counters` of the counters that `of` picks and that are not in flight.
    pub(super) fn claim_any(
        self: &Arc<Self>,
        counters: usize,
        most: usize,
        of: impl Fn(&CounterKey, &Limit) -> bool,
    ) -> Carried {
        let mut carried = Carried::nothing(self);
        let mut book = self.book.lock();
        let due = book.due().filter(|(key, limit)| of(key, limit));
        let keys: Vec<CounterKey> = due.map(|(key, _)| key.clone()).take(counters).collect();
        if keys.len() == counters {
            self.reached.reached(Bound::Flushed);
        }
        for key in &keys {
            carried.extend(key, self.take(&mut book, key, most.saturating_sub(carried.len())));
        }
        self.note_len(&book);
        drop(book);
        carried
    }
}

impl Drop for Carried {
    fn drop(&mut self) {
        if self.records.is_empty() {
            return;
        }
        let now = Instant::now();
        let ledger = Arc::clone(&self.ledger);
        let mut book = ledger.book.lock();
        for (key, record) in self.records.drain(..) {
            book.in_flight.remove(&key);
            let totals = ledger.totals(record.cause);
            match self.fate {
                _ if record.is_nothing() => totals.expired.fetch_add(1, Relaxed),
                Fate::Applied => totals.flushed.fetch_add(1, Relaxed),
                Fate::Hopeless => totals.dropped.fetch_add(1, Relaxed),
                Fate::Unknown if !record.may_be_repeated() => totals.dropped.fetch_add(1, Relaxed),
                Fate::Unknown | Fate::NotApplied => {
                    ledger.add(&mut book, key, record, now, RecordOrder::First);
                    continue;
                }
            };
        }
        ledger.note_len(&book);
        drop(book);
        ledger.landed.notify_waiters();
    }
}
