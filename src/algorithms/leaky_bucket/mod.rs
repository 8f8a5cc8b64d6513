//! Leaky bucket: smooths instead of refusing. **Admitted requests leave at least W / L apart**: one that finds
//! others before it is admitted with a delay, its turn; if that is further away than `max_delay`, it is denied.
//!
//! A request of n hits counts as n requests that leave together, when the last of them may. So at most
//! `1 + max_delay × L / W` hits wait at any time, and a request of more can never pass.
//!
//! The arithmetic is token_bucket's with a burst of one hit, plus the wait: a hit passes while no more than
//! `max_delay` would have to be waited for. Delays are rounded up to a microsecond.

use super::token_bucket;
use crate::model::Limit;

/// A limit as this algorithm counts it; `max_delay_us * unit_rate + hit_units` is below 2^52 (see
/// `algorithms::limit`).
#[must_use]
pub const fn params(limit: &Limit, max_delay_us: u64, hit_units: u64, unit_rate: u64) -> token_bucket::Params {
    let waiting = max_delay_us.saturating_mul(unit_rate);
    let capacity = if limit.hits == 0 {
        0
    } else {
        waiting.saturating_add(hit_units)
    };
    token_bucket::Params::new(capacity, hit_units, unit_rate, true)
}
