//! Sliding log: exact. Each admitted request's time is kept; hits pass if those of `(t - W, t]` and they stay within
//! L. No window has more than L, and nothing is denied that an exact count would admit.
//!
//! The price is memory: an entry for each admitted request (not for each hit), so `algorithms::limit` refuses more
//! than 100,000 hits in a window. Entries carry the running total of all hits, so the sum over a window is the
//! difference of two of them, found by bisection.
//!
//! A refund takes the oldest hits that still count. A return takes those of one microsecond, and moves the totals of all
//! entries after it: where there are more than [`MOST_MOVED`] of them, the hits stay counted.

mod step;

use crate::model::Limit;

pub use step::{MOST_MOVED, State, apply, debit, decide, expires_us, refund, return_to};

/// A limit as this algorithm counts it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Params {
    /// L.
    pub hits: u64,
    /// W in microseconds.
    pub window_us: u64,
}

impl Params {
    /// The parameters of `limit`.
    #[must_use]
    pub const fn new(limit: &Limit) -> Self {
        Self {
            hits: limit.hits,
            window_us: limit.window_us,
        }
    }
}
