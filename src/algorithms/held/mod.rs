//! Holds, beside any of the other algorithms: hits whose real number is known only when the request is done (tokens of a
//! model's answer, bytes) are kept as a hold until then, and counted when the hold is settled. So of many requests at the
//! same time only as many pass as fit: **what is used and what is held stay within the limit together.**
//!
//! A counter with holds is three things: the counter itself, which knows only what is used; the sum of its open holds, as
//! counts of slices (sliding_window's, with W = ttl); and a record of each hold (its slice and what it keeps) until its
//! slice ends. `script.lua` says how Redis keeps them. A settled hold leaves exactly its slice, and its record stays behind as settled, so that a repeat does
//! nothing. A hold that nobody settles leaves with its slice, `ttl` to `ttl × (1 + 1/32)` after it was made: nobody has to
//! look for it, whoever made it.
//!
//! A settled hold's hits are counted in full, over the limit if need be; while holds are upper bounds, they always fit.
//!
//! Callers that cannot carry an id hold what requests have cost on average (`adaptive`): the ring then counts such holds, each
//! is worth the mean that the newest check brings, and a settlement ends the oldest.
//!
//! What an answer says of a counter with holds: `remaining` is what is neither used nor held, `retry_after` and
//! `reset_after` are told by what is used, except that `retry_after` is [`RETRY_US`] where only holds stand in the way.

mod step;

use super::sliding_window;
use crate::model::Limit;
use crate::model::time::SECOND_US;

pub use step::{
    State, decide, expires_us, has_expired, hold, hold_mean, judge, judge_mean, open, release, settle, settle_oldest,
    stands, take_expired,
};

/// Slices of a ttl.
pub const SLICES: u64 = 32;

/// When to come again where only holds stand in the way, in microseconds: any of them may be settled at any time.
pub const RETRY_US: u64 = SECOND_US;

/// How a limit's holds are summed up. They are fewer than any limit, so nothing is denied by the number of `hits`.
#[must_use]
pub const fn params(limit: &Limit) -> sliding_window::Params {
    let slice_us = limit.hold_us.div_ceil(SLICES);
    sliding_window::Params {
        hits: u32::MAX as u64,
        slice_us: if slice_us == 0 { 1 } else { slice_us },
        slices: SLICES,
    }
}

/// The limit of the counter itself.
#[must_use]
pub const fn plain(limit: &Limit) -> Limit {
    Limit { hold_us: 0, ..*limit }
}
