//! The step of fixed_window; `script.lua` does the same under the same names.

use super::Params;
use crate::model::{Outcome, RetryAfter};

/// The count of one window. Packed, so that it leaves room for the tag of a sum type in sixteen bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[repr(C, packed(4))]
pub struct State {
    /// Windows since the epoch.
    window: u64,
    /// Hits in it; stops at the largest, which is not below any limit.
    count: u32,
}

/// The window that is counted at `now_us`, and the hits in it.
fn current(params: &Params, state: &State, now_us: u64) -> (u64, u64) {
    let window = state.window.max(now_us / params.window_us);
    (
        window,
        if window == state.window {
            u64::from(state.count)
        } else {
            0
        },
    )
}

/// See [`crate::algorithms::decide`].
#[must_use]
pub fn decide(params: &Params, state: &State, now_us: u64, hits: u64) -> Outcome {
    let (window, count) = current(params, state, now_us);
    let end_after_us = (window + 1) * params.window_us - now_us;
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
    let (window, count) = current(params, state, now_us);
    *state = State {
        window,
        count: u32::try_from(count.saturating_add(hits)).unwrap_or(u32::MAX),
    };
}

/// See [`crate::algorithms::refund`].
pub fn refund(params: &Params, state: &mut State, now_us: u64, hits: u64) {
    let (window, count) = current(params, state, now_us);
    *state = match u32::try_from(count.saturating_sub(hits)).unwrap_or(u32::MAX) {
        0 => State::default(),
        count => State { window, count },
    };
}

/// See [`crate::algorithms::return_to`].
pub fn return_to(params: &Params, state: &mut State, now_us: u64, window: u64, hits: u64) {
    if window == current(params, state, now_us).0 {
        refund(params, state, now_us, hits);
    }
}

/// See [`crate::algorithms::expires_us`].
#[must_use]
pub const fn expires_us(params: &Params, state: &State) -> u64 {
    if state.count == 0 {
        0
    } else {
        (state.window + 1) * params.window_us
    }
}
