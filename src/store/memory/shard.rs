//! One shard: a table of counters behind a lock, bounded, swept by a hand that never holds the lock for long.

use hashbrown::HashTable;

use super::hash::KeyHash;
use crate::algorithms::State;

/// Occupied buckets that are compared when one must go.
const SAMPLE: usize = 8;
/// Buckets that the hand passes for each new counter, so that a flood pays for its own cleaning.
const SWEEP_PER_INSERT: usize = 4;
/// Buckets that the hand passes besides when there is no room.
const SWEEP_WHEN_FULL: usize = 32;
/// A table this many times too large for what is left in it gives memory back.
const SHRINK_RATIO: usize = 8;
/// Tables up to this many buckets are never shrunk.
const SMALL_TABLE: usize = 256;
/// Ticks of [`StoredCounter::expires`]: 2^14 µs, rounded up; 32 bits of them last 2.2 years.
const TICK_SHIFT: u32 = 14;

/// A counter: its state and what eviction must know of it.
#[derive(Debug)]
pub(super) struct StoredCounter {
    hash: KeyHash,
    pub state: State,
    /// In ticks since the store's start; [`u32::MAX`] = not in sight.
    expires: u32,
    /// Share of the quota in use when it was last written, in 1/65535.
    fill: u16,
}

/// What a new or changed counter is worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Weight {
    /// Share of the quota in use, in 1/65535.
    pub fill: u16,
    /// From when on the counter equals an empty one, in ticks.
    pub expires: u32,
}

impl StoredCounter {
    /// Notes what the counter is worth now.
    pub fn weigh(&mut self, weight: Weight) {
        self.fill = weight.fill;
        self.expires = weight.expires;
    }
}

/// Ticks in a time, rounded up: when a counter may go.
pub(super) fn ticks_up(us: u64) -> u32 {
    u32::try_from(us.div_ceil(1 << TICK_SHIFT)).unwrap_or(u32::MAX)
}

/// Ticks that have fully passed in a time; never [`u32::MAX`], which stands for ever.
pub(super) fn ticks_down(us: u64) -> u32 {
    u32::try_from(us >> TICK_SHIFT).map_or(u32::MAX - 1, |ticks| ticks.min(u32::MAX - 1))
}

/// Counters of one shard.
#[derive(Debug)]
pub(super) struct Shard {
    table: HashTable<StoredCounter>,
    max_keys: usize,
    /// The bucket that the sweep looks at next.
    hand: usize,
    pub evicted: u64,
    pub expired: u64,
}

impl Shard {
    pub fn new(max_keys: usize) -> Self {
        Self {
            table: HashTable::new(),
            max_keys: max_keys.max(1),
            hand: 0,
            evicted: 0,
            expired: 0,
        }
    }

    pub fn len(&self) -> usize {
        self.table.len()
    }

    /// Bytes that the table takes, without what states keep on the heap.
    pub fn table_bytes(&self) -> usize {
        self.table.allocation_size()
    }

    /// Where a counter is. Holds until the next [`Self::insert`] or [`Self::sweep`].
    pub fn find_bucket(&self, hash: KeyHash) -> Option<usize> {
        self.table.find_bucket_index(hash.table, |entry| entry.hash == hash)
    }

    pub fn bucket(&self, bucket: usize) -> Option<&StoredCounter> {
        self.table.get_bucket(bucket)
    }

    pub fn bucket_mut(&mut self, bucket: usize) -> Option<&mut StoredCounter> {
        self.table.get_bucket_mut(bucket)
    }

    pub fn find_mut(&mut self, hash: KeyHash) -> Option<&mut StoredCounter> {
        self.table.find_mut(hash.table, |entry| entry.hash == hash)
    }

    /// Takes a counter out.
    pub fn remove(&mut self, hash: KeyHash) -> Option<State> {
        let found = self.table.find_entry(hash.table, |entry| entry.hash == hash).ok()?;
        Some(found.remove().0.state)
    }

    /// Adds a counter that is known to be absent, at the cost of a less important one when the shard is full.
    pub fn insert(&mut self, hash: KeyHash, state: State, weight: Weight, now: u32) {
        self.sweep(SWEEP_PER_INSERT, now);
        if self.table.len() >= self.max_keys {
            // Ahead of the hand is what has not been swept for longest.
            self.sweep(SWEEP_WHEN_FULL, now);
        }
        if self.table.len() >= self.max_keys {
            self.evict_one(hash.shard, now);
        }
        let entry = StoredCounter {
            hash,
            state,
            expires: weight.expires,
            fill: weight.fill,
        };
        self.table.insert_unique(hash.table, entry, |entry| entry.hash.table);
    }

    /// Passes up to `buckets` buckets and drops what has expired. Bounded work: call it again for the next ones.
    pub fn sweep(&mut self, buckets: usize, now: u32) {
        for _ in 0..buckets.min(self.table.num_buckets()) {
            if self.hand >= self.table.num_buckets() {
                self.hand = 0;
                self.shrink();
            }
            if let Ok(slot) = self.table.get_bucket_entry(self.hand)
                && slot.get().expires <= now
            {
                slot.remove();
                self.expired += 1;
            }
            self.hand += 1;
        }
    }

    /// Gives memory back after a flood has passed.
    fn shrink(&mut self) {
        let buckets = self.table.num_buckets();
        if buckets > SMALL_TABLE && self.table.len() < buckets / SHRINK_RATIO {
            let keep = self.table.len() * 2;
            self.table.shrink_to(keep, |entry| entry.hash.table);
        }
    }

    /// Drops the least important of a few counters from a random place: what has expired, else what uses the least
    /// of its quota, among equals what expires first. A counter at its limit goes only if all of the sample are, so
    /// a flood of new keys cannot reset the counters that stop its sender.
    fn evict_one(&mut self, random: u64, now: u32) {
        let buckets = self.table.num_buckets();
        let start = usize::try_from(random >> 16).unwrap_or(0) % buckets.max(1);
        let victim = (0..buckets)
            .map(|step| (start + step) % buckets)
            .filter_map(|index| Some((index, self.table.get_bucket(index)?)))
            .take(SAMPLE)
            .min_by_key(|(_, entry)| (entry.expires > now, entry.fill, entry.expires))
            .map(|(index, _)| index);
        if let Some(slot) = victim.and_then(|index| self.table.get_bucket_entry(index).ok()) {
            let counter = if slot.get().expires <= now {
                &mut self.expired
            } else {
                &mut self.evicted
            };
            *counter += 1;
            slot.remove();
        }
    }
}
