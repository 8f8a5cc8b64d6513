//! What this process holds of each key.

use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;

use parking_lot::Mutex;
use smallvec::SmallVec;

use crate::model::{Algorithm, Check, CounterKey, Enforcement, Grant, Hits, Limit, Outcome, Transaction};

use super::MAX_LIFE_US;
use super::demand::Demand;

/// Locks over the keys.
const SHARDS: usize = 64;
/// Keys that are looked at for one that nobody needs, when a new one wants its place.
const EVICTION_SAMPLE: usize = 8;
/// Give-backs that travel in one transaction.
const RETURNS_IN_A_CALL: usize = 64;
/// A lease takes at most this part of what remains, so that other replicas find something too.
const SHARE_OF_REMAINING: u64 = 8;

/// All keys that are known here.
pub(super) struct Leases {
    shards: Box<[Mutex<HashMap<CounterKey, Held>>]>,
    max_keys_per_shard: usize,
    hasher: RandomState,
}

/// One key.
#[derive(Debug)]
pub(super) struct Held {
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
    /// Unused hits that still have to go back, by slice.
    returns: SmallVec<[(u64, u64); 1]>,
    /// A call for a lease is under way.
    asking: bool,
    demand: Demand,
}

/// How a check of a leasable key goes on.
pub(super) enum Found {
    /// Admitted from the lease that was counted in `slice`.
    Admitted { outcome: Outcome, slice: u64 },
    /// To be asked; with give-backs to send before and hits to lease after.
    Ask {
        returns: SmallVec<[(u64, u64); 1]>,
        ahead: u64,
    },
}

impl Leases {
    pub(super) fn new(max_keys: usize) -> Self {
        Self {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            max_keys_per_shard: max_keys.div_ceil(SHARDS).max(1),
            hasher: RandomState::new(),
        }
    }

    fn shard(&self, key: &CounterKey) -> &Mutex<HashMap<CounterKey, Held>> {
        let index = usize::try_from(self.hasher.hash_one(key) % SHARDS as u64).unwrap_or(0);
        // Below SHARDS by the remainder.
        &self.shards[index]
    }

    pub(super) fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().len()).sum()
    }

    pub(super) fn reserved(&self) -> u64 {
        let of = |held: &Held| held.hits + held.returns.iter().map(|(_, hits)| hits).sum::<u64>();
        self.shards
            .iter()
            .map(|shard| shard.lock().values().map(of).sum::<u64>())
            .sum()
    }

    /// Takes hits from the key's lease, or says what to ask the store for.
    pub(super) fn take(&self, check: &Check, hits: u64, may_spend: bool, now: u64) -> Found {
        let mut keys = self.shard(&check.key).lock();
        if let Some(held) = keys.get_mut(&check.key) {
            held.limit = check.limit;
            return held.take(hits, may_spend, now);
        }
        if keys.len() < self.max_keys_per_shard || evict(&mut keys, now) {
            keys.insert(check.key.clone(), Held::new(check.limit, hits, now));
        }
        Found::Ask {
            returns: SmallVec::new(),
            ahead: 0,
        }
    }

    /// Puts hits back that [`take`](Self::take) had admitted, from the lease of `slice`, for a transaction that did not
    /// pass.
    pub(super) fn put_back(&self, key: &CounterKey, slice: u64, hits: u64) {
        if let Some(held) = self.shard(key).lock().get_mut(key) {
            if held.slice == slice {
                // Whether that lease has ended meanwhile is seen when it is next looked at.
                held.hits += hits;
            } else {
                // Another lease has come: these hits must not be admitted as if they were its own.
                held.returns.push((slice, hits));
            }
        }
    }

    /// Keeps what the store said of a key.
    pub(super) fn learn(&self, key: &CounterKey, outcome: &Outcome, sent: u64) {
        if let Some(held) = self.shard(key).lock().get_mut(key) {
            held.remaining = outcome.remaining;
            held.reset_at_us = sent.saturating_add(outcome.reset_after_us);
        }
    }

    /// A call for a lease is over; `grant` is what it brought.
    pub(super) fn granted(&self, key: &CounterKey, grant: Option<Grant>, sent: u64, now: u64) {
        if let Some(held) = self.shard(key).lock().get_mut(key) {
            held.asking = false;
            if let Some(grant) = grant {
                held.accept(grant, sent, now);
            }
        }
    }

    /// Takes out what has ended unused, as transactions that give it back; forgets keys that are out of use.
    pub(super) fn expired(&self, now: u64) -> Vec<Transaction> {
        let mut checks = Vec::new();
        for shard in &self.shards {
            shard.lock().retain(|key, held| {
                held.expire(now);
                checks.extend(
                    held.returns
                        .drain(..)
                        .map(|(slice, hits)| give_back(key, held.limit, slice, hits)),
                );
                !held.idle(now)
            });
        }
        let mut transactions = Vec::with_capacity(checks.len().div_ceil(RETURNS_IN_A_CALL));
        while !checks.is_empty() {
            let rest = checks.split_off(checks.len().min(RETURNS_IN_A_CALL));
            transactions.push(Transaction {
                checks: checks.into(),
                ..Transaction::default()
            });
            checks = rest;
        }
        transactions
    }
}

/// A check that returns unused hits; it never stops a transaction.
pub(super) fn give_back(key: &CounterKey, limit: Limit, slice: u64, hits: u64) -> Check {
    Check {
        key: key.clone(),
        limit,
        hits: Hits::Return { slice, hits },
        enforcement: Enforcement::Shadow,
    }
}

/// Makes room by forgetting a key that is out of use, if a small sample has one.
fn evict(keys: &mut HashMap<CounterKey, Held>, now: u64) -> bool {
    let idle = keys
        .iter_mut()
        .take(EVICTION_SAMPLE)
        .find(|(_, held)| held.idle(now))
        .map(|(key, _)| key.clone());
    idle.is_some_and(|key| keys.remove(&key).is_some())
}

impl Held {
    fn new(limit: Limit, hits: u64, now: u64) -> Self {
        Self {
            limit,
            hits: 0,
            slice: 0,
            end_us: 0,
            remaining: 0,
            reset_at_us: 0,
            returns: SmallVec::new(),
            asking: false,
            demand: Demand::new(hits, now),
        }
    }

    fn take(&mut self, hits: u64, may_spend: bool, now: u64) -> Found {
        self.demand.saw(hits, now);
        self.expire(now);
        if may_spend && self.hits >= hits {
            self.hits -= hits;
            return Found::Admitted {
                outcome: self.admitted(now),
                slice: self.slice,
            };
        }
        let ahead = if self.asking { 0 } else { self.ahead() };
        self.asking |= ahead > 0;
        Found::Ask {
            returns: std::mem::take(&mut self.returns),
            ahead,
        }
    }

    fn admitted(&self, now: u64) -> Outcome {
        Outcome::admitted(self.remaining + self.hits, self.reset_at_us.saturating_sub(now))
    }

    /// What is worth leasing: the demand of a lease's life, but a part of what remains at most.
    fn ahead(&self) -> u64 {
        self.demand
            .hits_in(life_us(&self.limit))
            .min(self.remaining / SHARE_OF_REMAINING)
    }

    fn accept(&mut self, grant: Grant, sent: u64, now: u64) {
        self.expire(now);
        // An older lease that is still held goes back: overwriting it would lose its hits until their slice ends.
        self.retire();
        self.hits = grant.hits;
        self.slice = grant.slice;
        self.end_us = sent.saturating_add(grant.left_us.min(MAX_LIFE_US));
        self.expire(now);
    }

    fn expire(&mut self, now: u64) {
        if now >= self.end_us {
            self.retire();
        }
    }

    fn retire(&mut self) {
        if self.hits > 0 {
            self.returns.push((self.slice, self.hits));
            self.hits = 0;
        }
    }

    fn idle(&self, now: u64) -> bool {
        self.hits == 0 && self.returns.is_empty() && !self.asking && self.demand.quiet(now)
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

/// Whether hits of this limit may be admitted later than they were counted without passing it (see the room's docs).
pub(super) const fn leasable(limit: &Limit) -> bool {
    matches!(
        limit.algorithm,
        Algorithm::SlidingWindow { .. } | Algorithm::FixedWindow
    )
}
