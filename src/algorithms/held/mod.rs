//! Holds, beside any of the other algorithms: hits whose number is known only when the request is done (tokens of a model's
//! answer, bytes) are kept as a hold until then, and counted when the hold is settled. So of many requests at the same time only
//! as many pass as fit: **used and held hits together stay within the limit.**
//!
//! A counter with holds has three parts: the counter itself, which has only used hits; the sum of its open holds, as counts of
//! slices (sliding_window's, with W = ttl); and a record of each hold (its slice and the hits that it keeps) until its slice
//! ends. `script.lua` describes their format in Redis. A settlement takes the hold out of exactly its slice, and its record stays
//! as settled, so that a repeated settlement does nothing; that of an unknown id leaves such a record, too, since its
//! hold may be on its way. A hold that is not settled expires with its slice, `ttl` to `ttl × (1 + 1/32)` after it was made, without
//! any clean-up.
//!
//! A settled hold's hits are counted in full, over the limit if need be; while holds are upper bounds, they always fit.
//!
//! Callers that cannot carry an id hold the mean cost of requests (`adaptive`): the ring then counts holds, each of which keeps the
//! mean that the newest check brings, and a settlement ends the oldest.
//!
//! In the answers of a counter with holds, `remaining` is the hits that are neither used nor held; `retry_after` and `reset_after`
//! follow from the used hits, except that `retry_after` is [`RETRY_US`] for a denial that only holds cause.

mod step;

use super::sliding_window;
use crate::model::Limit;
use crate::model::time::SECOND_US;

pub use step::{
    State, decide, expires_us, force_hold, has_expired, hold, hold_mean, is_open, judge, judge_mean, open, release,
    settle, settle_oldest, stands, take_expired,
};

/// Slices of a ttl.
pub const SLICES: u64 = 32;

/// `retry_after` of a denial that only holds cause, in microseconds: any of them may be settled at any time.
pub const RETRY_US: u64 = SECOND_US;

/// The parameters of the sum of a limit's holds. Its `hits` are more than any limit's, so it denies nothing.
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
