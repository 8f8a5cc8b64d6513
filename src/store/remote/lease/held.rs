//! The leases of this process, and the demand for each counter.

use std::collections::HashMap;
use std::hash::BuildHasher;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use super::MAX_LIFE_US;
use super::demand::HitRate;
use crate::algorithms::limit::horizon_us;
use crate::algorithms::op::Grant;
use crate::algorithms::sliding_window::Params;
use crate::model::{Algorithm, Check, CounterKey, Limit, Outcome};
use crate::store::correction::{Cause, Correction, signed};
use crate::store::remote::bounds::{Bound, BoundCounts};
use crate::store::remote::hasher::KeyedHasher;
use crate::store::remote::ledger::Ledger;

/// Shards of the keys, each with its own lock.
const SHARDS: usize = 64;
/// Keys of a full shard that are examined for an idle one, which a new key replaces.
const EVICTION_SAMPLE: usize = 8;
/// A lease takes at most this part of the remaining hits, so that other replicas get some, too.
const SHARE_OF_REMAINING: u64 = 8;

/// The counters of the lease stage. Unused hits of a lease that ends are recorded in the ledger.
pub(in crate::store::remote) struct Leases {
    shards: Box<[Mutex<LeaseShard>]>,
    max_keys_per_shard: usize,
    hasher: KeyedHasher,
    ledger: Arc<Ledger>,
    reached: Arc<BoundCounts>,
}

type LeaseShard = HashMap<CounterKey, Leased, KeyedHasher>;

/// One counter.
#[derive(Debug)]
struct Leased {
    limit: Limit,
    /// Hits left of the lease.
    hits: u64,
    /// The slice they are counted in.
    slice: u64,
    /// Local time from which they must not be admitted.
    end_us: u64,
    /// Hits that remained in the store when it answered last, without this lease.
    remaining: u64,
    /// Local time at which the full quota is back, by the store's last answer.
    reset_at_us: u64,
    /// A call for a lease is in flight.
    is_asking: bool,
    /// Local time at which this entry was made. A lease that was requested earlier belongs to a counter that has been reset.
    since_us: u64,
    demand: HitRate,
}

/// What a check gets from the lease stage.
pub(super) enum Taken {
    /// Admitted from the lease that was counted in `slice`.
    Admitted { outcome: Outcome, slice: u64 },
    /// Nothing: the store is to be asked, and for a lease of `ahead` hits after the check (0 = no lease).
    Ask { ahead: u64 },
}

impl Leases {
    pub(in crate::store::remote) fn new(
        max_keys: usize,
        hasher: KeyedHasher,
        ledger: Arc<Ledger>,
        reached: Arc<BoundCounts>,
    ) -> Self {
        let shards = (0..SHARDS).map(|_| Mutex::new(HashMap::with_hasher(hasher)));
        Self {
            shards: shards.collect(),
            max_keys_per_shard: max_keys.div_ceil(SHARDS).max(1),
            hasher,
            ledger,
            reached,
        }
    }

    fn shard(&self, key: &CounterKey) -> &Mutex<LeaseShard> {
        let index = usize::try_from(self.hasher.hash_one(key) % SHARDS as u64).unwrap_or(0);
        // Below SHARDS by the remainder.
        &self.shards[index]
    }

    /// The number of counters in this stage.
    pub(in crate::store::remote) fn counters(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().len()).sum()
    }

    /// Hits that are leased at the moment and not used yet.
    pub(in crate::store::remote) fn hits(&self) -> u64 {
        let of = |shard: &Mutex<LeaseShard>| shard.lock().values().map(|held| held.hits).sum::<u64>();
        self.shards.iter().map(of).sum()
    }

    /// Forgets a counter whose state has been reset, and its lease. A lease that was granted after the reset and before this
    /// process read of it is lost, too: its hits stay counted until their slice ends.
    pub(in crate::store::remote) fn forget(&self, key: &CounterKey) {
        self.shard(key).lock().remove(key);
    }

    /// Takes hits from the key's lease, or returns what to ask the store for.
    pub(super) fn take(&self, check: &Check, hits: u64, may_spend: bool, now: u64) -> Taken {
        let mut keys = self.shard(&check.key).lock();
        if let Some(held) = keys.get_mut(&check.key) {
            held.limit = check.limit;
            let mut ended = None;
            let found = held.take(hits, may_spend, now, &mut ended);
            self.give_back(&check.key, &check.limit, ended);
            return found;
        }
        if keys.len() < self.max_keys_per_shard || evict(&mut keys, now) {
            keys.insert(check.key.clone(), Leased::new(check.limit, hits, now));
        } else {
            self.reached.reached(Bound::LeaseKeys);
        }
        Taken::Ask { ahead: 0 }
    }

    /// Puts hits back that [`take`](Self::take) had admitted, from the lease of `slice`, for a transaction that did not
    /// pass.
    pub(super) fn put_back(&self, check: &Check, slice: u64, hits: u64) {
        if let Some(held) = self.shard(&check.key).lock().get_mut(&check.key)
            && held.slice == slice
        {
            // If that lease has ended meanwhile, the next access to it or the next sweep gives them back.
            held.hits += hits;
            return;
        }
        // The key has another lease now, with another end: these hits must not be admitted by it.
        self.give_back(&check.key, &check.limit, Some(Ended { slice, hits }));
    }

    fn give_back(&self, key: &CounterKey, limit: &Limit, ended: Option<Ended>) {
        if let Some(Ended { slice, hits }) = ended {
            self.ledger.record(Correction {
                counter: key.clone(),
                limit: *limit,
                slice: Some(slice),
                hold: None,
                delta: -signed(hits),
                lasts: Duration::from_micros(horizon_us(limit)),
                cause: Cause::Lease,
            });
        }
    }

    /// Updates an entry from the store's answer about its key.
    pub(super) fn observe(&self, key: &CounterKey, outcome: &Outcome, sent: u64) {
        if let Some(held) = self.shard(key).lock().get_mut(key) {
            held.remaining = outcome.remaining;
            held.reset_at_us = sent.saturating_add(outcome.reset_after_us);
        }
    }

    /// Records the end of a call for a lease: what it was granted, and the slice in which that is counted.
    pub(super) fn granted(&self, key: &CounterKey, grant: Option<(Grant, u64)>, sent: u64, now: u64) {
        let mut keys = self.shard(key).lock();
        let Some(held) = keys.get_mut(key).filter(|held| sent >= held.since_us) else {
            return;
        };
        held.is_asking = false;
        let Some((grant, slice)) = grant else { return };
        let limit = held.limit;
        let ended = held.accept(grant, slice, sent, now);
        drop(keys);
        for ended in ended {
            self.give_back(key, &limit, ended);
        }
    }

    /// Gives back unused hits of leases that have ended, and forgets idle counters.
    pub(in crate::store::remote) fn sweep(&self, now: u64) {
        for shard in &self.shards {
            shard.lock().retain(|key, held| {
                let ended = held.expire(now);
                self.give_back(key, &held.limit, ended);
                !held.is_idle(now)
            });
        }
    }
}

/// The unused hits of a lease that has ended.
struct Ended {
    slice: u64,
    hits: u64,
}

/// Forgets an idle key, if a small sample has one; returns whether it did.
fn evict(keys: &mut LeaseShard, now: u64) -> bool {
    let idle = keys
        .iter_mut()
        .take(EVICTION_SAMPLE)
        .find(|(_, held)| held.is_idle(now))
        .map(|(key, _)| key.clone());
    idle.is_some_and(|key| keys.remove(&key).is_some())
}

impl Leased {
    fn new(limit: Limit, hits: u64, now: u64) -> Self {
        Self {
            limit,
            hits: 0,
            slice: 0,
            end_us: 0,
            remaining: 0,
            reset_at_us: 0,
            is_asking: false,
            since_us: now,
            demand: HitRate::new(hits, now),
        }
    }

    fn take(&mut self, hits: u64, may_spend: bool, now: u64, ended: &mut Option<Ended>) -> Taken {
        self.demand.record(hits, now);
        *ended = self.expire(now);
        if may_spend && self.hits >= hits {
            self.hits -= hits;
            return Taken::Admitted {
                outcome: self.admitted(now),
                slice: self.slice,
            };
        }
        let ahead = if self.is_asking { 0 } else { self.ahead() };
        self.is_asking |= ahead > 0;
        Taken::Ask { ahead }
    }

    fn admitted(&self, now: u64) -> Outcome {
        Outcome {
            slice: self.slice,
            ..Outcome::admitted(self.remaining + self.hits, self.reset_at_us.saturating_sub(now))
        }
    }

    /// The hits to lease: the demand during a lease's life, and at most a part of the remaining hits.
    fn ahead(&self) -> u64 {
        self.demand
            .hits_in(life_us(&self.limit))
            .min(self.remaining / SHARE_OF_REMAINING)
    }

    fn accept(&mut self, grant: Grant, slice: u64, sent: u64, now: u64) -> [Option<Ended>; 2] {
        // The older lease's hits are given back: overwritten, they would stay counted until their slice ends.
        let older = self.retire();
        self.hits = grant.hits;
        self.slice = slice;
        self.end_us = sent.saturating_add(grant.left_us.min(MAX_LIFE_US));
        [older, self.expire(now)]
    }

    fn expire(&mut self, now: u64) -> Option<Ended> {
        if now >= self.end_us { self.retire() } else { None }
    }

    fn retire(&mut self) -> Option<Ended> {
        let hits = std::mem::take(&mut self.hits);
        (hits > 0).then_some(Ended {
            slice: self.slice,
            hits,
        })
    }

    fn is_idle(&self, now: u64) -> bool {
        self.hits == 0 && !self.is_asking && self.demand.is_quiet(now)
    }
}

/// Longest life of a lease on this limit, in microseconds.
fn life_us(limit: &Limit) -> u64 {
    let slice = match limit.algorithm {
        Algorithm::SlidingWindow { precision } => Params::new(limit, precision).slice_us,
        _ => limit.window_us,
    };
    slice.min(MAX_LIFE_US)
}
