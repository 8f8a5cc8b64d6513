//! The ledger: the pending changes of all shared counters, whatever their cause.
//!
//! A correction is sent with the next call to its counter, in front of that call's checks. If no such call comes, the
//! flusher sends it ([`Remote::flush`](super::Remote)). While a correction is in flight, other calls to its counter wait: an
//! answer that was decided without it may admit too many.
//!
//! Records of one counter and slice merge. A record whose hits count no longer is dropped and counted as expired. If the fate
//! of its call is unknown, a record that gives back is dropped, because a second one could give back the same hits twice; one
//! that charges is sent again, because that denies too many and never too few; and so is one that makes or ends a hold, which
//! the store does once. The number of records is bounded: at the bound a record that gives back is dropped, which admits too few, and one
//! that charges only if there is no other.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use parking_lot::Mutex;
use smallvec::SmallVec;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::bounds::{Bound, BoundCounts};
use crate::model::{CounterKey, Limit};
use crate::store::correction::{Cause, Correction, HoldChange};

/// Between two searches for expired records, while there are as many records as allowed.
const SWEEP_PAUSE: Duration = Duration::from_secs(1);
/// Between two log lines about charges that were dropped.
const WARN_PAUSE: Duration = Duration::from_secs(10);

/// See the module's docs.
#[derive(Debug)]
pub struct Ledger {
    pub(super) book: Mutex<Book>,
    /// Records and counters in flight, to be read without the lock.
    len: AtomicUsize,
    max_records: usize,
    /// Notifies all waiting jobs, in their order, when a counter's corrections are no longer in flight.
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

/// What became of the corrections of one cause, at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CauseStats {
    /// The cause.
    pub cause: Cause,
    /// Corrections that were recorded.
    pub recorded: u64,
    /// Corrections that the store has applied.
    pub flushed: u64,
    /// Corrections whose hits ceased to count before.
    pub expired: u64,
    /// Corrections that were dropped at the bound; and those that gave back and whose call has an unknown fate.
    pub dropped: u64,
}

#[derive(Debug, Default)]
pub(super) struct Book {
    entries: BTreeMap<CounterKey, Records>,
    /// Counters with a record that gives back.
    giving: BTreeSet<CounterKey>,
    pub(super) in_flight: BTreeSet<CounterKey>,
    records: usize,
    swept: Option<Instant>,
    /// When the log last said that a charge was dropped.
    warned: Option<Instant>,
}

/// The pending corrections of one counter.
pub(super) type Records = SmallVec<[PendingRecord; 1]>;

/// One correction in the book.
#[derive(Debug, Clone)]
pub(super) struct PendingRecord {
    pub limit: Limit,
    pub slice: Option<u64>,
    pub hold: Option<HoldChange>,
    pub delta: i64,
    pub until: Instant,
    pub cause: Cause,
}

impl PendingRecord {
    /// Whether too many may pass without it. Others only give back.
    fn charges(&self) -> bool {
        self.delta > 0 || matches!(self.hold, Some(HoldChange::Settle(_)))
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

impl Ledger {
    /// An empty ledger for up to `max_records` records.
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

    /// Whether no correction is pending or in flight.
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
        if correction.delta == 0 && correction.hold.is_none() {
            return;
        }
        self.totals(correction.cause).recorded.fetch_add(1, Relaxed);
        let now = Instant::now();
        let record = PendingRecord {
            limit: correction.limit,
            slice: correction.slice,
            hold: correction.hold,
            delta: correction.delta,
            until: now + correction.lasts,
            cause: correction.cause,
        };
        let mut book = self.book.lock();
        self.add(&mut book, correction.counter, record, now, RecordOrder::Last);
        self.note_len(&book);
    }

    /// Forgets the corrections of a counter whose state has been reset, except those of holds: a reset keeps open holds.
    pub fn forget(&self, counter: &CounterKey) {
        let mut book = self.book.lock();
        for mut record in book.remove(counter) {
            if let Some(hold) = record.hold {
                if let HoldChange::Settle(_) = hold {
                    record.delta = 0;
                }
                book.put(counter.clone(), record);
            } else {
                self.totals(record.cause).expired.fetch_add(1, Relaxed);
            }
        }
        self.note_len(&book);
    }

    /// Takes the corrections of a counter; if there are any, the counter is in flight until their call has ended.
    pub(super) fn take(&self, book: &mut Book, key: &CounterKey) -> Records {
        let now = Instant::now();
        let mut records = book.remove(key);
        records.retain(|record| !self.count_if_expired(record, now));
        if !records.is_empty() {
            book.in_flight.insert(key.clone());
        }
        records
    }

    pub(super) fn add(
        &self,
        book: &mut Book,
        key: CounterKey,
        record: PendingRecord,
        now: Instant,
        order: RecordOrder,
    ) {
        let charges = record.charges();
        let records = book.entries.get_mut(&key);
        let known = records.and_then(|records| merge(records, &record, order));
        match known {
            Some(Merge::Left) => {}
            Some(Merge::Cancelled) => book.tidy(&key),
            None if !self.make_room(book, charges, now) => {
                self.totals(record.cause).dropped.fetch_add(1, Relaxed);
                if charges && book.warned.is_none_or(|warned| now - warned >= WARN_PAUSE) {
                    book.warned = Some(now);
                    tracing::warn!(
                        records = book.records,
                        "more hits were admitted while the store was away than can be charged to it: some stay uncounted, so \
                         their limits may be passed; sluicegate_corrections_total{{result=\"dropped\"}} counts them"
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

    /// Makes room for one more record, if that is possible: drops expired ones, and for one that charges those that give back.
    fn make_room(&self, book: &mut Book, charges: bool, now: Instant) -> bool {
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
            let (giving, charging): (Vec<_>, Vec<_>) = records.into_iter().partition(|record| !record.charges());
            for record in giving {
                self.totals(record.cause).dropped.fetch_add(1, Relaxed);
            }
            for record in charging {
                book.put(key.clone(), record);
            }
        }
        book.records < self.max_records
    }

    /// Drops expired records.
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
            let before = entry.len();
            entry.retain(|record| !self.count_if_expired(record, now));
            *records -= before - entry.len();
            if entry.iter().all(PendingRecord::charges) {
                giving.remove(key);
            }
            !entry.is_empty()
        });
    }

    /// Counts a record as expired if its hits count no longer; returns whether that is so.
    fn count_if_expired(&self, record: &PendingRecord, now: Instant) -> bool {
        let is_over = record.until <= now;
        if is_over {
            self.totals(record.cause).expired.fetch_add(1, Relaxed);
        }
        is_over
    }

    pub(super) fn note_len(&self, book: &Book) {
        self.len.store(book.records + book.in_flight.len(), Relaxed);
    }
}

/// What became of the record that another one was merged with.
enum Merge {
    Left,
    /// The two cancel each other out.
    Cancelled,
}

/// Whether a record is newer than those of its counter that are in the book.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RecordOrder {
    /// It was recorded before them, and comes back from a call.
    First,
    Last,
}

/// Merges a record with the one of the same slice and cause, or of the same hold, if there is one.
fn merge(records: &mut Records, record: &PendingRecord, order: RecordOrder) -> Option<Merge> {
    if let Some(hold) = record.hold.filter(|hold| hold.is_idempotent()) {
        let same = |known: &&mut PendingRecord| known.hold.is_some_and(|known| known.id() == hold.id());
        let known = records.iter_mut().find(same)?;
        // What has been said last is done, and what is settled stays so.
        if order == RecordOrder::Last && !matches!(known.hold, Some(HoldChange::Settle(_))) {
            *known = record.clone();
        }
        return Some(Merge::Left);
    }
    // In a known slice only records of one cause merge: fallback counters mirror each cause at another time.
    let same = |known: &&mut PendingRecord| {
        (known.slice, known.hold) == (record.slice, record.hold)
            && (record.slice.is_none() || known.cause == record.cause)
    };
    let known = records.iter_mut().find(same)?;
    known.delta = known.delta.saturating_add(record.delta);
    (known.limit, known.until) = (record.limit, known.until.max(record.until));
    Some(if known.delta == 0 {
        Merge::Cancelled
    } else {
        Merge::Left
    })
}

impl Book {
    /// Counters that have corrections and are not in flight, each with its limit.
    pub(super) fn due(&self) -> impl Iterator<Item = (&CounterKey, Limit)> {
        let not_in_flight = self.entries.iter().filter(|(key, _)| !self.in_flight.contains(*key));
        not_in_flight.filter_map(|(key, entry)| Some((key, entry.first()?.limit)))
    }

    fn put(&mut self, key: CounterKey, record: PendingRecord) {
        self.records += 1;
        if !record.charges() {
            self.giving.insert(key.clone());
        }
        self.entries.entry(key).or_default().push(record);
    }

    fn remove(&mut self, key: &CounterKey) -> Records {
        let records = self.entries.remove(key).unwrap_or_default();
        if !records.is_empty() {
            self.records -= records.len();
            self.giving.remove(key);
        }
        records
    }

    /// Drops a counter's records without hits.
    fn tidy(&mut self, key: &CounterKey) {
        let records = self.remove(key);
        for record in records.into_iter().filter(|record| !record.is_nothing()) {
            self.put(key.clone(), record);
        }
    }
}
