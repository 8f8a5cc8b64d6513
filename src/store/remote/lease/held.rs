//! What this process knows of each counter, and what it has leased of it.

use std::collections::HashMap;
use std::hash::BuildHasher;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use super::MAX_LIFE_US;
use super::demand::HitRate;
use crate::algorithms::limit::horizon_us;
use crate::algorithms::op::Grant;
use crate::model::{Algorithm, Check, CounterKey, Limit, Outcome};
use crate::store::correction::{Cause, Correction, signed};
use crate::store::remote::bounds::{Bound, BoundCounts};
use crate::store::remote::hasher::KeyedHasher;
use crate::store::remote::ledger::Ledger;

/// Locks over the keys.
const SHARDS: usize = 64;
/// LeaseShard that are looked at for one that nobody needs, when a new one wants its place.
const EVICTION_SAMPLE: usize = 8;
/// A lease takes at most this part of what remains, so that other replicas find something too.
const SHARE_OF_REMAINING: u64 = 8;

/// All counters that are known here. What a lease has left when it ends is recorded in the ledger.
pub struct Leases {
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
    /// What remained at the store when it answered last, without what is held here.
    remaining: u64,
    /// Local time at which the full quota is back, as the store saw it.
    reset_at_us: u64,
    /// A call for a lease is under way.
    asking: bool,
    /// Local time from which this is known. A lease that was asked for before belongs to a state that has been reset.
    since_us: u64,
    demand: HitRate,
}

/// How a check of a leasable key goes on.
pub(super) enum Taken {
    /// Admitted from the lease that was counted in `slice`.
    Admitted { outcome: Outcome, slice: u64 },
    /// To be asked, with so many hits to lease after.
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

    /// Counters that are known here.
    #[must_use]
    #[allow(clippy::len_without_is_empty, reason = "a figure for the metrics")]
    pub fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().len()).sum()
    }

    /// Hits that are leased at the moment and not used yet.
    #[must_use]
    pub fn hits(&self) -> u64 {
        let of = |shard: &Mutex<LeaseShard>| shard.lock().values().map(|held| held.hits).sum::<u64>();
        self.shards.iter().map(of).sum()
    }

    /// Forgets a counter and its lease, because its state has been reset. A lease that was granted after the reset and before
    /// this process heard of it goes, too: its hits stay counted until their slice ends.
    pub(in crate::store::remote) fn forget(&self, key: &CounterKey) {
        self.shard(key).lock().remove(key);
    }

    /// Takes hits from the key's lease, or says what to ask the store for.
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
            // Whether that lease has ended meanwhile is seen when it is next looked at.
            held.hits += hits;
            return;
        }
        // Another lease has come: these hits must not be admitted as if they were its own.
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

    /// Keeps what the store said of a key.
    pub(super) fn observe(&self, key: &CounterKey, outcome: &Outcome, sent: u64) {
        if let Some(held) = self.shard(key).lock().get_mut(key) {
            held.remaining = outcome.remaining;
            held.reset_at_us = sent.saturating_add(outcome.reset_after_us);
        }
    }

    /// A call for a lease is over; what it brought, and the slice that it is counted in.
    pub(super) fn granted(&self, key: &CounterKey, grant: Option<(Grant, u64)>, sent: u64, now: u64) {
        let mut keys = self.shard(key).lock();
        let Some(held) = keys.get_mut(key).filter(|held| sent >= held.since_us) else {
            return;
        };
        held.asking = false;
        let Some((grant, slice)) = grant else { return };
        let limit = held.limit;
        let ended = held.accept(grant, slice, sent, now);
        drop(keys);
        for ended in ended {
            self.give_back(key, &limit, ended);
        }
    }

    /// Ends what has ended unused; forgets counters that are out of use.
    pub(in crate::store::remote) fn sweep(&self, now: u64) {
        for shard in &self.shards {
            shard.lock().retain(|key, held| {
                let ended = held.expire(now);
                self.give_back(key, &held.limit, ended);
                !held.idle(now)
            });
        }
    }
}

/// What a lease that has ended had left.
struct Ended {
    slice: u64,
    hits: u64,
}

/// Makes room by forgetting a key that is out of use, if a small sample has one.
fn evict(keys: &mut LeaseShard, now: u64) -> bool {
    let idle = keys
        .iter_mut()
        .take(EVICTION_SAMPLE)
        .find(|(_, held)| held.idle(now))
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
            asking: false,
            since_us: now,
            demand: HitRate::new(hits, now),
        }
    }

    fn take(&mut self, hits: u64, may_spend: bool, now: u64, ended: &mut Option<Ended>) -> Taken {
        self.demand.saw(hits, now);
        *ended = self.expire(now);
        if may_spend && self.hits >= hits {
            self.hits -= hits;
            return Taken::Admitted {
                outcome: self.admitted(now),
                slice: self.slice,
            };
        }
        let ahead = if self.asking { 0 } else { self.ahead() };
        self.asking |= ahead > 0;
        Taken::Ask { ahead }
    }

    fn admitted(&self, now: u64) -> Outcome {
        Outcome {
            slice: self.slice,
            ..Outcome::admitted(self.remaining + self.hits, self.reset_at_us.saturating_sub(now))
        }
    }

    /// What is worth leasing: the demand of a lease's life, but a part of what remains at most.
    fn ahead(&self) -> u64 {
        self.demand
            .hits_in(life_us(&self.limit))
            .min(self.remaining / SHARE_OF_REMAINING)
    }

    fn accept(&mut self, grant: Grant, slice: u64, sent: u64, now: u64) -> [Option<Ended>; 2] {
        // An older lease that is still held goes back: overwriting it would lose its hits until their slice ends.
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

    fn idle(&self, now: u64) -> bool {
        self.hits == 0 && !self.asking && self.demand.quiet(now)
    }
}

/// How long a lease on this limit lives at most.
fn life_us(limit: &Limit) -> u64 {
    let slice = match limit.algorithm {
        Algorithm::SlidingWindow { precision } => limit.window_us.div_ceil(u64::from(precision.max(1))),
        _ => limit.window_us,
    };
    slice.min(MAX_LIFE_US)
}

/// Whether hits of this limit may be admitted later than they were counted without passing it (see the module's docs).
pub(super) const fn leasable(limit: &Limit) -> bool {
    matches!(
        limit.algorithm,
        Algorithm::SlidingWindow { .. } | Algorithm::FixedWindow | Algorithm::CalendarWindow(_)
    )
}
