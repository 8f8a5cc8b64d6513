//! The step of sliding_log; `script.lua` does the same under the same names.

use std::collections::VecDeque;

use super::Params;
use crate::model::{Outcome, RetryAfter};

/// Hits in a window that are kept at most: what an entry in Redis has room for, and more than any limit.
const MOST: u64 = (1 << 24) - 1;

/// Entries that a return rewrites at most, so that it holds a Redis server up for no more than a few milliseconds.
pub const MOST_MOVED: usize = 1024;

/// Admitted hits in order of time.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct State {
    /// Hits up to this total have been given back, or have been dropped.
    base: u64,
    entries: VecDeque<Entry>,
}

/// The hits of one microsecond.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Entry {
    at_us: u64,
    /// Total of all hits up to and with these.
    total: u64,
}

impl State {
    /// Bytes of the entries.
    #[must_use]
    pub fn heap_bytes(&self) -> usize {
        self.entries.capacity() * size_of::<Entry>()
    }

    fn last(&self) -> Entry {
        self.entries.back().copied().unwrap_or(Entry {
            at_us: 0,
            total: self.base,
        })
    }

    /// How many entries have left the window that ends at `at_us`, and the total that stood before the first that
    /// has not.
    fn left(&self, params: &Params, at_us: u64) -> (usize, u64) {
        let gone = self
            .entries
            .partition_point(|entry| entry.at_us + params.window_us <= at_us);
        let before = gone.checked_sub(1).and_then(|last| self.entries.get(last));
        (gone, before.map_or(self.base, |entry| entry.total.max(self.base)))
    }
}

/// See [`crate::algorithms::decide`].
#[must_use]
pub fn decide(params: &Params, state: &State, now_us: u64, hits: u64) -> Outcome {
    let last = state.last();
    let at_us = last.at_us.max(now_us);
    let (_, before) = state.left(params, at_us);
    let used = last.total - before;
    let wanted = hits.max(1);
    let left = params.hits.saturating_sub(used);
    if wanted <= left && hits > 0 {
        return Outcome::admitted(left - hits, at_us + params.window_us - now_us);
    }
    let reset_after_us = if used == 0 {
        0
    } else {
        last.at_us + params.window_us - now_us
    };
    if wanted <= left {
        return Outcome::admitted(left, reset_after_us);
    }
    if wanted > params.hits {
        return Outcome::refused(left, RetryAfter::Never, reset_after_us);
    }
    // The request fits once the window has left behind all hits up to this total.
    let until = before + used + wanted - params.hits;
    let index = state.entries.partition_point(|entry| entry.total < until);
    let at_us = state.entries.get(index).map_or(last.at_us, |entry| entry.at_us);
    Outcome::refused(
        left,
        RetryAfter::Micros((at_us + params.window_us).saturating_sub(now_us)),
        reset_after_us,
    )
}

/// See [`crate::algorithms::apply`].
pub fn apply(params: &Params, state: &mut State, now_us: u64, hits: u64) {
    let last = state.last();
    let at_us = last.at_us.max(now_us);
    let (gone, before) = state.left(params, at_us);
    state.entries.drain(..gone);
    state.base = before;
    let total = last.total.saturating_add(hits);
    match state.entries.back_mut() {
        Some(entry) if entry.at_us == at_us => entry.total = total,
        _ => state.entries.push_back(Entry { at_us, total }),
    }
    if state.entries.capacity() > 32 && state.entries.len() * 4 < state.entries.capacity() {
        state.entries.shrink_to(state.entries.len() * 2);
    }
}

/// See [`crate::algorithms::debit`].
pub fn debit(params: &Params, state: &mut State, now_us: u64, hits: u64) {
    let last = state.last();
    let (_, before) = state.left(params, last.at_us.max(now_us));
    let room = MOST.saturating_sub(last.total - before);
    if room > 0 {
        apply(params, state, now_us, hits.min(room));
    }
}

/// See [`crate::algorithms::refund`].
pub fn refund(params: &Params, state: &mut State, now_us: u64, hits: u64) {
    let last = state.last();
    let (_, before) = state.left(params, last.at_us.max(now_us));
    state.base = before.saturating_add(hits).min(last.total);
    let spent = state.entries.partition_point(|entry| entry.total <= state.base);
    state.entries.drain(..spent);
}

/// See [`crate::algorithms::return_to`].
pub fn return_to(params: &Params, state: &mut State, now_us: u64, at_us: u64, hits: u64) {
    let last = state.last();
    let (gone, before) = state.left(params, last.at_us.max(now_us));
    let index = state.entries.partition_point(|entry| entry.at_us < at_us);
    let found = state.entries.get(index).filter(|entry| entry.at_us == at_us);
    if index < gone || state.entries.len() - index > MOST_MOVED {
        return;
    }
    let Some(entry) = found else { return };
    let earlier = index.checked_sub(1).and_then(|index| state.entries.get(index));
    let earlier = earlier.map_or(before, |entry| entry.total.max(before));
    let given = hits.min(entry.total.saturating_sub(earlier));
    for entry in state.entries.range_mut(index..) {
        entry.total -= given;
    }
    if state.entries.get(index).is_some_and(|entry| entry.total <= earlier) {
        state.entries.remove(index);
    }
    // What has left the window does not count again when the newest entry is gone and the clock goes back.
    state.entries.drain(..gone);
    state.base = before;
}

/// See [`crate::algorithms::expires_us`].
#[must_use]
pub fn expires_us(params: &Params, state: &State) -> u64 {
    state.entries.back().map_or(0, |entry| entry.at_us + params.window_us)
}
