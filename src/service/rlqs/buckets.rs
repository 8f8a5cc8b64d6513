//! Buckets as all streams of this process share them: the counter, and who asks how much of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use ahash::RandomState;
use hashbrown::HashTable;
use hashbrown::hash_table::Entry;
use parking_lot::Mutex;

use crate::algorithms::quota;
use crate::engine::QuotaCounter;
use crate::quota::account::Account;
use crate::quota::size::Situation;
use crate::telemetry::QuotaHits;

/// What the store has said of a counter is taken for true for this long, in microseconds.
const FRESH_US: u64 = 50_000;

/// One counter that streams lease from.
#[derive(Debug)]
pub struct SharedBucket {
    /// The counter.
    pub counter: QuotaCounter,
    /// Its rule's metrics.
    pub hits: Arc<QuotaHits>,
    streams: AtomicU64,
    /// Requests per 1,000 s, of all streams.
    demand: AtomicU64,
    /// Hits that were neither used nor leased when the store answered last.
    remaining: AtomicU64,
    /// When that was.
    answered_us: AtomicU64,
    /// What was used before this process began has been counted.
    past_counted: AtomicBool,
}

impl SharedBucket {
    fn new(counter: QuotaCounter, hits: Arc<QuotaHits>) -> Self {
        Self {
            remaining: AtomicU64::new(quota(&counter.limit)),
            counter,
            hits,
            answered_us: AtomicU64::new(0),
            streams: AtomicU64::new(0),
            demand: AtomicU64::new(0),
            past_counted: AtomicBool::new(false),
        }
    }

    /// What is known when a lease for `account` is sized; `streams` is how many may have the bucket at most.
    #[must_use]
    pub fn situation(&self, account: &Account, streams: u64, now_us: u64) -> Situation {
        let known = self.streams.load(Relaxed);
        let demand = account.demand();
        Situation {
            limit: self.counter.limit,
            refills: self.counter.refills,
            rate_now: account.rate(),
            remaining: self.remaining.load(Relaxed),
            is_fresh: now_us < self.answered_us.load(Relaxed) + FRESH_US,
            demand,
            total_demand: self.demand.load(Relaxed),
            streams: if demand.is_some() { known } else { known.max(streams) },
        }
    }

    /// A stream's demand has changed.
    pub fn demand_changed(&self, before: u64, after: u64) {
        if before == after {
            return;
        }
        // Only ever less than what the same stream has added.
        self.demand.fetch_add(after, Relaxed);
        self.demand.fetch_sub(before, Relaxed);
    }

    /// The store has said what is left.
    pub fn remains(&self, hits: u64, now_us: u64) {
        self.remaining.store(hits, Relaxed);
        self.answered_us.store(now_us, Relaxed);
    }

    /// Marks that what was used before this process began is counted; whether it was not yet.
    pub fn mark_past_counted(&self) -> bool {
        !self.past_counted.swap(true, Relaxed)
    }
}

/// All counters that streams lease from, found by their keys.
#[derive(Debug, Default)]
pub struct SharedBuckets {
    /// With their hashes: else each bucket would be read, and its key hashed, whenever the table grows.
    all: Mutex<HashTable<(u64, Arc<SharedBucket>)>>,
    hasher: RandomState,
}

impl SharedBuckets {
    /// The bucket of a counter, for one more stream.
    pub fn join(&self, counter: QuotaCounter, hits: impl FnOnce() -> Arc<QuotaHits>) -> Arc<SharedBucket> {
        let hash = self.hash(&counter);
        let mut all = self.all.lock();
        let is_it = |known: &(u64, Arc<SharedBucket>)| known.0 == hash && known.1.counter.key == counter.key;
        let bucket = match all.entry(hash, is_it, |known| known.0) {
            Entry::Occupied(known) if known.get().1.counter == counter => Arc::clone(&known.get().1),
            Entry::Occupied(mut known) => {
                known.get_mut().1 = Arc::new(SharedBucket::new(counter, hits()));
                Arc::clone(&known.get().1)
            }
            Entry::Vacant(place) => {
                let bucket = Arc::new(SharedBucket::new(counter, hits()));
                place.insert((hash, Arc::clone(&bucket)));
                bucket
            }
        };
        bucket.streams.fetch_add(1, Relaxed);
        bucket
    }

    /// A stream has it no more.
    pub fn leave(&self, bucket: &Arc<SharedBucket>, demand: u64) {
        bucket.demand.fetch_sub(demand, Relaxed);
        let mut all = self.all.lock();
        let is_last = bucket.streams.fetch_sub(1, Relaxed) == 1;
        let is_it = |known: &(u64, Arc<SharedBucket>)| Arc::ptr_eq(&known.1, bucket);
        if is_last && let Ok(known) = all.find_entry(self.hash(&bucket.counter), is_it) {
            known.remove();
        }
    }

    fn hash(&self, counter: &QuotaCounter) -> u64 {
        self.hasher.hash_one(counter.key.as_str())
    }
}
