//! The buckets of one stream.

use std::sync::Arc;

use ahash::RandomState;
use bytes::Bytes;
use hashbrown::HashTable;

use super::bucket_id;
use super::buckets::SharedBucket;
use crate::quota::account::Account;

/// One bucket of a stream.
#[derive(Debug)]
pub struct BucketEntry {
    /// Its id, as it stood in the first report.
    pub id: Bytes,
    /// What applies to it.
    pub applies: Applies,
    /// What is leased to it.
    pub account: Account,
    /// Until when Envoy has been told that nothing or everything passes; 0 = it has a lease, or nothing yet.
    pub told_until_us: u64,
    /// The generation of rules that `applies` was found in.
    pub generation: u64,
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
}

impl BucketTable {
    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.index.is_empty()
    }

    /// The place of a bucket with these entries of its id.
    #[must_use]
    pub fn find(&self, entries: &[&[u8]]) -> Option<u32> {
        let hash = bucket_id::hash(entries, &self.hasher);
        let is_it = |place: &u32| {
            self.get(*place)
                .is_some_and(|entry| bucket_id::is_same(&entry.id, entries))
        };
        self.index.find(hash, is_it).copied()
    }

    /// Adds a bucket that is not there; its place. `None` where no more places can be numbered.
    pub fn insert(&mut self, entries: &[&[u8]], entry: BucketEntry) -> Option<u32> {
        let place = match self.free.pop() {
            Some(place) => place,
            None => {
                let place = u32::try_from(self.entries.len()).ok()?;
                self.entries.push(None);
                place
            }
        };
        *self.entries.get_mut(place as usize)? = Some(entry);
        let hash = bucket_id::hash(entries, &self.hasher);
        let (entries, hasher) = (&self.entries, &self.hasher);
        self.index
            .insert_unique(hash, place, |place| hash_of(entries, *place, hasher));
        Some(place)
    }

    /// Takes a bucket out.
    pub fn remove(&mut self, place: u32) -> Option<BucketEntry> {
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
