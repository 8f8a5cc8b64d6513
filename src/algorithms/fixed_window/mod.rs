//! Fixed window, for compatibility: hits are counted in windows aligned to the epoch, and the count starts over with
//! each. Up to L in each such window; **the worst window that straddles two of them admits 2 L.**

mod step;

use crate::model::Limit;
use crate::model::time::SECOND_US;

pub use step::{State, adopt, apply, decide, expires_us, is_foreign, refund, return_to};

/// The largest prime below 2^24.
const MARKS: u64 = 16_777_213;

/// A limit as this algorithm counts it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Params {
    /// L.
    pub hits: u64,
    /// W in microseconds; at least 1.
    pub window_us: u64,
}

impl Params {
    /// The parameters of `limit`.
    #[must_use]
    pub const fn new(limit: &Limit) -> Self {
        let window_us = if limit.window_us == 0 { 1 } else { limit.window_us };
        Self {
            hits: limit.hits,
            window_us,
        }
    }

    /// Tells windows of different lengths apart: the seconds of up to 194 days, and their rest above.
    const fn mark(&self) -> u32 {
        (self.window_us / SECOND_US % MARKS) as u32
    }
}
