//! The step of token_bucket and leaky_bucket; `script.lua` does the same under the same names.

use super::Params;
use crate::model::{Outcome, RetryAfter};

/// Binary digits of a hit that are kept when the numbers of a limit change.
const FRACTION_BITS: u32 = 20;
/// So many hits, in the same digits, are more than any bucket holds.
const MOST: u64 = 1 << 53;
/// Set in [`State::pace`] when a debit took more than the bucket holds.
const OVERDRAWN: u32 = 1 << 31;

/// The theoretical arrival time, and the pace that it was computed with. Packed, so that it leaves room for the tag of a
/// sum type in sixteen bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[repr(C, packed)]
pub struct State {
    /// When nothing will be missing any more, in whole microseconds (below 2^53, little-endian) …
    tat_us: [u8; 7],
    /// … and this many units, less than a microsecond's worth.
    frac: u32,
    /// [`Params::pace`] of the limit that this was written under, and [`OVERDRAWN`].
    pace: u32,
}

impl State {
    const fn tat_us(&self) -> u64 {
        let [a, b, c, d, e, f, g] = self.tat_us;
        u64::from_le_bytes([a, b, c, d, e, f, g, 0])
    }
}

/// What is missing at `now_us`: worth `wait_us` microseconds and `frac` units.
fn missing(params: &Params, state: &State, now_us: u64) -> (u64, u64) {
    match state.tat_us().checked_sub(now_us) {
        // Two limits of one pace may count in different units.
        Some(wait_us) => (wait_us, u64::from(state.frac).min(params.unit_rate - 1)),
        None => (0, 0),
    }
}

/// See [`crate::algorithms::adopt`]: what is missing, in hits, carries over to a limit's new numbers, but never more than
/// the bucket now holds (twice that after a debit under the same rate).
pub fn adopt(params: &Params, state: &mut State, now_us: u64) -> bool {
    // A ban holds nothing: the state waits for the next limit.
    if expires_us(state) <= now_us || params.capacity == 0 {
        return false;
    }
    let pace = state.pace & !OVERDRAWN;
    if pace != params.pace {
        let hits = hits_in(expires_us(state) - now_us, pace);
        set(params, state, now_us, units_of(params, hits));
        return true;
    }
    let (wait_us, frac) = missing(params, state, now_us);
    let is_overdrawn = state.pace & OVERDRAWN > 0;
    let most = if is_overdrawn {
        2 * params.capacity
    } else {
        params.capacity
    };
    let is_over = wait_us > most / params.unit_rate || wait_us * params.unit_rate + frac > most;
    if is_over {
        set(params, state, now_us, most);
    }
    is_over
}

/// The hits that this time is worth, rounded up, with [`FRACTION_BITS`] binary digits; [`MOST`] if they are more. By long
/// division, so that every number is an exact double.
fn hits_in(wait_us: u64, pace: u32) -> u64 {
    let (mantissa, exponent) = Params::pace_parts(pace);
    let (mut hits, mut rest) = (wait_us / mantissa, wait_us % mantissa);
    let digits = i64::from(FRACTION_BITS) - exponent;
    for _ in 0..digits {
        (hits, rest) = (hits * 2, rest * 2);
        if rest >= mantissa {
            (hits, rest) = (hits + 1, rest - mantissa);
        }
        if hits >= MOST {
            return MOST;
        }
    }
    for _ in digits..0 {
        rest += hits % 2;
        hits /= 2;
    }
    hits + u64::from(rest > 0)
}

/// The units of so many hits (see [`hits_in`]), rounded up; no more than the bucket holds.
fn units_of(params: &Params, hits: u64) -> u64 {
    let one = 1 << FRACTION_BITS;
    let (whole, part) = (hits / one, hits % one);
    if whole > params.capacity / params.hit_units {
        return params.capacity;
    }
    // In two parts, so that every product is an exact double.
    let (high, low) = (params.hit_units / one, params.hit_units % one);
    let units = whole * params.hit_units + part * high + (part * low).div_ceil(one);
    units.min(params.capacity)
}

/// The state under these numbers.
fn adopted(params: &Params, state: &State, now_us: u64) -> State {
    let mut state = *state;
    adopt(params, &mut state, now_us);
    state
}

/// See [`crate::algorithms::is_foreign`].
#[must_use]
pub fn is_foreign(params: &Params, state: &State, now_us: u64) -> bool {
    adopted(params, state, now_us) != *state
}

/// See [`crate::algorithms::decide`].
#[must_use]
pub fn decide(params: &Params, state: &State, now_us: u64, hits: u64) -> Outcome {
    let (wait_us, frac) = missing(params, &adopted(params, state, now_us), now_us);
    let cost = hits.max(1).saturating_mul(params.hit_units);
    // More can be missing than the capacity after a debit: then nothing is left.
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
    let units = missing_units(params, state, now_us);
    let cost = hits.saturating_mul(params.hit_units);
    set(params, state, now_us, units.saturating_add(cost));
}

/// See [`crate::algorithms::debit`].
pub fn debit(params: &Params, state: &mut State, now_us: u64, hits: u64) {
    let room = (2 * params.capacity).saturating_sub(missing_units(params, state, now_us)) / params.hit_units;
    if room > 0 && params.capacity > 0 {
        apply(params, state, now_us, hits.min(room));
    }
}

/// See [`crate::algorithms::refund`].
pub fn refund(params: &Params, state: &mut State, now_us: u64, hits: u64) {
    if params.capacity == 0 {
        return;
    }
    let units = missing_units(params, state, now_us).min(params.capacity);
    let cost = hits.saturating_mul(params.hit_units);
    set(params, state, now_us, units.saturating_sub(cost));
}

/// See [`crate::algorithms::return_to`]. `full_at_us` is when the bucket was to be full again once the hits were counted:
/// before that it has not been full, unless others' refunds have filled it, so the hits are still missing.
pub fn return_to(params: &Params, state: &mut State, now_us: u64, full_at_us: u64, hits: u64) {
    if now_us < full_at_us {
        refund(params, state, now_us, hits);
    }
}

/// Brings the state to these numbers; the units that are missing then, no more than twice the capacity.
fn missing_units(params: &Params, state: &mut State, now_us: u64) -> u64 {
    adopt(params, state, now_us);
    let (wait_us, frac) = missing(params, state, now_us);
    wait_us.saturating_mul(params.unit_rate).saturating_add(frac)
}

fn set(params: &Params, state: &mut State, now_us: u64, units: u64) {
    if units == 0 {
        *state = State::default();
        return;
    }
    let [a, b, c, d, e, f, g, _] = now_us.saturating_add(units / params.unit_rate).to_le_bytes();
    let overdrawn = if units > params.capacity { OVERDRAWN } else { 0 };
    *state = State {
        tat_us: [a, b, c, d, e, f, g],
        frac: u32::try_from(units % params.unit_rate).unwrap_or(0),
        pace: params.pace | overdrawn,
    };
}

/// See [`crate::algorithms::expires_us`].
#[must_use]
pub const fn expires_us(state: &State) -> u64 {
    state.tat_us() + (state.frac > 0) as u64
}
