//! The step of holds; `script.lua` does the same under the same names.

mod mean;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;

use super::{RETRY_US, SLICES, params, plain};
use crate::algorithms::{self, sliding_window};
use crate::model::{HoldId, Holds, Limit, Outcome, RetryAfter};

pub use mean::{hold_mean, judge_mean, settle_oldest, stands};

/// Most expired records that one new hold removes, so that the end of a burst is spread over the holds after it.
const MOST_CLEARED: usize = 64;
/// Records that each change looks at beside those: more than it adds, so that what was made up goes, too.
const LOOKED_AT: usize = 2;
/// Capacity for this many records beyond four times their number is kept before memory is given back.
const SPARE: usize = 64;

/// A counter and its holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State {
    /// The used hits.
    counter: algorithms::State,
    /// The sum of open holds.
    ring: sliding_window::State,
    /// In order of their ids, and thereby of their times.
    records: VecDeque<HoldRecord>,
    /// The newest slice that a record has been made in.
    newest: u64,
    /// Hits of holds that have expired and have not been reported yet.
    expired: u64,
    /// The record that is looked at next among those that do not stand in the order of their times, since their ids were made up.
    hand: usize,
}

/// One hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct HoldRecord {
    id: HoldId,
    /// The slice that it is summed up in.
    slice: u64,
    /// What it keeps; 0 = it has been settled.
    hits: u64,
}

impl State {
    /// The state of an unused counter.
    #[must_use]
    pub fn new(limit: &Limit) -> Self {
        Self {
            counter: algorithms::State::new(&plain(limit)),
            ring: sliding_window::State::default(),
            records: VecDeque::new(),
            newest: 0,
            expired: 0,
            hand: 0,
        }
    }

    /// The counter of used hits.
    #[must_use]
    pub const fn counter(&self) -> &algorithms::State {
        &self.counter
    }

    /// The counter of used hits, to be changed.
    pub const fn counter_mut(&mut self) -> &mut algorithms::State {
        &mut self.counter
    }

    /// Bytes on the heap.
    #[must_use]
    pub fn heap_bytes(&self) -> usize {
        self.counter.heap_bytes() + self.ring.heap_bytes() + self.records.capacity() * size_of::<HoldRecord>()
    }

    /// The index of a hold's record that has not expired, or the index at which it would be inserted.
    fn find(&self, limit: &Limit, now_us: u64, id: HoldId) -> Result<usize, usize> {
        let place = self.records.binary_search_by_key(&id, |record| record.id)?;
        let ends_us = self.records.get(place).map_or(0, |record| ends_us(limit, record.slice));
        if ends_us <= now_us { Err(place) } else { Ok(place) }
    }

    /// What a hold keeps; 0 if it is settled or not known.
    fn kept(&self, limit: &Limit, now_us: u64, id: HoldId) -> u64 {
        let place = self.find(limit, now_us, id).ok();
        place
            .and_then(|place| self.records.get(place))
            .map_or(0, |record| record.hits)
    }

    /// Adds a record at the index that [`find`](Self::find) has returned.
    fn insert(&mut self, place: usize, record: HoldRecord) {
        self.newest = self.newest.max(record.slice);
        if self.records.is_empty() {
            // Most counters have one hold at a time.
            self.records.reserve_exact(1);
        }
        match self.records.get_mut(place).filter(|known| known.id == record.id) {
            Some(ended) => *ended = record,
            None => self.records.insert(place, record),
        }
    }

    /// Takes a record's hits out of the sum; returns how many.
    fn leave(&mut self, limit: &Limit, now_us: u64, record: HoldRecord) -> u64 {
        let params = params(limit);
        self.advance(limit, now_us);
        let before = sliding_window::used(&params, &self.ring, now_us);
        sliding_window::return_to(&params, &mut self.ring, now_us, record.slice, record.hits);
        before - sliding_window::used(&params, &self.ring, now_us)
    }

    /// Moves the ring to this time, and counts the holds that expire by that.
    fn advance(&mut self, limit: &Limit, now_us: u64) {
        let params = params(limit);
        let before = sliding_window::used(&params, &self.ring, 0);
        sliding_window::apply(&params, &mut self.ring, now_us, 0);
        self.expired += before - sliding_window::used(&params, &self.ring, now_us);
    }

    /// Removes expired records.
    fn clear(&mut self, limit: &Limit, now_us: u64) {
        let is_over = |record: &HoldRecord| ends_us(limit, record.slice) <= now_us;
        for _ in 0..MOST_CLEARED {
            if !self.records.front().is_some_and(is_over) {
                break;
            }
            self.records.pop_front();
        }
        // While the first is over, so are those behind it, and they go faster from there.
        let looked_at = if self.records.front().is_some_and(is_over) {
            0
        } else {
            LOOKED_AT
        };
        for _ in 0..looked_at {
            match self.records.get(self.hand) {
                Some(record) if is_over(record) => drop(self.records.remove(self.hand)),
                Some(_) => self.hand += 1,
                None => self.hand = 0,
            }
        }
        if self.records.capacity() > self.records.len() * 4 + SPARE {
            self.records.shrink_to(self.records.len() * 2);
        }
    }
}

/// The time at which the slice of a hold leaves the sum.
fn ends_us(limit: &Limit, slice: u64) -> u64 {
    slice.saturating_add(SLICES + 1).saturating_mul(params(limit).slice_us)
}

/// Hits that open holds keep.
#[must_use]
pub fn open(limit: &Limit, state: &State, now_us: u64) -> u64 {
    sliding_window::used(&params(limit), &state.ring, now_us)
}

/// Takes the hits of holds that have expired, so that they are reported once.
pub fn take_expired(state: &mut State) -> u64 {
    std::mem::take(&mut state.expired)
}

/// Whether holds have expired that have not been reported.
#[must_use]
pub const fn has_expired(state: &State) -> bool {
    state.expired > 0
}

/// See [`crate::algorithms::decide`]: held hits are not left.
#[must_use]
pub fn decide(limit: &Limit, state: &State, now_us: u64, hits: u64) -> Outcome {
    let counter = plain(limit);
    let alone = algorithms::decide(&counter, &state.counter, now_us, hits);
    let held = open(limit, state, now_us);
    if held == 0 {
        return alone;
    }
    let stands = algorithms::decide(&counter, &state.counter, now_us, 0);
    let left = stands.remaining.saturating_sub(held);
    if hits.max(1) <= left {
        return Outcome {
            remaining: left - hits,
            ..alone
        };
    }
    denied(&alone, left, stands.reset_after_us)
}

/// A denial of hits; `alone` is their outcome without the holds.
const fn denied(alone: &Outcome, left: u64, reset_after_us: u64) -> Outcome {
    let retry_after = if alone.allowed {
        RetryAfter::Micros(RETRY_US)
    } else {
        alone.retry_after
    };
    Outcome::refused(left, retry_after, reset_after_us)
}

/// Decides a hold, and how many hits it keeps. `before`: hits of earlier checks of the same transaction. One that is open already
/// was asked for in a call that failed, and is granted as it is.
#[must_use]
pub fn judge(limit: &Limit, state: &State, now_us: u64, id: HoldId, hits: u64, before: u64) -> (Outcome, u64) {
    let counter = plain(limit);
    let held = open(limit, state, now_us) + before;
    let stands = algorithms::decide(&counter, &state.counter, now_us, 0);
    let left = stands.remaining.saturating_sub(held);
    let own = state.kept(limit, now_us, id);
    if own > 0 {
        return (Outcome::admitted(left, stands.reset_after_us), own);
    }
    if hits <= left {
        return (Outcome::admitted(left - hits, stands.reset_after_us), hits);
    }
    let alone = algorithms::decide(&counter, &state.counter, now_us, hits);
    if alone.retry_after != RetryAfter::Never {
        return (denied(&alone, left, stands.reset_after_us), 0);
    }
    // More than the limit could ever admit.
    if held == 0 && left > 0 {
        return (Outcome::admitted(0, stands.reset_after_us), left);
    }
    let one = algorithms::decide(&counter, &state.counter, now_us, 1);
    (denied(&one, left, stands.reset_after_us), 0)
}

/// Makes a hold of hits that [`judge`] allowed; `adds`: the same request has one of this id already, which becomes larger. Of any
/// other id that is known it makes nothing: it was under way for longer than what the ledger had to say of it.
pub fn hold(limit: &Limit, state: &mut State, now_us: u64, id: HoldId, hits: u64, adds: bool) {
    state.advance(limit, now_us);
    state.clear(limit, now_us);
    let known = state.find(limit, now_us, id);
    let is_open = |place| state.records.get(place).is_some_and(|record| record.hits > 0);
    if known.is_ok_and(|place| !(adds && is_open(place))) {
        return;
    }
    let params = params(limit);
    sliding_window::apply(&params, &mut state.ring, now_us, hits);
    let slice = sliding_window::newest(&state.ring);
    match known {
        Ok(place) => {
            if let Some(known) = state.records.get_mut(place) {
                known.hits += hits;
            }
        }
        Err(place) => state.insert(place, HoldRecord { id, slice, hits }),
    }
}

/// Makes a hold that was granted elsewhere, unless its id is known; returns the hits that it keeps, 0 if it is settled.
pub fn force_hold(limit: &Limit, state: &mut State, now_us: u64, id: HoldId, hits: u64) -> u64 {
    let hits = hits.min(params(limit).hits.saturating_sub(open(limit, state, now_us)));
    if hits > 0 && state.find(limit, now_us, id).is_err() {
        hold(limit, state, now_us, id, hits, false);
    }
    state.kept(limit, now_us, id)
}

/// Ends a hold and counts `hits`; returns the hits that it had kept, and whether it had been settled before.
pub fn settle(limit: &Limit, state: &mut State, now_us: u64, id: HoldId, hits: u64) -> Holds {
    let mut own = 0;
    match state.find(limit, now_us, id) {
        Ok(place) => {
            let known = state.records.get_mut(place);
            let Some(record) = known.filter(|record| record.hits > 0) else {
                return Holds {
                    repeated: true,
                    ..Holds::default()
                };
            };
            let ended = *record;
            record.hits = 0;
            own = state.leave(limit, now_us, ended);
            if limit.settles_once {
                state.records.remove(place);
            }
        }
        Err(_) if limit.settles_once => {}
        // Its hold may be on its way, or has expired; the same settlement may come again.
        Err(_) => {
            state.clear(limit, now_us);
            let place = state.records.partition_point(|record| record.id < id);
            let slice = now_us / params(limit).slice_us;
            state.insert(place, HoldRecord { id, slice, hits: 0 });
        }
    }
    if hits > 0 {
        algorithms::debit(&plain(limit), &mut state.counter, now_us, hits);
    }
    Holds {
        own,
        ..Holds::default()
    }
}

/// Whether a hold is open.
#[must_use]
pub fn is_open(limit: &Limit, state: &State, now_us: u64, id: HoldId) -> bool {
    state.kept(limit, now_us, id) > 0
}

/// Ends a hold as if it had never been made; see [`Op::Release`](crate::algorithms::op::Op::Release).
pub fn release(limit: &Limit, state: &mut State, now_us: u64, id: HoldId) {
    if id.is_oldest() {
        settle_oldest(limit, state, now_us, 0);
        return;
    }
    if let Ok(place) = state.find(limit, now_us, id)
        && let Some(record) = state.records.get(place).copied().filter(|record| record.hits > 0)
    {
        state.leave(limit, now_us, record);
        state.records.remove(place);
    }
}

/// See [`crate::algorithms::expires_us`]. An expired hold is kept for another ttl, so that the next request still reports it.
#[must_use]
pub fn expires_us(limit: &Limit, state: &State) -> u64 {
    let ring_us = match sliding_window::expires_us(&state.ring) {
        0 => 0,
        at_us => at_us.saturating_add(limit.hold_us),
    };
    let records_us = if state.records.is_empty() {
        0
    } else {
        ends_us(limit, state.newest)
    };
    algorithms::expires_us(&plain(limit), &state.counter)
        .max(ring_us)
        .max(records_us)
}
