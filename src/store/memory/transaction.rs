//! Deciding a transaction under the locks of the shards that it needs.

use parking_lot::MutexGuard;
use smallvec::SmallVec;

use super::MemoryStore;
use super::hash::KeyHash;
use super::shard::{Shard, Weight};
use crate::algorithms::op::{Answer, Op};
use crate::algorithms::transaction::{Answers, States, run, run_one};
use crate::algorithms::{State, debit, expires_us, fixed_window, held, quota, refund, remaining, unused};
use crate::model::{Check, CounterKey, Enforcement, HoldId, Limit, Transaction};
use crate::store::Correction;
use crate::store::change::Change;

impl MemoryStore {
    /// The common case: one lock, one look-up, no allocation for a counter that exists.
    pub(super) fn check_one<H: Copy + Into<Op>, K>(&self, key: &CounterKey, check: &Check<H, K>) -> Answer {
        self.step(key, &check.limit, |state, now_us| {
            let (answer, changed) = run_one(check, state, now_us);
            (answer, changed.then_some(answer.outcome.remaining))
        })
    }

    /// Makes the change to a counter that the shared store has made to its own, and raises the counter to at least `used` hits.
    pub(crate) fn mirror(&self, key: &CounterKey, limit: &Limit, change: Change, used: u64) {
        self.step(key, limit, |state, now_us| {
            match change {
                Change::Counted(hits) => debit(limit, state, now_us, hits),
                Change::Given(hits) => refund(limit, state, now_us, hits),
                Change::Held(..) | Change::Settled(..) | Change::Released(_) => {
                    mirror_hold(limit, state, now_us, change);
                }
                // Fallback counters keep no holds without an id: other checks' means would not be mirrored.
                Change::HeldMean(_) | Change::None => {}
            }
            let left = unused(limit, state, now_us);
            let missing = used.saturating_sub(quota(limit).saturating_sub(left));
            if missing > 0 {
                debit(limit, state, now_us, missing);
            }
            let changed = missing > 0 || !matches!(change, Change::HeldMean(_) | Change::None);
            ((), changed.then(|| left.saturating_sub(missing)))
        });
    }

    /// Applies a correction.
    pub(super) fn apply_correction(&self, correction: &Correction) {
        let check = Check {
            key: (),
            limit: correction.limit,
            hits: Correction::op(correction.slice, correction.hold, correction.delta),
            enforcement: Enforcement::Shadow,
        };
        let _ = self.check_one(&correction.counter, &check);
    }

    /// Hits that a counter has in use, up to its quota.
    pub(crate) fn used(&self, key: &CounterKey, limit: &Limit) -> u64 {
        let left = self.step(key, limit, |state, now_us| (unused(limit, state, now_us), None));
        quota(limit).saturating_sub(left)
    }

    /// Whether a counter has this hold, unsettled.
    pub(crate) fn has_open_hold(&self, key: &CounterKey, limit: &Limit, id: HoldId) -> bool {
        self.step(key, limit, |state, now_us| match state {
            State::Held(state) => (held::is_open(limit, state, now_us, id), None),
            _ => (false, None),
        })
    }

    /// Resets a counter to its unused state, except for open holds; returns the hits that it had in use, up to its quota.
    pub(super) fn reset_one(&self, key: &CounterKey, limit: &Limit) -> u64 {
        let used = self.used(key, limit);
        let check = Check {
            key: (),
            limit: *limit,
            hits: Op::Reset,
            enforcement: Enforcement::Shadow,
        };
        let _ = self.check_one(key, &check);
        used
    }

    /// Removes a counter; one with holds only forgets what is used.
    pub(crate) fn forget(&self, key: &CounterKey) {
        let hash = self.hasher.hash(key);
        let mut shard = self.shard(hash).lock();
        match shard.find_mut(hash).map(|entry| &mut entry.state) {
            Some(state @ State::Held(_)) => state.reset(),
            _ => drop(shard.remove(hash)),
        }
    }

    /// Runs `step` on the state of a counter; `step` also returns the hits that are left, if it has changed the state.
    fn step<T>(&self, key: &CounterKey, limit: &Limit, step: impl FnOnce(&mut State, u64) -> (T, Option<u64>)) -> T {
        let hash = self.hasher.hash(key);
        let mut shard = self.shard(hash).lock();
        // The clock is read under the lock, so that time does not go back from one check of a counter to the next.
        let now_us = self.clock.now_us();
        if let Some(entry) = shard.find_mut(hash) {
            let (result, left) = step(&mut entry.state, now_us);
            if let Some(left) = left {
                let weight = self.weight(limit, &entry.state, left);
                entry.weigh(weight);
            }
            return result;
        }
        let mut state = State::new(limit);
        let (result, left) = step(&mut state, now_us);
        if let Some(left) = left {
            self.add(&mut shard, hash, state, limit, left, now_us);
        }
        result
    }

    /// Decides checks of one counter: a lease of RLQS is settled and made anew. One lock and one look-up, as for one check.
    pub(super) fn check_same<H: Copy + Into<Op>, K>(
        &self,
        key: &CounterKey,
        limit: &Limit,
        transaction: &Transaction<H, K>,
    ) -> Answers {
        self.step(key, limit, |state, now_us| {
            let mut states = OneState { state, written: false };
            let answers = run(transaction, &mut states, now_us);
            let left = states.written.then(|| remaining(limit, states.state, now_us));
            (answers, left)
        })
    }

    /// Decides any number of checks at once, with the locks of all their shards, taken in ascending order.
    pub(super) fn check_several<H: Copy + Into<Op>>(&self, transaction: &Transaction<H>) -> Answers {
        let hashes: SmallVec<[KeyHash; 8]> = transaction
            .checks
            .iter()
            .map(|check| self.hasher.hash(&check.key))
            .collect();
        let mut shards: SmallVec<[usize; 8]> = hashes.iter().map(|hash| self.shard_index(*hash)).collect();
        shards.sort_unstable();
        shards.dedup();
        let guards = shards.iter().map(|&shard| self.shards[shard].0.lock()).collect();
        let now_us = self.clock.now_us();
        let mut held = LockedStates::new(transaction, &hashes, guards, |hash| {
            shards.binary_search(&self.shard_index(hash)).unwrap_or(0)
        });
        let answers = run(transaction, &mut held, now_us);
        self.save(held, transaction, now_us);
        answers
    }

    /// Updates the weights of counters that changed, and adds new counters.
    fn save<H>(&self, mut held: LockedStates<'_>, transaction: &Transaction<H>, now_us: u64) {
        // Existing counters first, since adding moves buckets, and may evict.
        let mut new: SmallVec<[(usize, State); 4]> = SmallVec::new();
        for (index, one) in held.touched.iter_mut().enumerate().filter(|(_, one)| one.written) {
            match std::mem::replace(&mut one.place, StatePlace::Elsewhere(index)) {
                StatePlace::Bucket(bucket) => {
                    if let Some(entry) = held.guards[one.guard].bucket_mut(bucket) {
                        let limit = &transaction.checks[index].limit;
                        let weight = self.weight(limit, &entry.state, remaining(limit, &entry.state, now_us));
                        entry.weigh(weight);
                    }
                }
                StatePlace::New(state) => new.push((index, state)),
                StatePlace::Elsewhere(_) => {}
            }
        }
        for (index, state) in new {
            let one = &held.touched[index];
            let limit = &transaction.checks[index].limit;
            let left = remaining(limit, &state, now_us);
            self.add(&mut held.guards[one.guard], one.hash, state, limit, left, now_us);
        }
    }

    /// Adds a counter, unless its state equals that of an unused one.
    fn add(&self, shard: &mut Shard, hash: KeyHash, state: State, limit: &Limit, left: u64, now_us: u64) {
        if expires_us(limit, &state) > now_us {
            let weight = self.weight(limit, &state, left);
            shard.insert(hash, state, weight, self.passed(now_us));
        }
    }

    fn weight(&self, limit: &Limit, state: &State, left: u64) -> Weight {
        Weight {
            fill: fill(quota(limit), left),
            expires: self.ticks(expires_us(limit, state)),
        }
    }
}

fn mirror_hold(limit: &Limit, state: &mut State, now_us: u64, change: Change) {
    let State::Held(state) = state else { return };
    match change {
        Change::Held(id, hits) => held::hold(limit, state, now_us, id, hits, true),
        Change::Settled(id, hits) => {
            held::settle(limit, state, now_us, id, hits);
        }
        Change::Released(id) => held::release(limit, state, now_us, id),
        Change::Counted(_) | Change::Given(_) | Change::HeldMean(_) | Change::None => {}
    }
}

/// The share of the quota in use, in 1/65535.
fn fill(quota: u64, left: u64) -> u16 {
    let used = u128::from(quota.saturating_sub(left)) * u128::from(u16::MAX);
    u16::try_from(used / u128::from(quota.max(1))).unwrap_or(u16::MAX)
}

/// The state of a counter that all checks have.
struct OneState<'a> {
    state: &'a mut State,
    written: bool,
}

impl States for OneState<'_> {
    fn read(&self, _: usize) -> &State {
        self.state
    }

    fn write(&mut self, _: usize) -> &mut State {
        self.written = true;
        self.state
    }

    fn first(&self, _: usize) -> usize {
        0
    }
}

/// The states of several checks, under their locks. While this exists, no table moves its entries.
struct LockedStates<'a> {
    guards: SmallVec<[MutexGuard<'a, Shard>; 8]>,
    touched: SmallVec<[Touched; 8]>,
    /// Returned if a state is missing, which cannot happen; never saved.
    missing: State,
}

struct Touched {
    hash: KeyHash,
    guard: usize,
    place: StatePlace,
    written: bool,
}

enum StatePlace {
    /// In this bucket of its shard's table.
    Bucket(usize),
    /// Not in a table yet.
    New(State),
    /// With the earlier check of this index, which has the same counter.
    Elsewhere(usize),
}

impl<'a> LockedStates<'a> {
    fn new<H>(
        transaction: &Transaction<H>,
        hashes: &[KeyHash],
        guards: SmallVec<[MutexGuard<'a, Shard>; 8]>,
        guard_of: impl Fn(KeyHash) -> usize,
    ) -> Self {
        let mut touched: SmallVec<[Touched; 8]> = SmallVec::with_capacity(hashes.len());
        for (&hash, check) in hashes.iter().zip(&transaction.checks) {
            let guard = guard_of(hash);
            let place = match touched.iter().position(|one| one.hash == hash) {
                Some(first) => StatePlace::Elsewhere(first),
                None => match guards[guard].find_bucket(hash) {
                    Some(bucket) => StatePlace::Bucket(bucket),
                    None => StatePlace::New(State::new(&check.limit)),
                },
            };
            touched.push(Touched {
                hash,
                guard,
                place,
                written: false,
            });
        }
        Self {
            guards,
            touched,
            missing: State::Fixed(fixed_window::State::default()),
        }
    }
}

impl States for LockedStates<'_> {
    fn read(&self, index: usize) -> &State {
        let one = &self.touched[self.first(index)];
        let found = match &one.place {
            StatePlace::Bucket(bucket) => self.guards[one.guard].bucket(*bucket).map(|entry| &entry.state),
            StatePlace::New(state) => Some(state),
            StatePlace::Elsewhere(_) => None,
        };
        found.unwrap_or(&self.missing)
    }

    fn write(&mut self, index: usize) -> &mut State {
        let first = self.first(index);
        let one = &mut self.touched[first];
        one.written = true;
        let found = match &mut one.place {
            StatePlace::Bucket(bucket) => self.guards[one.guard].bucket_mut(*bucket).map(|entry| &mut entry.state),
            StatePlace::New(state) => Some(state),
            StatePlace::Elsewhere(_) => None,
        };
        found.unwrap_or(&mut self.missing)
    }

    fn first(&self, index: usize) -> usize {
        match self.touched[index].place {
            StatePlace::Elsewhere(first) => first,
            StatePlace::Bucket(_) | StatePlace::New(_) => index,
        }
    }
}
