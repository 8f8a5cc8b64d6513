//! How long leases and their holds last.

use crate::algorithms::quota;
use crate::model::time::SECOND_US;
use crate::model::{Algorithm, Limit};

/// Envoy reports this often, whatever its configuration says, in microseconds.
pub const REPORT_US: u64 = 5 * SECOND_US;
/// What a lease may take on its way to Envoy, and Envoy to notice its end, in microseconds.
pub const MARGIN_US: u64 = SECOND_US / 2;
/// An assignment that was sent so long before a report came is in force for certain, in microseconds.
pub const PROVEN_US: u64 = 2 * SECOND_US;
/// A stream without a report for this long is late: its Envoy may have stopped, and go on with what it had.
pub const LATE_US: u64 = REPORT_US + SECOND_US;
/// Shortest ttl, in seconds: Envoy cuts fractions off.
pub const SHORT_TTL_S: u64 = 1;
/// A short lease is replaced so long after it was sent, in microseconds: often, so that little is counted for longer than it
/// was used.
pub const SHORT_RENEWED_US: u64 = SECOND_US * 55 / 100;
const _: () = assert!(
    SHORT_RENEWED_US > MARGIN_US,
    "when it is replaced, the one before it is over"
);
/// Ttl of a lease that lasts to the next report, in seconds.
pub const REPORT_TTL_S: u64 = 8;
/// Slices of a sliding window where a rule does not say: a limit that is used up is leased again slice by slice.
pub const PRECISION: u32 = 128;

/// Longest ttl of a lease on this limit, in seconds. Longer ones cost less traffic, and keep more of the limit from others
/// where an Envoy goes away with one.
#[must_use]
pub const fn longest_ttl_s(limit: &Limit) -> u64 {
    let half_s = limit.window_us / (2 * SECOND_US);
    if half_s < 10 {
        10
    } else if half_s > 300 {
        300
    } else {
        half_s
    }
}

/// When a lease that is sent now is certainly over, in microseconds from now.
#[must_use]
pub const fn life_us(ttl_s: u64) -> u64 {
    ttl_s.saturating_mul(SECOND_US).saturating_add(MARGIN_US)
}

/// The limit with holds that outlast the longest lease by a whole window (for a bucket, by the time in which it is filled
/// anew); `None` where it cannot be leased: hits of `leaky_bucket` wait for their turn, permits of `concurrency` are
/// released, and holds of requests are of hits that are not known yet.
#[must_use]
pub fn leased(limit: &Limit) -> Option<Limit> {
    let can = !matches!(limit.algorithm, Algorithm::LeakyBucket { .. } | Algorithm::Concurrency);
    if !can || limit.hold_us > 0 {
        return None;
    }
    let windows = quota(limit).div_ceil(limit.hits.max(1)).max(1);
    let window_us = match limit.algorithm {
        Algorithm::CalendarWindow(calendar) => calendar.longest_us(),
        _ => limit.window_us,
    };
    let counts_us = window_us.saturating_mul(windows);
    // A late stream is noticed, and its holds are renewed, within another second.
    let lease_us = life_us(longest_ttl_s(limit)) + LATE_US;
    Some(Limit {
        hold_us: counts_us.saturating_add(lease_us),
        settles_once: true,
        ..*limit
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::algorithms::limit::{LimitSpec, build};
    use crate::model::calendar::CALENDAR_UNITS;
    use crate::model::{AlgorithmKind, Unit, Window, Zone};

    #[test]
    fn a_hold_outlasts_its_lease_by_a_window() {
        for kind in AlgorithmKind::ALL {
            for unit in [Unit::Second, Unit::Minute, Unit::Hour, Unit::Year] {
                let limit = build(&LimitSpec::new(kind, 10, Window::of(unit))).unwrap();
                let Some(leased) = leased(&limit) else {
                    assert!(matches!(kind, AlgorithmKind::LeakyBucket | AlgorithmKind::Concurrency));
                    continue;
                };
                assert!(leased.hold_us >= limit.window_us + life_us(longest_ttl_s(&limit)));
                assert_eq!(super::leased(&leased), None, "a limit that has holds already");
            }
        }
    }

    #[test]
    fn a_hold_outlasts_its_lease_by_the_longest_window_of_a_calendar() {
        for unit in CALENDAR_UNITS {
            let window = Window {
                zone: Zone::named("Europe/Berlin"),
                ..Window::of(unit)
            };
            let limit = build(&LimitSpec::new(AlgorithmKind::FixedWindow, 10, window)).unwrap();
            let longest_us = window.calendar().unwrap().longest_us();
            assert!(longest_us > limit.window_us);
            assert!(leased(&limit).unwrap().hold_us >= longest_us + life_us(longest_ttl_s(&limit)));
        }
    }
}
