//! The ledger: every change that a shared counter is owed, whatever it comes from.
//!
//! A correction rides on the next call to its counter, in front of that call's checks; what nobody asks for is sent by
//! the flusher ([`Remote::flush`](super::Remote)). While a correction is in flight, other calls to its counter wait: an
//! answer that was decided without it may admit too many.
//!
//! Records of one counter and slice merge. A record that ends (its hits count no longer) is dropped and counted as
//! expired. One whose call has an unknown fate is not repeated if it gives back (the same hits would be freed twice), and
//! is repeated if it charges (that denies too many, never too few) or ends a hold (which ends once). The number of records is bounded: when there are too
//! many, one that gives back is dropped, which admits too few; one that charges only if there is no other.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use parking_lot::Mutex;
use smallvec::SmallVec;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::bounds::{Bound, BoundCounts};
use crate::model::{CounterKey, HoldId, Limit};
use crate::store::correction::{Cause, Correction};

/// Between two searches for records that have ended, while there are as many as may be.
const SWEEP_PAUSE: Duration = Duration::from_secs(1);
/// Between two log lines about charges that found no room.
const WARN_PAUSE: Duration = Duration::from_secs(10);

/// See the module's docs.
#[derive(Debug)]
pub struct Ledger {
    pub(super) book: Mutex<Book>,
    /// Records and counters in flight, to be looked at without the lock.
    len: AtomicUsize,
    max_records: usize,
    /// Notifies all that wait, in the order in which they came, when a counter's corrections are no longer in flight.
    pub(super) landed: Arc<Notify>,
    totals: [Totals; Cause::ALL.len()],
    pub(super) reached: Arc<BoundCounts>,
}

/// What became of the corrections of one cause, since the start.
#[derive(Debug, Default)]
pub(super) struct Totals {
    recorded: AtomicU64,
    pub flushed: AtomicU64,
    pub expired: AtomicU64,
    pub dropped: AtomicU64,
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
pub(super) struct Book {
    entries: BTreeMap<CounterKey, OwedOn>,
    /// Counters with a record that gives back.
    giving: BTreeSet<CounterKey>,
    pub(super) in_flight: BTreeSet<CounterKey>,
    records: usize,
    swept: Option<Instant>,
    /// When the log last said that a charge was dropped.
    warned: Option<Instant>,
}

/// What is owed on one counter.
#[derive(Debug, Default)]
struct OwedOn {
    records: SmallVec<[OwedRecord; 1]>,
}

/// One correction in the book.
#[derive(Debug, Clone)]
pub(super) struct OwedRecord {
    pub limit: Limit,
    pub slice: Option<u64>,
    pub hold: Option<HoldId>,
    pub delta: i64,
    pub until: Instant,
    pub cause: Cause,
}

impl Ledger {
    /// An empty one for up to `max_records` records.
    #[must_use]
    pub(super) fn new(max_records: usize, reached: Arc<BoundCounts>) -> Arc<Self> {
        Arc::new(Self {
            book: Mutex::default(),
            len: AtomicUsize::new(0),
            max_records: max_records.max(1),
            landed: Arc::default(),
            totals: Default::default(),
            reached,
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

    pub(super) const fn totals(&self, cause: Cause) -> &Totals {
        &self.totals[cause as usize]
    }

    /// Records a correction. Never waits and never fails; see the module's docs for the bound.
    pub fn record(&self, correction: Correction) {
        if correction.delta == 0 {
            return;
        }
        self.totals(correction.cause).recorded.fetch_add(1, Relaxed);
        let now = Instant::now();
        let record = OwedRecord {
            limit: correction.limit,
            slice: correction.slice,
            hold: correction.hold,
            delta: correction.delta,
            until: now + correction.lasts,
            cause: correction.cause,
        };
        let mut book = self.book.lock();
        self.add(&mut book, correction.counter, record, now);
        self.note_len(&book);
    }

    /// Forgets which hits are owed on a counter, because its state has been reset. Its open holds are still there, so the
    /// ends of holds that nobody knows of are still owed.
    pub fn forget(&self, counter: &CounterKey) {
        let mut book = self.book.lock();
        for record in book.remove(counter) {
            if record.hold.is_some() {
                book.put(counter.clone(), record);
            } else {
                self.totals(record.cause).expired.fetch_add(1, Relaxed);
            }
        }
        self.note_len(&book);
    }

    /// Takes what is owed on a counter; if that is anything, the counter is in flight until its corrections have landed.
    pub(super) fn take(&self, book: &mut Book, key: &CounterKey) -> SmallVec<[OwedRecord; 1]> {
        let now = Instant::now();
        let mut records = book.remove(key);
        records.retain(|record| {
            let counts = record.until > now;
            if !counts {
                self.totals(record.cause).expired.fetch_add(1, Relaxed);
            }
            counts
        });
        if !records.is_empty() {
            book.in_flight.insert(key.clone());
        }
        records
    }

    pub(super) fn add(&self, book: &mut Book, key: CounterKey, record: OwedRecord, now: Instant) {
        let charges = record.delta > 0;
        let known = book.entries.get_mut(&key).and_then(|entry| entry.merge(&record));
        match known {
            Some(Merge::Left) => {}
            Some(Merge::Cancelled) => book.tidy(&key),
            None if !self.has_room(book, charges, now) => {
                self.totals(record.cause).dropped.fetch_add(1, Relaxed);
                if charges && book.warned.is_none_or(|warned| now - warned >= WARN_PAUSE) {
                    book.warned = Some(now);
                    tracing::warn!(
                        records = book.records,
                        "more hits were admitted while the store was away than can be charged to it: it will not know of \
                         some; sluicegate_corrections_total{{result=\"dropped\"}} counts them"
                    );
                }
                return;
            }
            None => return book.put(key, record),
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
        if book.records >= self.max_records {
            self.reached.reached(Bound::Corrections);
        }
        while charges && book.records >= self.max_records {
            let Some(key) = book.giving.pop_last() else { break };
            let records = book.remove(&key);
            let (giving, charging): (Vec<_>, Vec<_>) = records.into_iter().partition(|record| record.delta < 0);
            for record in giving {
                self.totals(record.cause).dropped.fetch_add(1, Relaxed);
            }
            for record in charging {
                book.put(key.clone(), record);
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

    pub(super) fn note_len(&self, book: &Book) {
        self.len.store(book.records + book.in_flight.len(), Relaxed);
    }
}

/// What merging left of a record.
enum Merge {
    Left,
    /// The two cancel each other out.
    Cancelled,
}

impl OwedOn {
    /// Merges with the record of the same slice and cause, if there is one.
    fn merge(&mut self, record: &OwedRecord) -> Option<Merge> {
        // Of a known slice only what has one cause: the fallback counters hear of each cause at another time.
        let same = |known: &&mut OwedRecord| {
            (known.slice, known.hold) == (record.slice, record.hold)
                && (record.slice.is_none() || known.cause == record.cause)
        };
        let known = self.records.iter_mut().find(same)?;
        if record.hold.is_some() {
            // The same hold ends once.
            return Some(Merge::Left);
        }
        known.delta = known.delta.saturating_add(record.delta);
        (known.limit, known.until) = (record.limit, known.until.max(record.until));
        if known.delta != 0 {
            return Some(Merge::Left);
        }
        Some(Merge::Cancelled)
    }
}

impl Book {
    /// Counters with something owed that is not in flight, each with its limit.
    pub(super) fn due(&self) -> impl Iterator<Item = (&CounterKey, Limit)> {
        let not_in_flight = self.entries.iter().filter(|(key, _)| !self.in_flight.contains(*key));
        not_in_flight.filter_map(|(key, entry)| Some((key, entry.records.first()?.limit)))
    }

    fn put(&mut self, key: CounterKey, record: OwedRecord) {
        self.records += 1;
        if record.delta < 0 {
            self.giving.insert(key.clone());
        }
        self.entries.entry(key).or_default().records.push(record);
    }

    fn remove(&mut self, key: &CounterKey) -> SmallVec<[OwedRecord; 1]> {
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
            self.put(key.clone(), record);
        }
    }
}
