//! Prefetch: brings counters into the core's caches before they are decided.

use std::hint::black_box;

use parking_lot::MutexGuard;
use smallvec::SmallVec;

use super::MemoryStore;
use super::hash::KeyHash;
use super::shard::Shard;
use crate::model::Transaction;

impl MemoryStore {
    /// Reads the states that these transactions are decided on, and changes nothing.
    ///
    /// Counters are scattered over memory. Decided one after the other, each waits for several dependent reads from memory;
    /// here the processor makes the reads of all of them in parallel.
    pub(crate) fn warm<'t>(&self, transactions: impl Iterator<Item = &'t Transaction>) {
        let checks = transactions.flat_map(|transaction| &transaction.checks);
        let hashes: SmallVec<[KeyHash; 64]> = checks.map(|check| self.hasher.hash(&check.key)).collect();
        let mut shards: SmallVec<[usize; 64]> = hashes.iter().map(|hash| self.shard_index(*hash)).collect();
        shards.sort_unstable();
        shards.dedup();
        // All locks first: taking a lock waits for the reads before it.
        let guards: SmallVec<[MutexGuard<'_, Shard>; 64]> =
            shards.iter().map(|&shard| self.shards[shard].0.lock()).collect();
        let find = |hash: &KeyHash| {
            let guard = guards.get(shards.binary_search(&self.shard_index(*hash)).ok()?)?;
            guard.bucket(guard.find_bucket(*hash)?)
        };
        let entries: SmallVec<[_; 64]> = hashes.iter().filter_map(find).collect();
        for entry in &entries {
            black_box(entry.state.touch());
        }
        for entry in &entries {
            black_box(entry.state.touch_more());
        }
    }
}
