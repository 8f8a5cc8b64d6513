//! The step of token_bucket and leaky_bucket; `script.lua` does the same under the same names.

use super::Params;
use crate::model::{Outcome, RetryAfter};

/// The theoretical arrival time. Packed, so that it leaves room for the tag of a sum type in sixteen bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[repr(C, packed(4))]
pub struct State {
    /// When nothing will be missing any more, in whole microseconds …
    tat_us: u64,
    /// … and this many units, less than a microsecond's worth.
    frac: u32,
}

/// What is missing at `now_us`: worth `wait_us` microseconds and `frac` units.
fn missing(params: &Params, state: &State, now_us: u64) -> (u64, u64) {
    match state.tat_us.checked_sub(now_us) {
        // A rest that is too large for this rate was left by another.
        Some(wait_us) => (wait_us, u64::from(state.frac).min(params.unit_rate - 1)),
        None => (0, 0),
    }
}

/// See [`crate::algorithms::decide`].
#[must_use]
pub fn decide(params: &Params, state: &State, now_us: u64, hits: u64) -> Outcome {
    let (wait_us, frac) = missing(params, state, now_us);
    let cost = hits.max(1).saturating_mul(params.hit_units);
    // More can be missing than the capacity if the rule has changed or the clock went back: then nothing is left.
    let units = if wait_us > params.capacity / params.unit_rate {
        params.capacity
    } else {
        (wait_us * params.unit_rate + frac).min(params.capacity)
    };
    let left = (params.capacity - units) / params.hit_units;
    let reset_after_us = wait_us + u64::from(frac > 0);
    let Some(room) = params.capacity.checked_sub(cost) else {
        return Outcome::refused(left, RetryAfter::Never, reset_after_us);
    };
    // The hits pass while no more than `room` is missing; `frac` is less than one microsecond's units.
    let Some(most_us) = room.checked_sub(frac).map(|units| units / params.unit_rate) else {
        return Outcome::refused(left, RetryAfter::Micros(wait_us + 1), reset_after_us);
    };
    if wait_us > most_us {
        return Outcome::refused(left, RetryAfter::Micros(wait_us - most_us), reset_after_us);
    }
    if hits == 0 {
        return Outcome::admitted(left, reset_after_us);
    }
    let after = units + cost;
    let mut outcome = Outcome::admitted(
        (params.capacity - after) / params.hit_units,
        after.div_ceil(params.unit_rate),
    );
    if params.hold {
        outcome.delay_us = (after - params.hit_units).div_ceil(params.unit_rate);
    }
    outcome
}

/// See [`crate::algorithms::apply`].
pub fn apply(params: &Params, state: &mut State, now_us: u64, hits: u64) {
    let (wait_us, frac) = missing(params, state, now_us);
    let units = wait_us.saturating_mul(params.unit_rate).saturating_add(frac);
    set(
        params,
        state,
        now_us,
        units.saturating_add(hits.saturating_mul(params.hit_units)),
    );
}

/// See [`crate::algorithms::debit`].
pub fn debit(params: &Params, state: &mut State, now_us: u64, hits: u64) {
    let most = 2 * params.capacity;
    let (wait_us, frac) = missing(params, state, now_us);
    // So much is missing only if the rule has changed or the clock went back; below that all sums are exact.
    if wait_us >= most / params.unit_rate {
        return;
    }
    let room = (most - wait_us * params.unit_rate - frac) / params.hit_units;
    if room > 0 {
        apply(params, state, now_us, hits.min(room));
    }
}

/// See [`crate::algorithms::refund`].
pub fn refund(params: &Params, state: &mut State, now_us: u64, hits: u64) {
    let (wait_us, frac) = missing(params, state, now_us);
    let wait_us = wait_us.min(params.capacity / params.unit_rate);
    let units = wait_us * params.unit_rate + frac;
    set(
        params,
        state,
        now_us,
        units.saturating_sub(hits.saturating_mul(params.hit_units)),
    );
}

/// See [`crate::algorithms::return_to`]. `full_at_us` is when the bucket was to be full again once the hits were counted:
/// before that it has not been full, unless others' refunds have filled it, so the hits are still missing.
pub fn return_to(params: &Params, state: &mut State, now_us: u64, full_at_us: u64, hits: u64) {
    if now_us < full_at_us {
        refund(params, state, now_us, hits);
    }
}

fn set(params: &Params, state: &mut State, now_us: u64, units: u64) {
    if units == 0 {
        *state = State::default();
        return;
    }
    state.tat_us = now_us.saturating_add(units / params.unit_rate);
    state.frac = u32::try_from(units % params.unit_rate).unwrap_or(0);
}

/// See [`crate::algorithms::expires_us`].
#[must_use]
pub const fn expires_us(state: &State) -> u64 {
    state.tat_us + (state.frac > 0) as u64
}
