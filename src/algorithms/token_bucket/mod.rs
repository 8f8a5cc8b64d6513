//! Token bucket: a rate of L / W and a `burst` (default L): **never more than `burst + rate × T` hits in any T.**
//!
//! One time is all that is remembered (GCRA, as in ITU-T I.371): when the bucket will be full again, the theoretical
//! arrival time. What is missing from the bucket follows from it, so nobody has to refill anything. Hits pass if
//! what is missing stays within the burst.
//!
//! Exact in integers: a hit costs `hit_units`, a microsecond brings back `unit_rate` units, and their quotient is
//! W / L. The time is kept as whole microseconds and a rest in units.
//!
//! A rule whose numbers change keeps its counters: what was missing takes as long to come back as it would have under
//! the old ones.
//! leaky_bucket uses the same step.

mod step;

pub use step::{State, apply, debit, decide, expires_us, refund, return_to};

/// A limit as this algorithm counts it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Params {
    /// Units that may be missing at most; below 2^52.
    pub capacity: u64,
    /// Units of one hit; at least 1.
    pub hit_units: u64,
    /// Units that a microsecond brings back; at least 1.
    pub unit_rate: u64,
    /// Admitted requests are held back until what they ask for is there (leaky bucket).
    pub hold: bool,
}

impl Params {
    /// `burst * hit_units` is below 2^52 (see `algorithms::limit`).
    #[must_use]
    pub const fn new(burst: u64, hit_units: u64, unit_rate: u64) -> Self {
        Self {
            capacity: burst.saturating_mul(hit_units),
            hit_units,
            unit_rate,
            hold: false,
        }
    }
}
