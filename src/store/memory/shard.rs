//! One shard: a bounded table of counters behind a lock, swept in steps that hold the lock only briefly.

use hashbrown::HashTable;

use super::hash::KeyHash;
use crate::algorithms::State;

/// Occupied buckets that are compared to evict one of them.
const SAMPLE: usize = 8;
/// Buckets that are swept for each new counter, so that a flood of new keys pays for its own cleaning.
const SWEEP_PER_INSERT: usize = 4;
/// Buckets that are swept in addition when the shard is full.
const SWEEP_WHEN_FULL: usize = 32;
/// A table with this many times more buckets than entries is shrunk.
const SHRINK_RATIO: usize = 8;
/// Tables up to this many buckets are never shrunk.
const SMALL_TABLE: usize = 256;
/// Ticks of [`StoredCounter::expires`]: 2^14 µs, rounded up; 32 bits of them last 2.2 years.
const TICK_SHIFT: u32 = 14;

/// A counter: its state, and its weight in evictions.
#[derive(Debug)]
pub(super) struct StoredCounter {
    hash: KeyHash,
    pub state: State,
    /// In ticks since the store's start; [`u32::MAX`] = later than ticks can express.
    expires: u32,
    /// Share of the quota in use when it was last written, in 1/65535.
    fill: u16,
}

/// The weight of a counter in evictions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Weight {
    /// Share of the quota in use, in 1/65535.
    pub fill: u16,
    /// Time from which the counter equals an unused one, in ticks.
    pub expires: u32,
}

impl StoredCounter {
    /// Updates the counter's weight.
    pub fn weigh(&mut self, weight: Weight) {
        self.fill = weight.fill;
        self.expires = weight.expires;
    }
}

/// Ticks in a time, rounded up: for the time at which a counter may be dropped.
pub(super) fn ticks_up(us: u64) -> u32 {
    u32::try_from(us.div_ceil(1 << TICK_SHIFT)).unwrap_or(u32::MAX)
}

/// Whole ticks in a time; never [`u32::MAX`], so that a counter with that expiry is not dropped.
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

    /// The bucket of a counter; valid until the next [`Self::insert`] or [`Self::sweep`].
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

    /// Removes a counter.
    pub fn remove(&mut self, hash: KeyHash) -> Option<State> {
        let found = self.table.find_entry(hash.table, |entry| entry.hash == hash).ok()?;
        Some(found.remove().0.state)
    }

    /// Adds a counter that is not in the shard; evicts a less important one when the shard is full.
    pub fn insert(&mut self, hash: KeyHash, state: State, weight: Weight, now: u32) {
        self.sweep(SWEEP_PER_INSERT, now);
        if self.table.len() >= self.max_keys {
            // The next buckets are those that have not been swept for longest.
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

    /// Drops expired counters in the next `buckets` buckets.
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

    /// Drops the least important of a few counters at a random position: an expired one, else the one that uses the least
    /// of its quota, among equals the one that expires first. A counter at its limit goes only if all of the sample are, so
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
