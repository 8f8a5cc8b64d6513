//! Limits: how many hits in how long, counted by which algorithm. Built only by `algorithms::limit`, which checks
//! every bound, so that the request path never has to.

use std::fmt;

use super::calendar::{Calendar, Zone};
use super::time::SECOND_US;
use super::unit::Unit;

/// A window: a unit times a multiplier, so that 30 s is `Second × 30`, as Envoy prints it; or a unit of a calendar.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Window {
    /// The unit.
    pub unit: Unit,
    /// How many of them; at least 1.
    pub multiplier: u32,
    /// Of whose calendar it is a day, week, month or year; `None` = it is as long as the unit says.
    pub zone: Option<Zone>,
}

impl Window {
    /// One unit.
    #[must_use]
    pub const fn of(unit: Unit) -> Self {
        Self::times(unit, 1)
    }

    /// Several units.
    #[must_use]
    pub const fn times(unit: Unit, multiplier: u32) -> Self {
        Self {
            unit,
            multiplier,
            zone: None,
        }
    }

    /// The calendar that it is of.
    #[must_use]
    pub fn calendar(&self) -> Option<Calendar> {
        Calendar::new(self.unit, self.zone?)
    }

    /// Length in seconds of the one that a time is in.
    #[must_use]
    pub fn seconds_at(&self, now_us: impl FnOnce() -> u64) -> u64 {
        let Some(calendar) = self.calendar() else {
            return self.seconds();
        };
        let window = calendar.window_at(now_us());
        window.end_s - window.start_s
    }

    /// Length in seconds; of a calendar's, what the unit says.
    #[must_use]
    pub const fn seconds(self) -> u64 {
        self.unit.seconds() * self.multiplier as u64
    }

    /// Length in microseconds.
    #[must_use]
    pub const fn micros(self) -> u64 {
        self.seconds() * SECOND_US
    }
}

impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.multiplier, self.zone) {
            (_, Some(zone)) => write!(f, "{} ({zone})", self.unit.name()),
            (1, None) => f.write_str(self.unit.name()),
            (n, None) => write!(f, "{n} {}s", self.unit.name()),
        }
    }
}

/// The algorithms by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub enum AlgorithmKind {
    /// Counts in slices; never more than the limit in any window.
    #[default]
    SlidingWindow,
    /// Keeps every admitted hit's time; exact.
    SlidingLog,
    /// A rate and a burst (GCRA).
    TokenBucket,
    /// Delays instead of denying.
    LeakyBucket,
    /// Epoch-aligned windows, for compatibility; or windows of a calendar.
    FixedWindow,
    /// At most so many in flight.
    Concurrency,
}

impl AlgorithmKind {
    /// All of them; the position is the number that scripts and metrics use.
    pub const ALL: [Self; 6] = [
        Self::SlidingWindow,
        Self::SlidingLog,
        Self::TokenBucket,
        Self::LeakyBucket,
        Self::FixedWindow,
        Self::Concurrency,
    ];

    /// The name in rules files.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::SlidingWindow => "sliding_window",
            Self::SlidingLog => "sliding_log",
            Self::TokenBucket => "token_bucket",
            Self::LeakyBucket => "leaky_bucket",
            Self::FixedWindow => "fixed_window",
            Self::Concurrency => "concurrency",
        }
    }

    /// Whether hits that were denied can count: not where a slot is free again, or a delay over, all the same.
    #[must_use]
    pub const fn can_count_denied(self) -> bool {
        !matches!(self, Self::LeakyBucket | Self::Concurrency)
    }

    /// Whether hits can be held until their number is known: not where they wait for their turn.
    #[must_use]
    pub const fn can_hold(self) -> bool {
        !matches!(self, Self::LeakyBucket)
    }

    /// Whether hits can be leased ahead: only where hits may be admitted later than they were counted.
    #[must_use]
    pub const fn can_lease(self) -> bool {
        matches!(self, Self::SlidingWindow | Self::FixedWindow)
    }

    /// Reads a name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }
}

impl fmt::Display for AlgorithmKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A counting rule, ready to be decided. The numbers obey the caps of `algorithms::limit`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Limit {
    /// L: hits in a window; 0 bans.
    pub hits: u64,
    /// W in microseconds; at least 1.
    pub window_us: u64,
    /// How they are counted.
    pub algorithm: Algorithm,
    /// Microseconds that a hold lasts unless it is settled; 0 = hits are counted, not held.
    pub hold_us: u64,
    /// Holds have no ids and are only counted: each keeps what requests cost on average.
    pub holds_mean: bool,
    /// Holds are settled once, so that no record of a settled one has to be kept: leases of quotas, of which there are many.
    pub settles_once: bool,
}

/// An algorithm with its parameters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Algorithm {
    /// See [`AlgorithmKind::SlidingWindow`].
    SlidingWindow {
        /// S: slices in a window.
        precision: u32,
    },
    /// See [`AlgorithmKind::SlidingLog`].
    SlidingLog,
    /// See [`AlgorithmKind::TokenBucket`].
    TokenBucket {
        /// Hits that may come at once.
        burst: u64,
        /// One hit costs this many units …
        hit_units: u64,
        /// … and a microsecond brings back this many (`hit_units / unit_rate` = W / L, reduced).
        unit_rate: u64,
    },
    /// See [`AlgorithmKind::LeakyBucket`].
    LeakyBucket {
        /// A request that would wait longer is denied.
        max_delay_us: u64,
        /// As in the token bucket.
        hit_units: u64,
        /// As in the token bucket.
        unit_rate: u64,
    },
    /// See [`AlgorithmKind::FixedWindow`].
    FixedWindow,
    /// See [`AlgorithmKind::FixedWindow`], in windows of a calendar; `window_us` is about how long they are.
    CalendarWindow(Calendar),
    /// See [`AlgorithmKind::Concurrency`]; `window_us` is the time after which a lost slot frees itself.
    Concurrency,
}

impl Algorithm {
    /// Which one it is.
    #[must_use]
    pub const fn kind(self) -> AlgorithmKind {
        match self {
            Self::SlidingWindow { .. } => AlgorithmKind::SlidingWindow,
            Self::SlidingLog => AlgorithmKind::SlidingLog,
            Self::TokenBucket { .. } => AlgorithmKind::TokenBucket,
            Self::LeakyBucket { .. } => AlgorithmKind::LeakyBucket,
            Self::FixedWindow | Self::CalendarWindow(_) => AlgorithmKind::FixedWindow,
            Self::Concurrency => AlgorithmKind::Concurrency,
        }
    }
}
