//! Token bucket: a rate of L / W and a `burst` (default L): **never more than `burst + rate × T` hits in any T.**
//!
//! One time and the pace it was computed with are remembered (GCRA, as in ITU-T I.371): when the bucket will be full again, the theoretical
//! arrival time. What is missing from the bucket follows from it, so nobody has to refill anything. Hits pass if
//! what is missing stays within the burst.
//!
//! Exact in integers: a hit costs `hit_units`, a microsecond brings back `unit_rate` units, and their quotient is
//! W / L. The time is kept as whole microseconds and a rest in units.
//!
//! When a limit's numbers change (`requests_per_unit`, `burst`, `max_delay`, a request's override), what is missing **in
//! hits** carries over: with the time stands the pace that it was computed with, and the first check under the new numbers
//! writes the state anew. Never more carries over than the bucket then holds.
//! leaky_bucket uses the same step.

mod step;

pub use step::{State, adopt, apply, debit, decide, expires_us, is_foreign, refund, return_to};

/// A limit as this algorithm counts it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Params {
    /// Units that may be missing at most; below 2^52.
    pub capacity: u64,
    /// Units of one hit; at least 1.
    pub hit_units: u64,
    /// Units that a microsecond brings back; at least 1.
    pub unit_rate: u64,
    /// The time of a hit, W / L, as a number to know it by and to convert with: see [`Self::pace_parts`].
    pub pace: u32,
    /// Admitted requests are held back until what they ask for is there (leaky bucket).
    pub hold: bool,
}

/// Binary digits of a pace's mantissa.
const PACE_BITS: u32 = 24;
/// Stands for the exponent 0, which lies between -55 and 29.
const PACE_BIAS: u32 = 64;

impl Params {
    /// `capacity` is at most 2^52, and so is `hit_units` (see `algorithms::limit`).
    #[must_use]
    pub const fn new(capacity: u64, hit_units: u64, unit_rate: u64, hold: bool) -> Self {
        Self {
            capacity,
            hit_units,
            unit_rate,
            pace: pace(hit_units, unit_rate),
            hold,
        }
    }

    /// Mantissa (24 binary digits) and exponent of the microseconds that a hit costs, rounded down: at most one part in
    /// eight million.
    #[must_use]
    pub const fn pace_parts(pace: u32) -> (u64, i64) {
        let mantissa = (pace % (1 << PACE_BITS)) as u64;
        // A state that nobody has written has no pace.
        let mantissa = if mantissa == 0 { 1 } else { mantissa };
        (mantissa, (pace >> PACE_BITS) as i64 - PACE_BIAS as i64)
    }
}

const fn pace(hit_units: u64, unit_rate: u64) -> u32 {
    let hit_units = if hit_units == 0 { 1 } else { hit_units };
    let unit_rate = if unit_rate == 0 { 1 } else { unit_rate };
    // The quotient has `PACE_BITS` digits or one more.
    let shift = PACE_BITS as i32 + hit_units.leading_zeros() as i32 - unit_rate.leading_zeros() as i32;
    let mut quotient = if shift >= 0 {
        (((hit_units as u128) << shift) / unit_rate as u128) as u64
    } else {
        (hit_units >> -shift) / unit_rate
    };
    let mut exponent = -shift;
    if quotient >= 1 << PACE_BITS {
        quotient /= 2;
        exponent += 1;
    }
    // Both are within their bounds: 24 digits, and an exponent that the bias makes positive.
    quotient as u32 | ((exponent + PACE_BIAS as i32) as u32) << PACE_BITS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pace_is_the_time_of_a_hit() {
        for (hit_units, unit_rate) in [
            (1, 1),
            (600_000, 1),
            (60_000_000, 7),
            (1, 4_294_967_295),
            (1 << 52, 1),
            (31, 30),
        ] {
            let (mantissa, exponent) = Params::pace_parts(pace(hit_units, unit_rate));
            assert!(
                (1 << 23..1 << 24).contains(&mantissa),
                "{hit_units}/{unit_rate}: {mantissa}"
            );
            // mantissa * 2^exponent <= hit_units / unit_rate < (mantissa + 1) * 2^exponent
            let scaled = |mantissa: u64| match exponent {
                0.. => (u128::from(mantissa) << exponent) * u128::from(unit_rate),
                _ => u128::from(mantissa) * u128::from(unit_rate),
            };
            let hit = u128::from(hit_units) << exponent.min(0).unsigned_abs();
            assert!(
                scaled(mantissa) <= hit && hit < scaled(mantissa + 1),
                "{hit_units}/{unit_rate}"
            );
        }
    }
}
