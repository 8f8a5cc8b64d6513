//! The only constructor of [`Limit`]: every bound is checked here, so that no product in any step passes
//! [`MAX_UNITS`], in Rust or in Lua (whose numbers are doubles).

mod error;

pub use error::LimitError;

use crate::model::limit::Algorithm;
use crate::model::time::SECOND_US;
use crate::model::{AlgorithmKind, Limit, Window};

/// Most hits in a window; what a rules file can say (`uint32`).
pub const MAX_HITS: u64 = u32::MAX as u64;
/// Longest window (or concurrency slot) in seconds: ten years of 365 days.
pub const MAX_WINDOW_SECONDS: u64 = 10 * 365 * 86_400;
/// Slices of a sliding window when a rule names no `precision`.
pub const DEFAULT_PRECISION: u32 = 32;
/// Most slices of a sliding window: each costs four bytes a key.
pub const MAX_PRECISION: u32 = 1000;
const _: () = assert!(MAX_PRECISION < 1 << super::sliding_window::SLICES_BITS);
/// Most hits of a sliding log: it keeps an entry for each request.
pub const MAX_LOG_HITS: u64 = 100_000;
/// How long a leaky bucket holds a request back at most when a rule names no `max_delay`, in microseconds.
pub const DEFAULT_MAX_DELAY_US: u64 = SECOND_US;
/// Longest `max_delay`, in microseconds: a held request keeps a stream open.
pub const MAX_MAX_DELAY_US: u64 = 60 * SECOND_US;
/// No bucket holds more units than this, so that the sum of two is still an exact double.
pub const MAX_UNITS: u64 = 1 << 52;

/// A limit as a rule or a request has it, before it is checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LimitSpec {
    /// Which algorithm counts.
    pub algorithm: AlgorithmKind,
    /// Hits in a window; 0 bans.
    pub hits: u64,
    /// The window; for `concurrency` the time after which a slot whose release was lost frees itself.
    pub window: Window,
    /// Token bucket only: hits that may come at once; default `hits`.
    pub burst: Option<u64>,
    /// Sliding window only: slices in a window; default [`DEFAULT_PRECISION`].
    pub precision: Option<u32>,
    /// Leaky bucket only: longest wait in microseconds; default [`DEFAULT_MAX_DELAY_US`].
    pub max_delay_us: Option<u64>,
    /// Hits are held until they are settled, at most for this many microseconds, and at most for a window.
    pub hold_us: Option<u64>,
    /// Holds have no ids, and keep a mean cost.
    pub holds_mean: bool,
}

impl LimitSpec {
    /// A limit that leaves everything else at its default.
    #[must_use]
    pub const fn new(algorithm: AlgorithmKind, hits: u64, window: Window) -> Self {
        Self {
            algorithm,
            hits,
            window,
            burst: None,
            precision: None,
            max_delay_us: None,
            hold_us: None,
            holds_mean: false,
        }
    }
}

/// Checks a limit and fills in its defaults.
///
/// # Errors
/// [`LimitError`] says what is wrong and how to fix it.
pub fn build(spec: &LimitSpec) -> Result<Limit, LimitError> {
    if spec.hits > MAX_HITS {
        return Err(LimitError::Hits(spec.hits));
    }
    match spec.window.seconds() {
        0 => return Err(LimitError::WindowEmpty),
        1..=MAX_WINDOW_SECONDS => {}
        _ => return Err(LimitError::WindowTooLong(spec.window)),
    }
    if spec.window.zone.is_some() && spec.algorithm != AlgorithmKind::FixedWindow {
        return Err(LimitError::Calendar(spec.algorithm));
    }
    refuse_foreign(spec)?;
    match spec.hold_us {
        Some(_) if !spec.algorithm.can_hold() => return Err(LimitError::Hold(spec.algorithm)),
        Some(0) => return Err(LimitError::HoldEmpty),
        _ => {}
    }
    Ok(Limit {
        hits: spec.hits,
        window_us: spec.window.micros(),
        algorithm: match spec.algorithm {
            AlgorithmKind::SlidingWindow => sliding_window(spec)?,
            AlgorithmKind::SlidingLog if spec.hits > MAX_LOG_HITS => {
                return Err(LimitError::LogHits(spec.hits));
            }
            AlgorithmKind::SlidingLog => Algorithm::SlidingLog,
            AlgorithmKind::TokenBucket => token_bucket(spec)?,
            AlgorithmKind::LeakyBucket => leaky_bucket(spec)?,
            AlgorithmKind::FixedWindow => spec
                .window
                .calendar()
                .map_or(Algorithm::FixedWindow, Algorithm::CalendarWindow),
            AlgorithmKind::Concurrency => Algorithm::Concurrency,
        },
        hold_us: spec.hold_us.unwrap_or(0).min(spec.window.micros()),
        holds_mean: spec.holds_mean,
        settles_once: false,
    })
}

/// Refuses settings of other algorithms, which would have no effect.
fn refuse_foreign(spec: &LimitSpec) -> Result<(), LimitError> {
    let settings = [
        ("burst", spec.burst.is_some(), AlgorithmKind::TokenBucket),
        ("precision", spec.precision.is_some(), AlgorithmKind::SlidingWindow),
        ("max_delay", spec.max_delay_us.is_some(), AlgorithmKind::LeakyBucket),
    ];
    for (setting, given, owner) in settings {
        if given && spec.algorithm != owner {
            return Err(LimitError::NotForThis {
                setting,
                algorithm: spec.algorithm,
                owner,
            });
        }
    }
    Ok(())
}

fn sliding_window(spec: &LimitSpec) -> Result<Algorithm, LimitError> {
    let precision = spec.precision.unwrap_or(DEFAULT_PRECISION);
    if !(1..=MAX_PRECISION).contains(&precision) {
        return Err(LimitError::Precision(precision));
    }
    Ok(Algorithm::SlidingWindow { precision })
}

fn token_bucket(spec: &LimitSpec) -> Result<Algorithm, LimitError> {
    let burst = match spec.burst {
        Some(0) => return Err(LimitError::BurstEmpty),
        Some(burst) if spec.hits == 0 => return Err(LimitError::BurstOfBan(burst)),
        Some(burst) => burst,
        None => spec.hits,
    };
    let too_large = LimitError::BurstTooLarge {
        burst,
        hits: spec.hits,
        window: spec.window,
    };
    if burst > MAX_HITS {
        return Err(too_large);
    }
    let (hit_units, unit_rate) =
        rate(spec, |hit_units, _| burst.saturating_mul(hit_units) <= MAX_UNITS).ok_or(too_large)?;
    Ok(Algorithm::TokenBucket {
        burst,
        hit_units,
        unit_rate,
    })
}

fn leaky_bucket(spec: &LimitSpec) -> Result<Algorithm, LimitError> {
    let max_delay_us = spec.max_delay_us.unwrap_or(DEFAULT_MAX_DELAY_US);
    if max_delay_us > MAX_MAX_DELAY_US {
        return Err(LimitError::MaxDelay(max_delay_us));
    }
    let (hit_units, unit_rate) = rate(spec, |hit_units, unit_rate| {
        max_delay_us.saturating_mul(unit_rate).saturating_add(hit_units) <= MAX_UNITS
    })
    .ok_or(LimitError::Rate {
        hits: spec.hits,
        window: spec.window,
    })?;
    Ok(Algorithm::LeakyBucket {
        max_delay_us,
        hit_units,
        unit_rate,
    })
}

/// `(hit_units, unit_rate)`: their quotient is the time that one hit costs, W / L microseconds.
///
/// Exact where that fits the bucket; else the finest binary fraction of a microsecond that does, rounded up, so that
/// the rate is never above the one asked for, and at most 0.1 % below it.
fn rate(spec: &LimitSpec, fits: impl Fn(u64, u64) -> bool) -> Option<(u64, u64)> {
    let (hits, window_us) = (spec.hits, spec.window.micros());
    if hits == 0 {
        return Some((1, 1));
    }
    let common = gcd(window_us, hits);
    let exact = (window_us / common, hits / common);
    if fits(exact.0, exact.1) {
        return Some(exact);
    }
    (0..32).rev().find_map(|shift| {
        let unit_rate = 1_u64 << shift;
        let window_units = u128::from(window_us) << shift;
        let hit_units = u64::try_from(window_units.div_ceil(u128::from(hits))).ok()?;
        let lost = u128::from(hit_units) * u128::from(hits) - window_units;
        (fits(hit_units, unit_rate) && lost * 1000 < window_units).then_some((hit_units, unit_rate))
    })
}

const fn gcd(mut a: u64, mut b: u64) -> u64 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

/// Microseconds after which hits counted now certainly count no longer: a window that slides looks back over less than
/// two, and a bucket refills as often as its quota is larger than what flows in during one.
#[must_use]
pub fn horizon_us(limit: &Limit) -> u64 {
    let windows = super::quota(limit).div_ceil(limit.hits.max(1)).max(1);
    limit.window_us.saturating_mul(windows).saturating_mul(2)
}

/// A replica's part of a limit, while `replicas` of them enforce it separately because the shared store is away. Together they
/// admit no more than the limit, except that each part of a limit that admits any hits has at least 1.
#[must_use]
pub fn share(limit: &Limit, replicas: u32) -> Limit {
    let replicas = u64::from(replicas.max(1));
    let part = |hits: u64| if hits == 0 { 0 } else { (hits / replicas).max(1) };
    // A bucket's rate falls with the number of replicas: a hit costs as many times more.
    let cost = |hit_units: u64| hit_units.saturating_mul(replicas).min(MAX_UNITS);
    let algorithm = match limit.algorithm {
        Algorithm::TokenBucket {
            burst,
            hit_units,
            unit_rate,
        } => Algorithm::TokenBucket {
            burst: part(burst),
            hit_units: cost(hit_units),
            unit_rate,
        },
        Algorithm::LeakyBucket {
            max_delay_us,
            hit_units,
            unit_rate,
        } => Algorithm::LeakyBucket {
            max_delay_us,
            hit_units: cost(hit_units),
            unit_rate,
        },
        other => other,
    };
    Limit {
        hits: part(limit.hits),
        algorithm,
        ..*limit
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Unit;

    fn spec(algorithm: AlgorithmKind, hits: u64, window: Window) -> LimitSpec {
        LimitSpec::new(algorithm, hits, window)
    }

    fn seconds(multiplier: u32) -> Window {
        Window::times(Unit::Second, multiplier)
    }

    #[test]
    fn rates_are_exact_where_they_fit() {
        let limit = build(&spec(AlgorithmKind::TokenBucket, 7, seconds(60))).unwrap();
        let expected = Algorithm::TokenBucket {
            burst: 7,
            hit_units: 60_000_000,
            unit_rate: 7,
        };
        assert_eq!(limit.algorithm, expected);
        let limit = build(&spec(AlgorithmKind::LeakyBucket, 100, seconds(1))).unwrap();
        let expected = Algorithm::LeakyBucket {
            max_delay_us: SECOND_US,
            hit_units: 10_000,
            unit_rate: 1,
        };
        assert_eq!(limit.algorithm, expected);
    }

    /// A prime number of hits in a long window passes the exact arithmetic: the rate is rounded down, hardly.
    #[test]
    fn rates_that_do_not_fit_lose_less_than_a_thousandth() {
        let prime = 4_294_967_291;
        let day = Window::of(Unit::Day);
        for kind in [AlgorithmKind::TokenBucket, AlgorithmKind::LeakyBucket] {
            let (hit_units, unit_rate) = match build(&spec(kind, prime, day)).unwrap().algorithm {
                Algorithm::TokenBucket {
                    burst,
                    hit_units,
                    unit_rate,
                } => {
                    assert!(burst * hit_units <= MAX_UNITS);
                    (hit_units, unit_rate)
                }
                Algorithm::LeakyBucket {
                    max_delay_us,
                    hit_units,
                    unit_rate,
                } => {
                    assert!(max_delay_us * unit_rate + hit_units <= MAX_UNITS);
                    (hit_units, unit_rate)
                }
                other => panic!("{other:?}"),
            };
            let window_units = u128::from(day.micros()) * u128::from(unit_rate);
            let spent = u128::from(hit_units) * u128::from(prime);
            assert!(spent >= window_units, "faster than asked for");
            assert!((spent - window_units) * 1000 < window_units, "lost more than 0.1 %");
        }
    }

    #[test]
    fn bans_are_limits_for_every_algorithm() {
        for kind in AlgorithmKind::ALL {
            assert_eq!(build(&spec(kind, 0, seconds(1))).unwrap().hits, 0, "{kind}");
        }
    }

    #[test]
    fn every_bound_says_how_to_fix_it() {
        use AlgorithmKind::{LeakyBucket, SlidingLog, SlidingWindow, TokenBucket};
        type Change = fn(&mut LimitSpec);
        let cases: [(AlgorithmKind, Change, &str); 14] = [
            (SlidingWindow, |spec| spec.hits = MAX_HITS + 1, "unlimited: true"),
            (SlidingWindow, |spec| spec.window = seconds(0), "at least 1 second"),
            (SlidingWindow, |spec| spec.window.multiplier = u32::MAX, "10 years"),
            (SlidingWindow, |spec| spec.precision = Some(0), "1 to 1000"),
            (SlidingWindow, |spec| spec.precision = Some(1001), "1 to 1000"),
            (
                TokenBucket,
                |spec| spec.precision = Some(8),
                "algorithm: sliding_window",
            ),
            (SlidingWindow, |spec| spec.burst = Some(8), "algorithm: token_bucket"),
            (
                TokenBucket,
                |spec| spec.max_delay_us = Some(8),
                "algorithm: leaky_bucket",
            ),
            (
                LeakyBucket,
                |spec| spec.max_delay_us = Some(61 * SECOND_US),
                "longest is 60 s",
            ),
            (SlidingLog, |spec| spec.hits = MAX_LOG_HITS + 1, "sliding_window"),
            (TokenBucket, |spec| spec.burst = Some(0), "at least 1"),
            (
                TokenBucket,
                |spec| (spec.hits, spec.burst) = (0, Some(5)),
                "remove `burst`",
            ),
            (TokenBucket, |spec| spec.burst = Some(MAX_HITS + 1), "lower `burst`"),
            (
                TokenBucket,
                |spec| (spec.window, spec.burst) = (Window::of(Unit::Year), Some(MAX_HITS)),
                "lower `burst`",
            ),
        ];
        for (kind, change, hint) in cases {
            let mut spec = spec(kind, 10, seconds(1));
            change(&mut spec);
            let message = build(&spec).expect_err("out of bounds").to_string();
            assert!(message.contains(hint), "{message:?} does not say {hint:?}");
        }
    }
}
