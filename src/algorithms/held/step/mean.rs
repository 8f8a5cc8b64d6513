//! Holds without ids: the ring counts them, and each keeps the mean cost that the newest check brings.

use super::{State, denied, open};
use crate::algorithms::held::{params, plain};
use crate::algorithms::{self, sliding_window};
use crate::model::{Limit, Outcome};

/// The outcome of a peek at a counter whose open holds keep `mean` hits each.
#[must_use]
pub fn stands(limit: &Limit, state: &State, now_us: u64, mean: u64) -> Outcome {
    let mut outcome = algorithms::decide(&plain(limit), &state.counter, now_us, 0);
    let held = open(limit, state, now_us).saturating_mul(mean);
    outcome.remaining = outcome.remaining.saturating_sub(held);
    outcome
}

/// Decides a hold of a mean cost, and how many hits it keeps: all that are left, if they are fewer.
#[must_use]
pub fn judge_mean(limit: &Limit, state: &State, now_us: u64, mean: u64, before: u64) -> (Outcome, u64) {
    let stands = stands(limit, state, now_us, mean);
    let left = stands.remaining.saturating_sub(before);
    if left > 0 {
        let own = mean.min(left);
        return (Outcome::admitted(left - own, stands.reset_after_us), own);
    }
    let one = algorithms::decide(&plain(limit), &state.counter, now_us, 1);
    (denied(&one, left, stands.reset_after_us), 0)
}

/// Counts a hold that [`judge_mean`] allowed.
pub fn hold_mean(limit: &Limit, state: &mut State, now_us: u64) {
    state.advance(limit, now_us);
    sliding_window::apply(&params(limit), &mut state.ring, now_us, 1);
}

/// Ends the oldest hold, if there is one, and counts `hits`; returns how many holds have ended (0 or 1).
pub fn settle_oldest(limit: &Limit, state: &mut State, now_us: u64, hits: u64) -> u64 {
    let params = params(limit);
    state.advance(limit, now_us);
    let before = sliding_window::used(&params, &state.ring, now_us);
    sliding_window::refund(&params, &mut state.ring, now_us, 1);
    if hits > 0 {
        algorithms::debit(&plain(limit), &mut state.counter, now_us, hits);
    }
    before - sliding_window::used(&params, &state.ring, now_us)
}
