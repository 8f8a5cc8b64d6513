//! Time as the limiter sees it: integer microseconds since the Unix epoch, read through a [`Clock`] so that
//! tests can own it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Microseconds in a second.
pub const SECOND_US: u64 = 1_000_000;

/// The largest integer that Lua (a double) holds exactly; every product in an algorithm stays below it.
pub const MAX_EXACT: u64 = 1 << 53;

/// A source of the current time.
pub trait Clock: Send + Sync + 'static {
    /// Microseconds since the Unix epoch; never goes back.
    fn now_us(&self) -> u64;
}

/// The real clock: anchored to wall time once (so that fixed windows start on the epoch's grid), then driven by
/// the monotonic clock, so that a step of the system's clock, back or forth, moves no window and holds no key: it is
/// first seen by the next start of the process.
#[derive(Debug, Clone)]
pub struct MonotonicClock {
    anchor: Instant,
    anchor_us: u64,
}

impl MonotonicClock {
    /// Anchors a clock to the present.
    #[must_use]
    #[allow(clippy::disallowed_methods, reason = "the one place where time enters the program")]
    pub fn new() -> Self {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self {
            anchor: Instant::now(),
            anchor_us: micros(since_epoch),
        }
    }
}

impl Default for MonotonicClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for MonotonicClock {
    fn now_us(&self) -> u64 {
        self.anchor_us + micros(self.anchor.elapsed())
    }
}

/// A clock that stands still until it is moved; for tests and models.
#[derive(Debug, Default)]
pub struct ManualClock(AtomicU64);

impl ManualClock {
    /// A clock that reads `now_us`.
    #[must_use]
    pub const fn new(now_us: u64) -> Self {
        Self(AtomicU64::new(now_us))
    }

    /// Sets the clock.
    pub fn set(&self, now_us: u64) {
        self.0.store(now_us, Ordering::SeqCst);
    }

    /// Moves the clock forward.
    pub fn advance(&self, by_us: u64) {
        self.0.fetch_add(by_us, Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now_us(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }
}

/// Whole microseconds of a duration, saturating.
#[must_use]
pub fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
