//! The ledger: the pending changes of all shared counters, whatever their cause.
//!
//! A correction is sent with the next call to its counter, in front of that call's checks. If no such call comes, the
//! flusher sends it ([`Remote::flush`](super::Remote)). While a correction is in flight, other calls to its counter wait: an
//! answer that was decided without it may admit too many.
//!
//! Records of one counter and slice merge, and those of one hold. A record whose hits count no longer is dropped and counted as
//! expired. If the fate of its call is unknown, a record that gives back is dropped, because a second one could give back the
//! same hits twice; one that charges is sent again, because that denies too many and never too few; and so is one that makes or
//! ends a hold, which the store does once. The number of records is bounded: at the bound a record that gives back is dropped,
//! which admits too few, and one that charges only if there is no other. Those of holds, of which there may be one for each
//! request of an outage, have a bound of their own, so that they drive out no charge: beyond it a settlement only charges.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::book::{Book, PendingRecord, RecordOrder, merge, merge_holds};
use super::bounds::{Bound, BoundCounts};
use crate::algorithms::limit::horizon_us;
use crate::model::CounterKey;
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
            counts_until: now
                + correction
                    .lasts
                    .min(Duration::from_micros(horizon_us(&correction.limit))),
            cause: correction.cause,
        };
        let mut book = self.book.lock();
        self.add(&mut book, correction.counter, record, now, RecordOrder::Last);
        self.note_len(&book);
    }

    /// Forgets the corrections of a counter whose state has been reset, except those of holds: a reset keeps open holds.
    pub fn forget(&self, counter: &CounterKey) {
        let mut book = self.book.lock();
        book.change(counter, |entry| {
            for record in entry.hits.drain(..) {
                self.totals(record.cause).expired.fetch_add(1, Relaxed);
            }
            let settlements = entry.holds.values_mut().filter(|record| record.settles());
            settlements.for_each(|record| record.delta = 0);
        });
        self.note_len(&book);
    }

    /// Takes up to `most` corrections of a counter; if there are any, the counter is in flight until their call has ended.
    pub(super) fn take(&self, book: &mut Book, key: &CounterKey, most: usize) -> Vec<PendingRecord> {
        let now = Instant::now();
        let mut taken = Vec::new();
        book.change(key, |entry| {
            while taken.len() < most
                && let Some(record) = entry.pop()
            {
                if !self.count_if_expired(&record, now) {
                    taken.push(record);
                }
            }
        });
        if !taken.is_empty() {
            book.in_flight.insert(key.clone());
        }
        taken
    }

    pub(super) fn add(
        &self,
        book: &mut Book,
        key: CounterKey,
        record: PendingRecord,
        now: Instant,
        order: RecordOrder,
    ) {
        if let Some(hold) = record.hold {
            return self.add_hold(book, key, hold, record, now, order);
        }
        if book.change(&key, |entry| merge(&mut entry.hits, &record)) {
            return;
        }
        if self.make_room(book, record.charges(), now) {
            book.put(key, record);
        } else {
            self.dropped(book, &record, now);
        }
    }

    fn add_hold(
        &self,
        book: &mut Book,
        key: CounterKey,
        hold: HoldChange,
        record: PendingRecord,
        now: Instant,
        order: RecordOrder,
    ) {
        if let Some(known) = book.of_hold(&key, hold.id()) {
            merge_holds(known, record, order);
        } else if !self.is_full(book, |book| book.holds, now) {
            book.put(key, record);
        } else if record.settles() {
            // Its hold then lasts as long as its ttl: that it ends is dropped, its cost is not.
            self.totals(record.cause).dropped.fetch_add(1, Relaxed);
            let charge = PendingRecord {
                hold: None,
                until: record.counts_until,
                ..record
            };
            if !charge.is_nothing() {
                self.add(book, key, charge, now, order);
            }
        } else {
            self.dropped(book, &record, now);
        }
    }

    /// A record found no room.
    fn dropped(&self, book: &mut Book, record: &PendingRecord, now: Instant) {
        self.totals(record.cause).dropped.fetch_add(1, Relaxed);
        if record.charges() && book.warned.is_none_or(|warned| now - warned >= WARN_PAUSE) {
            book.warned = Some(now);
            tracing::warn!(
                records = book.len(),
                "more hits were admitted while the store was away than can be charged to it: some stay uncounted, so \
                 their limits may be passed; sluicegate_corrections_total{{result=\"dropped\"}} counts them"
            );
        }
    }

    /// Makes room for one more record that is not of a hold, if that is possible: drops expired ones, and for one that charges
    /// those that give back.
    fn make_room(&self, book: &mut Book, charges: bool, now: Instant) -> bool {
        if !self.is_full(book, |book| book.hits, now) {
            return true;
        }
        while charges && book.hits >= self.max_records {
            let Some(key) = book.giving.pop_last() else { break };
            book.change(&key, |entry| {
                for record in entry.hits.iter().filter(|record| !record.charges()) {
                    self.totals(record.cause).dropped.fetch_add(1, Relaxed);
                }
                entry.hits.retain(|record| record.charges());
            });
        }
        book.hits < self.max_records
    }

    /// Whether there are as many records of a kind as may be; then drops expired ones, once in a while.
    fn is_full(&self, book: &mut Book, count: impl Fn(&Book) -> usize, now: Instant) -> bool {
        if count(book) < self.max_records {
            return false;
        }
        if book.swept.is_none_or(|swept| now - swept >= SWEEP_PAUSE) {
            book.swept = Some(now);
            self.expire(book, now);
        }
        let is_full = count(book) >= self.max_records;
        if is_full {
            self.reached.reached(Bound::Corrections);
        }
        is_full
    }

    /// Drops expired records.
    pub(super) fn sweep(&self) {
        let mut book = self.book.lock();
        self.expire(&mut book, Instant::now());
        self.note_len(&book);
    }

    fn expire(&self, book: &mut Book, now: Instant) {
        book.retain(|record| !self.count_if_expired(record, now));
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
        self.len.store(book.len() + book.in_flight.len(), Relaxed);
    }
}
