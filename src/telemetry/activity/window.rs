//! Counts over the last minute, ten minutes and hour: a ring of closed slices for each, coarser the longer it reaches
//! back, in bounded memory.

use std::collections::{HashMap, VecDeque};

use super::heaviest::among_heaviest;
use super::sketch::{Counts, KEYS, ROW};

/// How long a slice of the finest ring lasts, in microseconds.
pub(super) const SLICE_US: u64 = 10_000_000;
/// For each ring: slices of the ring before that make one of its own, and how many it keeps.
const RINGS: [(usize, usize); 3] = [(1, 6), (6, 10), (10, 6)];

/// Decisions in one stretch of time.
#[derive(Debug, Clone)]
pub(super) struct Summary {
    /// Never more than there were.
    pub keys: HashMap<String, u64>,
    /// Never less.
    pub row: Box<[u32]>,
    pub total: u64,
    /// How long it lasted.
    pub length_us: u64,
}

impl Default for Summary {
    fn default() -> Self {
        Self {
            keys: HashMap::new(),
            row: vec![0; ROW].into_boxed_slice(),
            total: 0,
            length_us: 0,
        }
    }
}

impl Summary {
    /// What it takes, in bytes.
    #[cfg(test)]
    pub fn bytes(&self) -> usize {
        let keys: usize = self.keys.keys().map(|key| key.capacity() + 48).sum();
        keys + self.row.len() * 4
    }

    /// Adds what a thread has counted.
    pub fn add_counts(&mut self, counts: &Counts) {
        for (key, count) in counts.list() {
            self.add_key(key, count);
        }
        for (sum, count) in self.row.iter_mut().zip(&counts.row) {
            *sum = sum.saturating_add(u32::try_from(*count).unwrap_or(u32::MAX));
        }
        self.total += counts.total;
    }

    pub fn add(&mut self, other: &Self) {
        for (key, count) in &other.keys {
            self.add_key(key, *count);
        }
        for (sum, count) in self.row.iter_mut().zip(&other.row) {
            *sum = sum.saturating_add(*count);
        }
        self.total += other.total;
        self.length_us += other.length_us;
    }

    fn add_key(&mut self, key: &str, count: u64) {
        match self.keys.get_mut(key) {
            Some(sum) => *sum += count,
            None => {
                self.keys.insert(key.to_owned(), count);
            }
        }
    }

    /// Forgets all but the heaviest keys.
    pub fn trim(&mut self) {
        if self.keys.len() > KEYS {
            let mut stays = among_heaviest(self.keys.values().copied().collect(), KEYS);
            self.keys.retain(|_, count| stays(*count));
        }
        self.keys.shrink_to_fit();
    }
}

/// The rings of one kind of counts.
#[derive(Debug, Default)]
pub(super) struct Windows {
    /// The slice that is open.
    pub open: Summary,
    rings: [VecDeque<Summary>; 3],
    /// Slices closed so far, for when a coarser one is full.
    closed: [usize; 3],
}

impl Windows {
    /// What the slices take, in bytes.
    #[cfg(test)]
    pub fn bytes(&self) -> usize {
        let slices = self.rings.iter().flatten().chain([&self.open]);
        slices.map(Summary::bytes).sum()
    }

    /// Ends the open slice.
    pub fn close(&mut self, length_us: u64) {
        let mut slice = std::mem::take(&mut self.open);
        slice.length_us = length_us;
        slice.trim();
        self.push(0, slice);
    }

    fn push(&mut self, ring: usize, slice: Summary) {
        let Some((_, keep)) = RINGS.get(ring) else { return };
        self.rings[ring].push_back(slice);
        self.closed[ring] += 1;
        if let Some((of, _)) = RINGS.get(ring + 1)
            && self.closed[ring].is_multiple_of(*of)
        {
            let mut coarse = Summary::default();
            for part in self.rings[ring].iter().rev().take(*of) {
                coarse.add(part);
            }
            coarse.trim();
            self.push(ring + 1, coarse);
        }
        if self.rings[ring].len() > *keep {
            self.rings[ring].pop_front();
        }
    }

    /// The slices that make up a window, newest first: the open one, what is not in a coarser slice yet, and coarser
    /// ones as far back as `depth` says (0 = a minute, 1 = ten minutes, 2 = an hour).
    pub fn slices(&self, depth: usize) -> Vec<&Summary> {
        let mut slices = vec![&self.open];
        for (ring, next) in (0..=depth.min(2)).map(|ring| (ring, RINGS.get(ring + 1))) {
            let take = match next {
                Some((of, _)) if ring < depth => self.closed[ring] % of,
                _ => usize::MAX,
            };
            slices.extend(self.rings[ring].iter().rev().take(take));
        }
        slices
    }
}
