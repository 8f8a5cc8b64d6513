//! Buckets as all streams of this process share them: the counter, and who asks how much of it.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use parking_lot::Mutex;

use crate::algorithms::quota;
use crate::engine::QuotaCounter;
use crate::model::CounterKey;
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
    pub hits: QuotaHits,
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
    fn new(counter: QuotaCounter, hits: QuotaHits) -> Self {
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

/// All counters that streams lease from, by key.
#[derive(Debug, Default)]
pub struct SharedBuckets(Mutex<HashMap<CounterKey, Arc<SharedBucket>>>);

impl SharedBuckets {
    /// The bucket of a counter, for one more stream.
    pub fn join(&self, counter: QuotaCounter, hits: impl FnOnce() -> QuotaHits) -> Arc<SharedBucket> {
        let mut all = self.0.lock();
        let known = all.get(&counter.key).filter(|known| known.counter == counter);
        let bucket = match known {
            Some(known) => Arc::clone(known),
            None => {
                let key = counter.key.clone();
                let bucket = Arc::new(SharedBucket::new(counter, hits()));
                all.insert(key, Arc::clone(&bucket));
                bucket
            }
        };
        bucket.streams.fetch_add(1, Relaxed);
        bucket
    }

    /// A stream has it no more.
    pub fn leave(&self, bucket: &Arc<SharedBucket>, demand: u64) {
        bucket.demand.fetch_sub(demand, Relaxed);
        let mut all = self.0.lock();
        let is_last = bucket.streams.fetch_sub(1, Relaxed) == 1;
        let key = &bucket.counter.key;
        if is_last && all.get(key).is_some_and(|known| Arc::ptr_eq(known, bucket)) {
            all.remove(key);
        }
    }
}
