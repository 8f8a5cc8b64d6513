//! The buckets of one stream.

use std::collections::BTreeSet;
use std::sync::Arc;

use ahash::RandomState;
use hashbrown::HashTable;

use super::bucket_id;
use super::buckets::SharedBucket;
use crate::quota::account::Account;

/// One bucket of a stream.
#[derive(Debug)]
pub struct BucketEntry {
    /// Its id, as it stood in the first report.
    pub id: Box<[u8]>,
    /// What applies to it.
    pub applies: Applies,
    /// What is leased to it.
    pub account: Account,
    /// Until when Envoy has been told that nothing or everything passes; 0 = it has a lease, or nothing yet.
    pub told_until_us: u64,
    /// Its time in [`BucketTable::due`]; 0 = it is not in there.
    due_us: u64,
}

impl BucketEntry {
    /// A bucket of which Envoy has been told nothing.
    #[must_use]
    pub fn new(id: &[u8], applies: Applies, account: Account) -> Self {
        Self {
            id: id.into(),
            applies,
            account,
            told_until_us: 0,
            due_us: 0,
        }
    }
}

/// What applies to a bucket.
#[derive(Debug, Clone)]
pub enum Applies {
    /// Everything passes.
    Unlimited,
    /// Nothing passes: its rule cannot be leased.
    NotLeasable,
    /// It is leased.
    Counted(Arc<SharedBucket>),
}

/// The buckets of one stream, found by their ids.
#[derive(Debug, Default)]
pub struct BucketTable {
    entries: Vec<Option<BucketEntry>>,
    free: Vec<u32>,
    /// Places in `entries`, by what hostile values cannot make collide.
    index: HashTable<u32>,
    hasher: RandomState,
    /// When to come back to which place without a report; to each once.
    due: BTreeSet<(u64, u32)>,
}

impl BucketTable {
    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.index.is_empty()
    }

    /// A number by which a bucket with these entries of its id is found.
    #[must_use]
    pub fn hash(&self, entries: &[&[u8]]) -> u64 {
        bucket_id::hash(entries, &self.hasher)
    }

    /// The place of a bucket with these entries, which have this [`hash`](Self::hash).
    #[must_use]
    pub fn find(&self, hash: u64, entries: &[&[u8]]) -> Option<u32> {
        let is_it = |place: &u32| {
            self.get(*place)
                .is_some_and(|entry| bucket_id::is_same(&entry.id, entries))
        };
        self.index.find(hash, is_it).copied()
    }

    /// Makes room for the buckets of a whole report: they are then not moved while they are added, nor their ids hashed anew.
    pub fn reserve(&mut self, buckets: usize) {
        let (entries, hasher) = (&self.entries, &self.hasher);
        self.index.reserve(buckets, |place| hash_of(entries, *place, hasher));
        self.entries.reserve_exact(buckets.saturating_sub(self.free.len()));
    }

    /// Adds a bucket that is not there, and whose id has this [`hash`](Self::hash); its place. `None` where no more places can
    /// be numbered.
    pub fn insert(&mut self, hash: u64, entry: BucketEntry) -> Option<u32> {
        let place = match self.free.pop() {
            Some(place) => place,
            None => {
                let place = u32::try_from(self.entries.len()).ok()?;
                if self.entries.len() == self.entries.capacity() {
                    // By an eighth, not to twice as many: there are millions of them, and each is large.
                    self.entries.reserve_exact(self.entries.len() / 8 + 4);
                }
                self.entries.push(None);
                place
            }
        };
        *self.entries.get_mut(place as usize)? = Some(entry);
        let (entries, hasher) = (&self.entries, &self.hasher);
        self.index
            .insert_unique(hash, place, |place| hash_of(entries, *place, hasher));
        Some(place)
    }

    /// Takes a bucket out.
    pub fn remove(&mut self, place: u32) -> Option<BucketEntry> {
        self.schedule(place, None);
        let hash = hash_of(&self.entries, place, &self.hasher);
        if let Ok(found) = self.index.find_entry(hash, |known| *known == place) {
            found.remove();
            self.free.push(place);
        }
        self.entries.get_mut(place as usize)?.take()
    }

    /// The bucket at a place.
    #[must_use]
    pub fn get(&self, place: u32) -> Option<&BucketEntry> {
        self.entries.get(place as usize)?.as_ref()
    }

    /// The same, to be changed.
    pub fn get_mut(&mut self, place: u32) -> Option<&mut BucketEntry> {
        self.entries.get_mut(place as usize)?.as_mut()
    }

    /// All of them with their places.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (u32, &mut BucketEntry)> {
        let entries = (0..).zip(&mut self.entries);
        entries.filter_map(|(place, entry)| Some((place, entry.as_mut()?)))
    }

    /// Comes back to a bucket at this time, whatever was scheduled before; `None` = not before a report.
    pub fn schedule(&mut self, place: u32, due_us: Option<u64>) {
        let due_us = due_us.unwrap_or(0);
        let Some(entry) = self.entries.get_mut(place as usize).and_then(Option::as_mut) else {
            return;
        };
        let before_us = std::mem::replace(&mut entry.due_us, due_us);
        if before_us == due_us {
            return;
        }
        if before_us > 0 {
            self.due.remove(&(before_us, place));
        }
        if due_us > 0 {
            self.due.insert((due_us, place));
        }
    }

    /// When the first bucket is due.
    #[must_use]
    pub fn first_due_us(&self) -> Option<u64> {
        self.due.first().map(|(at_us, _)| *at_us)
    }

    /// A bucket that is due by now; it is scheduled no more.
    pub fn take_due(&mut self, now_us: u64) -> Option<u32> {
        let (_, place) = self.due.first().copied().filter(|(at_us, _)| *at_us <= now_us)?;
        self.schedule(place, None);
        Some(place)
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &BucketEntry> {
        self.entries.iter().flatten()
    }
}

fn hash_of(entries: &[Option<BucketEntry>], place: u32, hasher: &RandomState) -> u64 {
    let id = entries
        .get(place as usize)
        .and_then(Option::as_ref)
        .map(|entry| &entry.id);
    let split = id.and_then(|id| bucket_id::split(id)).unwrap_or_default();
    bucket_id::hash(&split, hasher)
}
