//! Corrections on their way to the store, and what becomes of them.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use smallvec::SmallVec;
use tokio::sync::futures::OwnedNotified;
use tokio::time::Instant;

use super::bounds::Bound;
use super::fallback::Fallback;
use super::ledger::{Ledger, OwedRecord};
use crate::algorithms::op::Op;
use crate::model::{Check, CounterKey, Enforcement, Limit, Transaction};
use crate::store::correction::{Cause, Correction, signed};

/// Corrections on their way to the store.
pub(super) struct Carried {
    ledger: Arc<Ledger>,
    records: Vec<(CounterKey, OwedRecord)>,
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
    /// It never will: the key belongs to somebody else.
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

    fn extend(&mut self, key: &CounterKey, records: impl IntoIterator<Item = OwedRecord>) {
        self.records
            .extend(records.into_iter().map(|record| (key.clone(), record)));
    }

    /// Notes in the fallback counters what the store has been given back of leases. What requests were refused or never
    /// heard of was noted when it was recorded, or never counted there.
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

    pub(super) fn has(&self, key: &CounterKey) -> bool {
        self.records.iter().any(|(carried, _)| carried == key)
    }

    /// Its counters.
    pub(super) fn counters(&self) -> impl Iterator<Item = &CounterKey> + Clone {
        self.records.iter().map(|(key, _)| key)
    }

    /// Splits off what `of` picks.
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

    /// The call that applies them; charges are cut to what `still_used` says still counts of them.
    pub(super) fn transaction(&mut self, still_used: impl Fn(&CounterKey, &Limit) -> Option<u64>) -> Transaction<Op> {
        let mut checks = SmallVec::with_capacity(self.records.len());
        for (key, record) in &mut self.records {
            if record.delta > 0
                && record.cause == Cause::Fallback
                && let Some(used) = still_used(key, &record.limit)
            {
                record.delta = record.delta.min(signed(used));
            }
            if record.delta == 0 {
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

    /// From here on its fate is unknown until it is [told](Self::end).
    pub(super) const fn sent(&mut self) {
        self.fate = Fate::Unknown;
    }

    /// What became of them.
    pub(super) fn end(mut self, fate: Fate) {
        self.fate = fate;
    }
}

impl Ledger {
    /// Adds what is owed on these counters to `carried`, which goes in front of a call to them.
    ///
    /// # Errors
    /// When corrections of one of them are in flight with another call; the future completes when any have landed.
    pub(super) fn claim<'k>(
        self: &Arc<Self>,
        counters: impl Iterator<Item = &'k CounterKey> + Clone,
        carried: &mut Carried,
    ) -> Result<(), OwnedNotified> {
        let mut book = self.book.lock();
        let elsewhere = |key: &&CounterKey| book.in_flight.contains(*key) && !carried.has(key);
        if counters.clone().any(|key| elsewhere(&key)) {
            return Err(Arc::clone(&self.landed).notified_owned());
        }
        for key in counters {
            carried.extend(key, self.take(&mut book, key));
        }
        self.note_len(&book);
        Ok(())
    }

    /// Takes what is owed on up to `most` of the counters that `of` picks and that are not in flight.
    pub(super) fn claim_any(self: &Arc<Self>, most: usize, of: impl Fn(&CounterKey, &Limit) -> bool) -> Carried {
        let mut carried = Carried::nothing(self);
        let mut book = self.book.lock();
        let due = book.due().filter(|(key, limit)| of(key, limit));
        let keys: Vec<CounterKey> = due.map(|(key, _)| key.clone()).take(most).collect();
        if keys.len() == most {
            self.reached.reached(Bound::Flushed);
        }
        for key in &keys {
            carried.extend(key, self.take(&mut book, key));
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
                _ if record.delta == 0 => totals.expired.fetch_add(1, Relaxed),
                Fate::Applied => totals.flushed.fetch_add(1, Relaxed),
                Fate::Hopeless => totals.dropped.fetch_add(1, Relaxed),
                Fate::Unknown if record.delta < 0 && record.hold.is_none_or(|id| id.is_oldest()) => {
                    totals.dropped.fetch_add(1, Relaxed)
                }
                Fate::Unknown | Fate::NotApplied => {
                    ledger.add(&mut book, key, record, now);
                    continue;
                }
            };
        }
        ledger.note_len(&book);
        drop(book);
        ledger.landed.notify_waiters();
    }
}
