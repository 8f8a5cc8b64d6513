//! A bounded sketch of one thread's decisions, by counter key.
//!
//! HeavyKeeper finds the heavy keys and never counts more than there was; one row of plain counters, addressed by an
//! independent hash, never counts less. The truth lies between the two, which is the error that the API states.

use ahash::RandomState;
use heavykeeper::BucketedTopK;

/// Keys that are kept of each kind.
pub(super) const KEYS: usize = 256;
/// Buckets of HeavyKeeper, and cells in each.
const BUCKETS: usize = 1024;
const CELLS: usize = 4;
/// Chance that a foreign hit takes one off a cell that counts 1; its n-th power for one that counts n.
const DECAY: f64 = 0.9;
/// Cells of the row that bounds counts from above. A power of two.
pub(super) const ROW: usize = 4096;

/// Both kinds of counts.
pub(super) struct Sketch {
    pub all: Counts,
    pub denied: Counts,
}

impl Sketch {
    pub fn new(hasher: &Hasher) -> Self {
        Self {
            all: Counts::new(hasher),
            denied: Counts::new(hasher),
        }
    }

    /// What it takes at most, in bytes.
    #[cfg(test)]
    pub fn bytes(&self) -> usize {
        let of = |counts: &Counts| counts.keeper.mem_bytes(String::capacity) + counts.row.len() * 8 + KEYS * 256;
        of(&self.all) + of(&self.denied)
    }

    pub fn add(&mut self, hasher: &Hasher, key: &str, denied: bool) {
        let cell = hasher.cell(key);
        self.all.add(key, cell);
        if denied {
            self.denied.add(key, cell);
        }
    }
}

/// Keyed at random, so that nobody outside can aim keys at one cell. The same for all sketches of a process.
#[derive(Debug, Clone)]
pub(super) struct Hasher {
    keeper: RandomState,
    row: RandomState,
}

impl Default for Hasher {
    fn default() -> Self {
        Self {
            keeper: RandomState::new(),
            row: RandomState::new(),
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
            keeper: state(1),
            row: state(2),
        }
    }

    /// The cell of the row that a key counts in.
    pub fn cell(&self, key: &str) -> usize {
        usize::try_from(self.row.hash_one(key) % ROW as u64).unwrap_or(0)
    }
}

/// Decisions by key.
pub(super) struct Counts {
    keeper: BucketedTopK<String>,
    /// Never less than the true count of any key that shares the cell.
    pub row: Box<[u64]>,
    pub total: u64,
}

impl Counts {
    fn new(hasher: &Hasher) -> Self {
        Self {
            keeper: BucketedTopK::with_hasher(KEYS, BUCKETS, CELLS, DECAY, hasher.keeper.clone()),
            row: vec![0; ROW].into_boxed_slice(),
            total: 0,
        }
    }

    /// One at a time: the crate's work for a hit that finds no cell grows with its weight, and weights come from
    /// requests.
    fn add(&mut self, key: &str, cell: usize) {
        self.keeper.add(key, 1);
        if let Some(count) = self.row.get_mut(cell) {
            *count += 1;
        }
        self.total += 1;
    }

    /// The kept keys, most hits first.
    pub fn list(&self) -> impl Iterator<Item = (String, u64)> {
        self.keeper.list().into_iter().map(|node| (node.item, node.count))
    }
}
