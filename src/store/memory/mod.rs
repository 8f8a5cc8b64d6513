//! The in-memory store: sharded, bounded in keys, swept in small steps, atomic over any number of counters.
//!
//! - A counter is found by 128 keyed bits ([`hash`]) in one of many tables ([`shard`]), each behind its own lock.
//! - A transaction of one check takes one lock; of several, all locks that it needs in ascending order
//!   ([`transaction`]).
//! - Nothing is allocated for a counter that exists.
//! - When a shard is full, it evicts the counter that is least likely to deny, and counts the eviction.

mod hash;
mod shard;
mod sweep;
mod transaction;
mod warm;

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::thread::available_parallelism;

use async_trait::async_trait;
use parking_lot::Mutex;
use smallvec::smallvec;

use self::hash::{KeyHash, KeyHasher};
use self::shard::{Shard, ticks_down, ticks_up};
pub use self::sweep::sweep_forever;
use super::reset::{Cursor, NamePage, Named, Reset};
use super::{Correction, Outcomes, Store, StoreError};
use crate::algorithms::op::Op;
use crate::algorithms::transaction::Answers;
use crate::model::{Clock, CounterKey, Hits, Limit, Transaction};

/// Keys that are kept unless the settings say otherwise.
pub const DEFAULT_MAX_KEYS: NonZeroUsize = match NonZeroUsize::new(1_000_000) {
    Some(keys) => keys,
    None => NonZeroUsize::MIN,
};
/// Least number of shards of a large store: a growing table moves its entries under its lock, so tables are kept small.
const MIN_SHARDS: usize = 128;
/// Shards for each core.
const SHARDS_PER_CORE: usize = 16;
/// Least number of keys for each shard: with fewer, the keys would fill the shards unevenly.
const MIN_KEYS_PER_SHARD: usize = 1024;

/// Counters in this process' memory.
pub struct MemoryStore {
    hasher: KeyHasher,
    clock: Arc<dyn Clock>,
    /// Time at which the store was made; expiry times are kept as ticks since then.
    start_us: u64,
    /// Their number is a power of two.
    shards: Box<[Padded]>,
}

/// Keeps two shards' locks off one cache line.
#[derive(Debug)]
#[repr(align(128))]
struct Padded(Mutex<Shard>);

/// The size of the store, and the counters that it has dropped.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MemoryStats {
    /// Counters at this moment.
    pub keys: u64,
    /// Counters dropped since the start because a shard was full.
    pub evicted: u64,
    /// Counters dropped since the start because their state equalled that of an unused one.
    pub expired: u64,
    /// Bytes of the tables (states that keep a part on the heap come on top).
    pub table_bytes: u64,
}

impl MemoryStore {
    /// A store for up to `max_keys` counters.
    #[must_use]
    pub fn new(max_keys: NonZeroUsize, clock: Arc<dyn Clock>) -> Self {
        Self::repeatable(max_keys, clock, rand::random())
    }

    /// A store that places its counters, and so drops them, in the same way whenever it has the same secret; for simulations
    /// only, since a client could aim keys at one bucket.
    #[must_use]
    pub fn repeatable(max_keys: NonZeroUsize, clock: Arc<dyn Clock>, secret: [u8; 16]) -> Self {
        let shards = shard_count(max_keys.get());
        // Rounded down: the sum never passes the bound.
        let keys_per_shard = max_keys.get() / shards;
        Self {
            hasher: KeyHasher::new(&secret),
            start_us: clock.now_us(),
            clock,
            shards: (0..shards)
                .map(|_| Padded(Mutex::new(Shard::new(keys_per_shard))))
                .collect(),
        }
    }

    /// The present statistics. Locks each shard in turn.
    #[must_use]
    pub fn stats(&self) -> MemoryStats {
        let mut stats = MemoryStats::default();
        for Padded(shard) in &self.shards {
            let shard = shard.lock();
            stats.keys += shard.len() as u64;
            stats.evicted += shard.evicted;
            stats.expired += shard.expired;
            stats.table_bytes += shard.table_bytes() as u64;
        }
        stats
    }

    /// Decides and counts on the caller's thread.
    #[must_use]
    pub fn check_now(&self, transaction: &Transaction) -> Outcomes {
        match transaction.checks.as_slice() {
            [check] => smallvec![self.check_one(&check.key, check).outcome],
            _ => self
                .check_all(transaction)
                .iter()
                .map(|answer| answer.outcome)
                .collect(),
        }
    }

    /// [`check_now`](Self::check_now) for all operations that a replica can make on a counter.
    #[must_use]
    pub fn check_ops<H: Copy + Into<Op>>(&self, transaction: &Transaction<H>) -> Answers {
        match transaction.checks.as_slice() {
            [check] => smallvec![self.check_one(&check.key, check)],
            _ => self.check_all(transaction),
        }
    }

    fn check_all<H: Copy + Into<Op>>(&self, transaction: &Transaction<H>) -> Answers {
        match transaction.checks.as_slice() {
            [first, others @ ..] if others.iter().all(|check| check.key == first.key) => {
                self.check_same(&first.key, &first.limit, transaction)
            }
            _ => self.check_several(transaction),
        }
    }

    /// Passes `buckets` buckets of every shard and drops what has expired, one short lock at a time.
    pub fn sweep(&self, buckets: usize) {
        let now = self.passed(self.clock.now_us());
        for Padded(shard) in &self.shards {
            shard.lock().sweep(buckets, now);
        }
    }

    fn shard(&self, hash: KeyHash) -> &Mutex<Shard> {
        &self.shards[self.shard_index(hash)].0
    }

    /// A time in ticks since the store's start, rounded up.
    fn ticks(&self, at_us: u64) -> u32 {
        ticks_up(at_us.saturating_sub(self.start_us))
    }

    /// A time in ticks since the store's start, rounded down.
    fn passed(&self, now_us: u64) -> u32 {
        ticks_down(now_us.saturating_sub(self.start_us))
    }

    fn shard_index(&self, hash: KeyHash) -> usize {
        // The count is a power of two, so the mask is exact and the index always in range.
        usize::try_from(hash.shard & (self.shards.len() as u64 - 1)).unwrap_or(0)
    }
}

/// The number of shards, a power of two: enough for the cores and for short locks, and few for few keys.
fn shard_count(max_keys: usize) -> usize {
    let cores = available_parallelism().map_or(1, NonZeroUsize::get);
    let wanted = (cores * SHARDS_PER_CORE).next_power_of_two().max(MIN_SHARDS);
    let worthwhile = (max_keys / MIN_KEYS_PER_SHARD).max(1);
    // The largest power of two that is not above it.
    wanted.min(1 << worthwhile.ilog2())
}

impl std::fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MemoryStore")
            .field("stats", &self.stats())
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl Store for MemoryStore {
    async fn check(&self, transaction: &Transaction) -> Result<Outcomes, StoreError> {
        Ok(self.check_now(transaction))
    }

    fn check_at_once(&self, key: &CounterKey, transaction: &Transaction<Hits, ()>) -> Option<Outcomes> {
        Some(match transaction.checks.as_slice() {
            [] => Outcomes::new(),
            [check] => smallvec![self.check_one(key, check).outcome],
            [first, ..] => {
                let answers = self.check_same(key, &first.limit, transaction);
                answers.iter().map(|answer| answer.outcome).collect()
            }
        })
    }

    fn correct(&self, correction: Correction) {
        self.apply_correction(&correction);
    }

    async fn reset(&self, counters: &[Named]) -> Reset {
        let used = counters.iter().map(|(key, limit)| self.reset_one(key, limit));
        Reset {
            hits: used.fold(0, u64::saturating_add),
            counters: counters.len(),
            ..Reset::default()
        }
    }

    /// `None`: the store keeps hashes of keys, not the keys.
    async fn names(&self, _: &Limit, _: &str, _: Cursor) -> Result<Option<NamePage>, StoreError> {
        Ok(None)
    }
}
