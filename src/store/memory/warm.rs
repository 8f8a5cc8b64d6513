//! Bringing counters near the core before they are decided.

use std::hint::black_box;

use parking_lot::MutexGuard;
use smallvec::SmallVec;

use super::MemoryStore;
use super::hash::KeyHash;
use super::shard::Shard;
use crate::model::Transaction;

impl MemoryStore {
    /// Reads what deciding these transactions reads first, and changes nothing.
    ///
    /// Counters lie scattered over all the memory that they take. Decided one after the other, each waits for several reads
    /// that depend on one another; here the same reads of all of them are made side by side.
    pub(crate) fn warm<'t>(&self, transactions: impl Iterator<Item = &'t Transaction>) {
        let checks = transactions.flat_map(|transaction| &transaction.checks);
        let hashes: SmallVec<[KeyHash; 64]> = checks.map(|check| self.hasher.hash(&check.key)).collect();
        let mut shards: SmallVec<[usize; 64]> = hashes.iter().map(|hash| self.shard_index(*hash)).collect();
        shards.sort_unstable();
        shards.dedup();
        // All locks first: to take one waits for the reads before it.
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
