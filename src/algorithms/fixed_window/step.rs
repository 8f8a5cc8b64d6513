//! The step of fixed_window; `script.lua` does the same under the same names.

use super::Params;
use crate::model::{Outcome, RetryAfter};

/// The count of one window. Packed, so that it leaves room for the tag of a sum type in sixteen bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[repr(C, packed)]
pub struct State {
    /// When the window ends (below 2^53, little-endian).
    end_us: [u8; 7],
    /// Hits in it; stops at the largest, which is not below any limit.
    count: u32,
    /// [`Params::mark`] of the limit that this was written under.
    mark: u32,
}

impl State {
    fn new(params: &Params, end_us: u64, count: u32) -> Self {
        if count == 0 {
            return Self::default();
        }
        let [a, b, c, d, e, f, g, _] = end_us.to_le_bytes();
        Self {
            end_us: [a, b, c, d, e, f, g],
            count,
            mark: params.mark(),
        }
    }

    const fn end_us(&self) -> u64 {
        let [a, b, c, d, e, f, g] = self.end_us;
        u64::from_le_bytes([a, b, c, d, e, f, g, 0])
    }
}

/// See [`crate::algorithms::is_foreign`].
#[must_use]
pub fn is_foreign(params: &Params, state: &State) -> bool {
    state.count > 0 && state.mark != params.mark()
}

/// See [`crate::algorithms::adopt`]: hits of a window that has not ended count in the present one.
pub fn adopt(params: &Params, state: &mut State, now_us: u64) -> bool {
    let is_foreign = is_foreign(params, state);
    *state = adopted(params, state, now_us);
    is_foreign
}

fn adopted(params: &Params, state: &State, now_us: u64) -> State {
    if !is_foreign(params, state) {
        return *state;
    }
    let count = if state.end_us() > now_us { state.count } else { 0 };
    State::new(params, params.end_us(now_us), count)
}

/// When the window that is counted at `now_us` ends, and the hits in it.
fn current(params: &Params, state: &State, now_us: u64) -> (u64, u64) {
    let state = adopted(params, state, now_us);
    let end_us = state.end_us().max(params.end_us(now_us));
    let count = if end_us == state.end_us() { state.count } else { 0 };
    (end_us, u64::from(count))
}

/// See [`crate::algorithms::decide`].
#[must_use]
pub fn decide(params: &Params, state: &State, now_us: u64, hits: u64) -> Outcome {
    let (end_us, count) = current(params, state, now_us);
    let end_after_us = end_us - now_us;
    let wanted = hits.max(1);
    let left = params.hits.saturating_sub(count);
    let reset_after_us = if count + hits > 0 { end_after_us } else { 0 };
    if wanted <= left {
        return Outcome::admitted(left - hits, reset_after_us);
    }
    let retry_after = if wanted > params.hits {
        RetryAfter::Never
    } else {
        RetryAfter::Micros(end_after_us)
    };
    Outcome::refused(left, retry_after, if count > 0 { end_after_us } else { 0 })
}

/// See [`crate::algorithms::apply`].
pub fn apply(params: &Params, state: &mut State, now_us: u64, hits: u64) {
    let (end_us, count) = current(params, state, now_us);
    let count = u32::try_from(count.saturating_add(hits)).unwrap_or(u32::MAX);
    *state = State::new(params, end_us, count);
}

/// See [`crate::algorithms::refund`].
pub fn refund(params: &Params, state: &mut State, now_us: u64, hits: u64) {
    let (end_us, count) = current(params, state, now_us);
    let count = u32::try_from(count.saturating_sub(hits)).unwrap_or(u32::MAX);
    *state = State::new(params, end_us, count);
}

/// See [`crate::algorithms::return_to`].
pub fn return_to(params: &Params, state: &mut State, now_us: u64, window: u64, hits: u64) {
    adopt(params, state, now_us);
    if window == current(params, state, now_us).0 / params.number_us() - 1 {
        refund(params, state, now_us, hits);
    }
}

/// See [`crate::algorithms::expires_us`].
#[must_use]
pub const fn expires_us(state: &State) -> u64 {
    state.end_us()
}
