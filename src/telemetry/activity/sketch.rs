//! A bounded sketch of one thread's decisions, by counter key.
//!
//! HeavyKeeper finds the heavy keys and never counts more than there was; one row of plain counters never counts less. The
//! truth lies between the two, which is the error that the API states.
//!
//! The request path pays for this with each decision, so a decision is written to one of two sketches, that of the passed
//! or that of the denied ones (all are their sum), and its key is hashed once: both sketches know it by that hash alone, and
//! only the keys that are kept have their names beside it.

use std::collections::HashMap;

use ahash::RandomState;
use heavykeeper::BucketedTopK;

use super::noted::Noted;

/// Keys that are kept of each kind.
pub(super) const KEYS: usize = 256;
/// Buckets of HeavyKeeper, and cells in each.
const BUCKETS: usize = 1024;
const CELLS: usize = 4;
/// Chance that a foreign hit takes one off a cell that counts 1; its n-th power for one that counts n.
const DECAY: f64 = 0.9;
/// Cells of the row that bounds counts from above. A power of two.
pub(super) const ROW: usize = 4096;

/// Both kinds of decisions.
pub(super) struct Sketch {
    pub passed: Counts,
    pub denied: Counts,
}

impl Sketch {
    pub fn new(hasher: &Hasher) -> Self {
        Self {
            passed: Counts::new(hasher),
            denied: Counts::new(hasher),
        }
    }

    /// Whether nothing has been counted.
    pub const fn is_empty(&self) -> bool {
        self.passed.total == 0 && self.denied.total == 0
    }

    /// What it takes at most, in bytes.
    #[cfg(test)]
    pub fn bytes(&self) -> usize {
        let of = |counts: &Counts| counts.keeper.mem_bytes(|_| 0) + counts.row.len() * 8 + KEYS * 256;
        of(&self.passed) + of(&self.denied)
    }

    pub fn add(&mut self, hasher: &Hasher, noted: Noted<'_>, denied: bool) {
        let counts = if denied { &mut self.denied } else { &mut self.passed };
        counts.add(hasher.hash(noted.key), noted);
    }
}

/// Keyed at random, so that nobody outside can aim keys at one cell, or at one hash. The same for all sketches of a process.
#[derive(Debug, Clone)]
pub(super) struct Hasher {
    names: RandomState,
    keeper: RandomState,
}

impl Default for Hasher {
    fn default() -> Self {
        Self {
            names: RandomState::new(),
            keeper: RandomState::new(),
        }
    }
}

impl Hasher {
    /// One that is the same in every run. With random keys one run in ten has two heavy keys in one cell of the row, whose
    /// stated error is then the other's count.
    #[cfg(test)]
    pub fn seeded(seed: u64) -> Self {
        let state = |n| RandomState::with_seeds(seed, n, seed, n);
        Self {
            names: state(2),
            keeper: state(1),
        }
    }

    /// What a key is known by.
    fn hash(&self, key: &str) -> u64 {
        self.names.hash_one(key)
    }

    /// The cell of the row that a key counts in.
    pub fn cell(&self, key: &str) -> usize {
        cell(self.hash(key))
    }
}

/// HeavyKeeper hashes the hash once more, so that the two know nothing of each other.
const fn cell(hash: u64) -> usize {
    // Far below the size of any index.
    (hash % ROW as u64) as usize
}

/// Decisions of one kind by key.
pub(super) struct Counts {
    keeper: BucketedTopK<u64>,
    /// Of the keys that are kept.
    names: HashMap<u64, Box<str>, RandomState>,
    /// Never less than the true count of any key that shares the cell.
    pub row: Box<[u64]>,
    pub total: u64,
}

impl Counts {
    fn new(hasher: &Hasher) -> Self {
        Self {
            keeper: BucketedTopK::with_hasher(KEYS, BUCKETS, CELLS, DECAY, hasher.keeper.clone()),
            names: HashMap::with_hasher(hasher.keeper.clone()),
            row: vec![0; ROW].into_boxed_slice(),
            total: 0,
        }
    }

    /// One at a time: the crate's work for a hit that finds no cell grows with its weight, and weights come from
    /// requests.
    fn add(&mut self, hash: u64, noted: Noted<'_>) {
        let (displaced, inserted) = self.keeper.add_with_evicted(&hash, 1);
        if let Some(displaced) = displaced {
            self.names.remove(&displaced);
        }
        if inserted {
            self.names.insert(hash, noted.name().into());
        }
        if let Some(count) = self.row.get_mut(cell(hash)) {
            *count += 1;
        }
        self.total += 1;
    }

    /// The kept keys and their counts.
    pub fn list(&self) -> impl Iterator<Item = (&str, u64)> {
        let nodes = self.keeper.list().into_iter();
        nodes.filter_map(|node| Some((&**self.names.get(&node.item)?, node.count)))
    }
}
