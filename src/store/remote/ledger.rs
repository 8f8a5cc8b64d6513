//! The ledger: every change that a shared counter is owed, whatever it comes from.
//!
//! A correction rides on the next call to its counter, in front of that call's checks; what nobody asks for is sent by
//! the flusher ([`Remote::flush`](super::Remote)). While a correction is in flight, other calls to its counter wait: an
//! answer that was decided without it may admit too many.
//!
//! Records of one counter and slice merge. A record that ends (its hits count no longer) is dropped and counted as
//! expired. One whose call has an unknown fate is not repeated if it gives back (the same hits would be freed twice), and
//! is repeated if it charges (that denies too many, never too few). The number of records is bounded: when there are too
//! many, one that gives back is dropped, which admits too few; one that charges only if there is no other.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use parking_lot::Mutex;
use smallvec::SmallVec;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::algorithms::op::Op;
use crate::model::{Check, CounterKey, Enforcement, Limit, Transaction};
use crate::store::correction::{Cause, Correction};

/// Between two searches for records that have ended, while there are as many as may be.
const SWEEP_PAUSE: Duration = Duration::from_secs(1);

/// See the module's docs.
#[derive(Debug)]
pub struct Ledger {
    book: Mutex<Book>,
    /// Records and counters in flight, to be looked at without the lock.
    len: AtomicUsize,
    max_records: usize,
    /// Changes when a counter's corrections are no longer in flight.
    landed: watch::Sender<()>,
    totals: [Totals; Cause::ALL.len()],
}

/// What became of the corrections of one cause, since the start.
#[derive(Debug, Default)]
struct Totals {
    recorded: AtomicU64,
    flushed: AtomicU64,
    expired: AtomicU64,
    dropped: AtomicU64,
}

/// The same, read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CauseStats {
    /// Of which cause.
    pub cause: Cause,
    /// Corrections that were recorded.
    pub recorded: u64,
    /// Corrections that the store has applied.
    pub flushed: u64,
    /// Corrections whose hits ceased to count before.
    pub expired: u64,
    /// Corrections that gave back and were given up: for want of room, or because the fate of their call is unknown; and
    /// those that charged and found no room.
    pub dropped: u64,
}

#[derive(Debug, Default)]
struct Book {
    entries: BTreeMap<CounterKey, Entry>,
    /// Counters with a record that gives back.
    giving: BTreeSet<CounterKey>,
    in_flight: BTreeSet<CounterKey>,
    records: usize,
    swept: Option<Instant>,
}

/// What is owed on one counter.
#[derive(Debug, Default)]
struct Entry {
    records: SmallVec<[Record; 1]>,
}

#[derive(Debug, Clone)]
struct Record {
    limit: Limit,
    slice: Option<u64>,
    delta: i64,
    until: Instant,
    cause: Cause,
}

/// Corrections on their way to the store.
pub(super) struct Carried {
    ledger: Arc<Ledger>,
    records: Vec<(CounterKey, Record)>,
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

impl Ledger {
    /// An empty one for up to `max_records` records.
    #[must_use]
    pub fn new(max_records: usize) -> Arc<Self> {
        Arc::new(Self {
            book: Mutex::default(),
            len: AtomicUsize::new(0),
            max_records: max_records.max(1),
            landed: watch::Sender::new(()),
            totals: Default::default(),
        })
    }

    /// Whether nothing is owed and nothing is in flight.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len.load(Relaxed) == 0
    }

    /// Records, with counters in flight.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len.load(Relaxed)
    }

    /// What became of the corrections of each cause.
    #[must_use]
    pub fn stats(&self) -> [CauseStats; Cause::ALL.len()] {
        Cause::ALL.map(|cause| {
            let totals = self.totals(cause);
            CauseStats {
                cause,
                recorded: totals.recorded.load(Relaxed),
                flushed: totals.flushed.load(Relaxed),
                expired: totals.expired.load(Relaxed),
                dropped: totals.dropped.load(Relaxed),
            }
        })
    }

    const fn totals(&self, cause: Cause) -> &Totals {
        &self.totals[cause as usize]
    }

    /// Records a correction. Never waits and never fails; see the module's docs for the bound.
    pub fn record(&self, correction: Correction) {
        if correction.delta == 0 {
            return;
        }
        self.totals(correction.cause).recorded.fetch_add(1, Relaxed);
        let now = Instant::now();
        let record = Record {
            limit: correction.limit,
            slice: correction.slice,
            delta: correction.delta,
            until: now + correction.lasts,
            cause: correction.cause,
        };
        let mut book = self.book.lock();
        self.add(&mut book, correction.counter, record, now);
        self.note_len(&book);
    }

    /// Forgets what is owed on a counter, because its state has been reset.
    pub fn forget(&self, counter: &CounterKey) {
        let mut book = self.book.lock();
        for record in book.remove(counter) {
            self.totals(record.cause).dropped.fetch_add(1, Relaxed);
        }
        self.note_len(&book);
    }

    /// Adds what is owed on these counters to `carried`, which goes in front of a call to them.
    ///
    /// # Errors
    /// When corrections of one of them are in flight with another call; the receiver changes when any have landed.
    pub(super) fn claim<'k>(
        self: &Arc<Self>,
        counters: impl Iterator<Item = &'k CounterKey> + Clone,
        carried: &mut Carried,
    ) -> Result<(), watch::Receiver<()>> {
        let mut book = self.book.lock();
        let elsewhere = |key: &&CounterKey| book.in_flight.contains(*key) && !carried.has(key);
        if counters.clone().any(|key| elsewhere(&key)) {
            return Err(self.landed.subscribe());
        }
        for key in counters {
            self.take(&mut book, key, carried);
        }
        self.note_len(&book);
        Ok(())
    }

    /// Takes what is owed on up to `most` of the counters that `of` picks and that are not in flight.
    pub(super) fn claim_any(self: &Arc<Self>, most: usize, of: impl Fn(&CounterKey, &Limit) -> bool) -> Carried {
        let mut carried = Carried::nothing(self);
        let mut book = self.book.lock();
        let limit = |entry: &Entry| entry.records.first().map(|record| record.limit);
        let due = book
            .entries
            .iter()
            .filter(|(key, entry)| !book.in_flight.contains(*key) && limit(entry).is_some_and(|limit| of(key, &limit)));
        let keys: Vec<CounterKey> = due.map(|(key, _)| key.clone()).take(most).collect();
        for key in &keys {
            self.take(&mut book, key, &mut carried);
        }
        self.note_len(&book);
        drop(book);
        carried
    }

    fn take(&self, book: &mut Book, key: &CounterKey, carried: &mut Carried) {
        let now = Instant::now();
        let records = book.remove(key);
        if records.is_empty() {
            return;
        }
        for record in records {
            if record.until <= now {
                self.totals(record.cause).expired.fetch_add(1, Relaxed);
            } else {
                carried.records.push((key.clone(), record));
            }
        }
        if carried.has(key) {
            book.in_flight.insert(key.clone());
        }
    }

    fn add(&self, book: &mut Book, key: CounterKey, record: Record, now: Instant) {
        let charges = record.delta > 0;
        let known = book.entries.get_mut(&key).and_then(|entry| entry.merge(&record));
        match known {
            Some(Merged::Left) => {}
            Some(Merged::Cancelled) => book.tidy(&key),
            None if !self.has_room(book, charges, now) => {
                self.totals(record.cause).dropped.fetch_add(1, Relaxed);
                return;
            }
            None => {
                book.records += 1;
                book.entries.entry(key.clone()).or_default().records.push(record);
            }
        }
        if !charges && book.entries.contains_key(&key) {
            book.giving.insert(key);
        }
    }

    /// Whether one more can be kept; makes room if need be.
    fn has_room(&self, book: &mut Book, charges: bool, now: Instant) -> bool {
        if book.records < self.max_records {
            return true;
        }
        if book.swept.is_none_or(|swept| now - swept >= SWEEP_PAUSE) {
            book.swept = Some(now);
            self.expire(book, now);
        }
        while charges && book.records >= self.max_records {
            let Some(key) = book.giving.pop_last() else { break };
            let records = book.remove(&key);
            let (giving, charging): (Vec<_>, Vec<_>) = records.into_iter().partition(|record| record.delta < 0);
            for record in giving {
                self.totals(record.cause).dropped.fetch_add(1, Relaxed);
            }
            for record in charging {
                book.records += 1;
                book.entries.entry(key.clone()).or_default().records.push(record);
            }
        }
        book.records < self.max_records
    }

    /// Drops records that have ended.
    pub(super) fn sweep(&self) {
        let mut book = self.book.lock();
        self.expire(&mut book, Instant::now());
        self.note_len(&book);
    }

    fn expire(&self, book: &mut Book, now: Instant) {
        let Book {
            entries,
            giving,
            records,
            ..
        } = book;
        entries.retain(|key, entry| {
            entry.records.retain(|record| {
                let counts = record.until > now;
                if !counts {
                    *records -= 1;
                    self.totals(record.cause).expired.fetch_add(1, Relaxed);
                }
                counts
            });
            if entry.records.iter().all(|record| record.delta > 0) {
                giving.remove(key);
            }
            !entry.records.is_empty()
        });
    }

    fn note_len(&self, book: &Book) {
        self.len.store(book.records + book.in_flight.len(), Relaxed);
    }
}

/// What merging left of a record.
enum Merged {
    Left,
    /// The two cancel each other out.
    Cancelled,
}

impl Entry {
    /// Merges with the record of the same slice, if there is one.
    fn merge(&mut self, record: &Record) -> Option<Merged> {
        let known = self.records.iter_mut().find(|known| known.slice == record.slice)?;
        known.delta = known.delta.saturating_add(record.delta);
        (known.limit, known.until) = (record.limit, known.until.max(record.until));
        if known.delta != 0 {
            return Some(Merged::Left);
        }
        Some(Merged::Cancelled)
    }
}

impl Book {
    fn remove(&mut self, key: &CounterKey) -> SmallVec<[Record; 1]> {
        let records = self.entries.remove(key).map(|entry| entry.records).unwrap_or_default();
        if !records.is_empty() {
            self.records -= records.len();
            self.giving.remove(key);
        }
        records
    }

    /// Drops records without hits.
    fn tidy(&mut self, key: &CounterKey) {
        let records = self.remove(key);
        for record in records.into_iter().filter(|record| record.delta != 0) {
            self.records += 1;
            if record.delta < 0 {
                self.giving.insert(key.clone());
            }
            self.entries.entry(key.clone()).or_default().records.push(record);
        }
    }
}

impl Carried {
    pub(super) fn nothing(ledger: &Arc<Ledger>) -> Self {
        Self {
            ledger: Arc::clone(ledger),
            records: Vec::new(),
            fate: Fate::NotApplied,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    fn has(&self, key: &CounterKey) -> bool {
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
                record.delta = record.delta.min(crate::store::correction::signed(used));
            }
            if record.delta == 0 {
                continue;
            }
            checks.push(Check {
                key: key.clone(),
                limit: record.limit,
                hits: Correction::op(record.slice, record.delta),
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
                Fate::Unknown if record.delta < 0 => totals.dropped.fetch_add(1, Relaxed),
                Fate::Unknown | Fate::NotApplied => {
                    ledger.add(&mut book, key, record, now);
                    continue;
                }
            };
        }
        ledger.note_len(&book);
        drop(book);
        ledger.landed.send_replace(());
    }
}
