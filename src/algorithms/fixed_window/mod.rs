//! Fixed window, for compatibility: hits are counted in windows aligned to the epoch, and the count starts over with
//! each. Up to L in each such window; **the worst window that straddles two of them admits 2 L.** Or in the windows of a
//! calendar, which are of different lengths.

mod step;

use crate::model::time::SECOND_US;
use crate::model::{Algorithm, Calendar, Limit};

pub use step::{State, adopt, apply, decide, expires_us, is_foreign, refund, return_to};

/// The largest prime below 2^24.
const MARKS: u64 = 16_777_213;

/// A limit as this algorithm counts it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Params {
    /// L.
    pub hits: u64,
    /// When they start over.
    pub windows: WindowGrid,
}

/// How time is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WindowGrid {
    /// From the epoch on, each this many microseconds long; at least 1.
    Even(u64),
    /// Of a calendar.
    Calendar(Calendar),
}

impl Params {
    /// The parameters of `limit`.
    #[must_use]
    pub const fn new(limit: &Limit) -> Self {
        let windows = match limit.algorithm {
            Algorithm::CalendarWindow(calendar) => WindowGrid::Calendar(calendar),
            _ if limit.window_us == 0 => WindowGrid::Even(1),
            _ => WindowGrid::Even(limit.window_us),
        };
        Self {
            hits: limit.hits,
            windows,
        }
    }

    /// What windows are numbered by: the one of number n ends with n + 1 of these. A calendar's all end with a second.
    #[must_use]
    pub const fn number_us(&self) -> u64 {
        match self.windows {
            WindowGrid::Even(window_us) => window_us,
            WindowGrid::Calendar(_) => SECOND_US,
        }
    }

    /// Tells windows of different lengths apart: the seconds of up to 194 days, and their rest above. Those of a calendar have
    /// counters of their own.
    const fn mark(&self) -> u32 {
        match self.windows {
            WindowGrid::Even(window_us) => (window_us / SECOND_US % MARKS) as u32,
            WindowGrid::Calendar(_) => 0,
        }
    }

    /// When the window of this time ends.
    fn end_us(&self, now_us: u64) -> u64 {
        match self.windows {
            WindowGrid::Even(window_us) => (now_us / window_us + 1) * window_us,
            WindowGrid::Calendar(calendar) => calendar.end_us(now_us),
        }
    }
}
