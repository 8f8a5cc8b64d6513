//! The step of sliding_window; `script.lua` does the same under the same names.

use std::ops::Range;

use super::Params;
use crate::model::{Outcome, RetryAfter};

/// Counts of the newest slice and of the S before it.
///
/// While the slice stays the same, only `sum` and `head` change; the ring is not touched, and not even there before
/// the first change of slice.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct State {
    /// Number of the newest slice (since the epoch).
    newest: u64,
    /// [`Params::slicing`] of the limit that this was written under.
    slicing: u64,
    /// Hits in all slices, from `newest - S` to `newest`.
    sum: u32,
    /// Hits in the newest slice.
    head: u32,
    /// Hits of slice `j` before the newest one, at `j % S`; empty as long as all are zero.
    older: Box<[u32]>,
}

impl State {
    /// Bytes of the ring.
    #[must_use]
    pub fn heap_bytes(&self) -> usize {
        size_of_val(&*self.older)
    }

    /// Prefetches the state itself: reads what [`decide`] reads first.
    pub const fn touch(&self) -> u64 {
        self.newest
    }

    /// Prefetches its ring.
    pub fn touch_ring(&self) -> u32 {
        let slot = usize::try_from(self.newest)
            .unwrap_or_default()
            .checked_rem(self.older.len());
        slot.and_then(|slot| self.older.get(slot)).copied().unwrap_or_default()
    }

    /// Hits of the slice that was `k` slices into the ring when `newest` was the newest: `newest - S + k`.
    fn older(&self, params: &Params, k: u64) -> u32 {
        let slot = usize::try_from((self.newest + k) % params.slices).unwrap_or(usize::MAX);
        self.older.get(slot).copied().unwrap_or(0)
    }

    /// The ranges of the ring with the counts `k..to` of [`older`](Self::older); `k <= to <= S`. One division for all of them.
    const fn places(&self, params: &Params, k: u64, to: u64) -> [Range<usize>; 2] {
        // The number of slices fits usize, so what is not above it does.
        let (start, slices) = (((self.newest + k) % params.slices) as usize, params.slices as usize);
        let end = start + (to - k) as usize;
        if end <= slices {
            [start..end, 0..0]
        } else {
            [start..slices, 0..end - slices]
        }
    }

    /// The counts `k..to` in their order; none while there is no ring.
    fn counts(&self, params: &Params, k: u64, to: u64) -> impl DoubleEndedIterator<Item = u32> + use<'_> {
        let [first, second] = self.places(params, k, to);
        let part = |range| {
            self.older
                .get::<Range<usize>>(range)
                .unwrap_or_default()
                .iter()
                .copied()
        };
        part(first).chain(part(second))
    }

    /// Hits that count when the slice is `passed` slices after the newest one.
    fn counted(&self, params: &Params, passed: u64) -> u64 {
        // The common case: nothing has left, and no place of the ring need be found.
        if passed == 0 {
            return u64::from(self.sum);
        }
        if passed > params.slices {
            return 0;
        }
        let left: u64 = self.counts(params, 0, passed).map(u64::from).sum();
        u64::from(self.sum).saturating_sub(left)
    }

    /// The end of the newest counted slice with hits, plus S slices: the time at which the whole quota is back.
    fn full_at_us(&self, params: &Params, passed: u64) -> u64 {
        if passed > params.slices {
            return 0;
        }
        if self.head > 0 {
            return (self.newest + params.slices + 1) * params.slice_us;
        }
        let counts = self.counts(params, passed, params.slices).rev();
        (passed..params.slices)
            .rev()
            .zip(counts)
            .find(|(_, count)| *count > 0)
            .map_or(0, |(k, _)| (self.newest + k + 1) * params.slice_us)
    }

    /// The time at which `excess` of the counted hits will have left.
    fn freed_at_us(&self, params: &Params, passed: u64, excess: u64) -> u64 {
        let mut freed = 0;
        for (k, count) in (passed..params.slices).zip(self.counts(params, passed, params.slices)) {
            freed += u64::from(count);
            if freed >= excess {
                return (self.newest + k + 1) * params.slice_us;
            }
        }
        (self.newest + params.slices + 1) * params.slice_us
    }

    /// Adds hits to a slice that is not newer than the newest, if it still counts.
    fn put(&mut self, params: &Params, slice: u64, hits: u32) {
        if hits == 0 || slice + params.slices < self.newest {
            return;
        }
        self.sum = self.sum.saturating_add(hits);
        if slice == self.newest {
            self.head = self.head.saturating_add(hits);
            return;
        }
        self.make_ring(params);
        let slot = usize::try_from(slice % params.slices).unwrap_or(usize::MAX);
        if let Some(count) = self.older.get_mut(slot) {
            *count = count.saturating_add(hits);
        }
    }

    fn make_ring(&mut self, params: &Params) {
        let slots = usize::try_from(params.slices).unwrap_or(usize::MAX);
        if self.older.len() != slots {
            self.older = vec![0; slots].into_boxed_slice();
        }
    }

    /// Makes `slice` the newest one.
    fn advance(&mut self, params: &Params, slice: u64) {
        if self.sum == 0 && self.slicing != params.slicing() {
            *self = Self {
                slicing: params.slicing(),
                ..Self::default()
            };
        }
        let passed = slice.saturating_sub(self.newest);
        if passed == 0 {
            return;
        }
        if passed > params.slices || self.sum == 0 {
            (self.sum, self.head) = (0, 0);
            // Where there is no ring there is no address, and some processors take 50 ns to write nothing to none.
            if !self.older.is_empty() {
                self.older.fill(0);
            }
        } else {
            self.shift(params, passed);
        }
        self.newest = slice;
    }

    /// Drops the slices that `passed` new ones push out, and puts the newest one into the ring.
    fn shift(&mut self, params: &Params, passed: u64) {
        self.make_ring(params);
        for place in self.places(params, 0, passed) {
            if let Some(counts) = self.older.get_mut(place) {
                self.sum = counts.iter().fold(self.sum, |sum, count| sum.saturating_sub(*count));
                counts.fill(0);
            }
        }
        let [newest, _] = self.places(params, 0, 0);
        if let Some(count) = self.older.get_mut(newest.start) {
            *count = std::mem::take(&mut self.head);
        }
    }
}

/// See [`crate::algorithms::is_foreign`].
#[must_use]
pub const fn is_foreign(params: &Params, state: &State) -> bool {
    state.sum > 0 && state.slicing != params.slicing()
}

/// See [`crate::algorithms::adopt`]: slices are cut anew, see [the module](super).
pub fn adopt(params: &Params, state: &mut State, now_us: u64) -> bool {
    let is_foreign = is_foreign(params, state);
    if is_foreign {
        *state = adopted(params, state, now_us);
    }
    is_foreign
}

fn adopted(params: &Params, old: &State, now_us: u64) -> State {
    let had = Params::sliced(old.slicing);
    let passed = (now_us / had.slice_us).saturating_sub(old.newest);
    // The new slice of the latest time at which hits of an old one can have been counted.
    let latest = |slice: u64| {
        let start_us = slice * had.slice_us;
        (start_us + had.slice_us - 1).min(now_us.max(start_us)) / params.slice_us
    };
    let mut new = State {
        newest: latest(old.newest),
        slicing: params.slicing(),
        ..State::default()
    };
    for k in passed..had.slices {
        if let Some(slice) = (old.newest + k).checked_sub(had.slices) {
            new.put(params, latest(slice), old.older(&had, k));
        }
    }
    if passed <= had.slices {
        new.put(params, new.newest, old.head);
    }
    if new.sum == 0 { State::default() } else { new }
}

/// See [`crate::algorithms::decide`].
#[must_use]
pub fn decide(params: &Params, state: &State, now_us: u64, hits: u64) -> Outcome {
    if is_foreign(params, state) {
        return decide(params, &adopted(params, state, now_us), now_us, hits);
    }
    let slice = state.newest.max(now_us / params.slice_us);
    let passed = slice - state.newest;
    let sum = state.counted(params, passed);
    let wanted = hits.max(1);
    let left = params.hits.saturating_sub(sum);
    if wanted <= left {
        return if hits == 0 {
            Outcome::admitted(left, state.full_at_us(params, passed).saturating_sub(now_us))
        } else {
            Outcome::admitted(left - hits, (slice + params.slices + 1) * params.slice_us - now_us)
        };
    }
    let reset_after_us = state.full_at_us(params, passed).saturating_sub(now_us);
    if wanted > params.hits {
        return Outcome::refused(left, RetryAfter::Never, reset_after_us);
    }
    let excess = sum + wanted - params.hits;
    let retry_us = state.freed_at_us(params, passed, excess).saturating_sub(now_us);
    Outcome::refused(left, RetryAfter::Micros(retry_us), reset_after_us)
}

/// Hits that count at this time.
#[must_use]
pub fn used(params: &Params, state: &State, now_us: u64) -> u64 {
    if is_foreign(params, state) {
        return used(params, &adopted(params, state, now_us), now_us);
    }
    let passed = (now_us / params.slice_us).saturating_sub(state.newest);
    state.counted(params, passed)
}

/// The slice that was counted in last.
#[must_use]
pub const fn newest(state: &State) -> u64 {
    state.newest
}

/// See [`crate::algorithms::remaining`].
#[must_use]
pub fn remaining(params: &Params, state: &State, now_us: u64) -> u64 {
    params.hits.saturating_sub(used(params, state, now_us))
}

/// See [`crate::algorithms::apply`].
pub fn apply(params: &Params, state: &mut State, now_us: u64, hits: u64) {
    adopt(params, state, now_us);
    state.advance(params, now_us / params.slice_us);
    let hits = u32::try_from(hits).unwrap_or(u32::MAX);
    state.sum = state.sum.saturating_add(hits);
    state.head = state.head.saturating_add(hits);
}

/// See [`crate::algorithms::debit`].
pub fn debit(params: &Params, state: &mut State, now_us: u64, hits: u64) {
    adopt(params, state, now_us);
    state.advance(params, now_us / params.slice_us);
    let room = u32::MAX - state.sum;
    apply(params, state, now_us, hits.min(u64::from(room)));
}

/// See [`crate::algorithms::refund`].
pub fn refund(params: &Params, state: &mut State, now_us: u64, hits: u64) {
    adopt(params, state, now_us);
    state.advance(params, now_us / params.slice_us);
    let mut left = u32::try_from(hits).unwrap_or(u32::MAX).min(state.sum);
    state.sum -= left;
    if state.sum == 0 {
        *state = State::default();
        return;
    }
    for k in 0..params.slices {
        let slot = usize::try_from((state.newest + k) % params.slices).unwrap_or(usize::MAX);
        if let Some(count) = state.older.get_mut(slot) {
            let taken = left.min(*count);
            *count -= taken;
            left -= taken;
        }
    }
    state.head -= left.min(state.head);
}

/// See [`crate::algorithms::return_to`].
pub fn return_to(params: &Params, state: &mut State, now_us: u64, slice: u64, hits: u64) {
    adopt(params, state, now_us);
    state.advance(params, now_us / params.slice_us);
    let hits = u32::try_from(hits).unwrap_or(u32::MAX);
    let count = if slice == state.newest {
        Some(&mut state.head)
    } else if slice < state.newest && slice + params.slices >= state.newest {
        let slot = usize::try_from(slice % params.slices).unwrap_or(usize::MAX);
        state.older.get_mut(slot)
    } else {
        None
    };
    if let Some(count) = count {
        let given = hits.min(*count);
        *count -= given;
        state.sum -= given.min(state.sum);
    }
    if state.sum == 0 {
        *state = State::default();
    }
}

/// See [`crate::algorithms::expires_us`].
#[must_use]
pub const fn expires_us(state: &State) -> u64 {
    if state.sum == 0 {
        0
    } else {
        let params = Params::sliced(state.slicing);
        (state.newest + params.slices + 1) * params.slice_us
    }
}
