//! Slices: hits leave a window when the slice is over that they were counted in, no sooner and no later. So the end of a run
//! is looked at from every later moment until nothing is left.

use sluicegate::algorithms::quota;
use sluicegate::model::{Algorithm, CounterKey};

use super::Counter;
use super::seen::signed;
use crate::server::Server;

/// Windows that are shorter may have begun to empty before the end.
const MIN_WINDOW_US: u64 = 15_000_000;
/// Slices that are longer are not worth it: a run has few of them.
const MAX_SLICE_US: u64 = 1_000_000;

/// `dropped`: corrections that give back were, so that more may be counted.
pub(super) fn check(
    key: &CounterKey,
    counter: &Counter,
    server: &Server,
    now_ms: u64,
    dropped: bool,
) -> Result<(), String> {
    let limit = &counter.limit;
    let Algorithm::SlidingWindow { precision } = limit.algorithm else {
        return Ok(());
    };
    let slices = u64::from(precision);
    let slice_us = limit.window_us.div_ceil(slices);
    let is_worth_it = limit.window_us >= MIN_WINDOW_US && slice_us <= MAX_SLICE_US;
    // A lease knows its slice's end by the clock that was.
    if !is_worth_it || !server.is_steady() || counter.local || !counter.resets.is_empty() {
        return Ok(());
    }
    let most = signed(quota(limit));
    let first = server.time_us(now_ms) / slice_us;
    for slice in first..=first + slices + 1 {
        let counts = |at_us: u64| at_us / slice_us + slices >= slice;
        let (mut least, mut largest) = (-counter.fewer, if dropped { most } else { counter.more });
        for admitted in &counter.admitted {
            least += if counts(admitted.from_us) {
                signed(admitted.hits)
            } else {
                0
            };
            largest += if counts(admitted.to_us) {
                signed(admitted.hits)
            } else {
                0
            };
        }
        let (used, _) = server.look_at(slice * slice_us, key, limit);
        let used = signed(used);
        if used < least.clamp(0, most) || used > largest.clamp(0, most) {
            return Err(format!(
                "{key}: {used} hits are counted {} slices after the end, {least} to {largest} must be",
                slice - first
            ));
        }
    }
    Ok(())
}
