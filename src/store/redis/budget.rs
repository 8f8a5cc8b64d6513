//! The time budget of one call.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use fred::types::config::Options;

use crate::store::remote::GRACE;

/// The time that a call may take with all of its redirections: the store's timeout and [`GRACE`], since a late answer is still
/// of use.
pub(super) struct Budget {
    pub start: Instant,
    /// The store's own timeout. A call that takes longer counts against the server, whatever its callers' deadlines.
    pub timeout: Duration,
    /// Whether no command has been sent yet: the first one can use the client's own timeout, which is the whole budget.
    untouched: AtomicBool,
}

impl Budget {
    /// A budget that begins now.
    pub fn new(timeout: Duration) -> Self {
        Self {
            start: Instant::now(),
            timeout,
            untouched: AtomicBool::new(true),
        }
    }

    /// The whole budget of a call; also the client's own timeout.
    pub fn total(timeout: Duration) -> Duration {
        timeout + GRACE
    }

    /// Marks the first command as sent; returns whether this call did so.
    pub fn touch(&self) -> bool {
        self.untouched.swap(false, Ordering::Relaxed)
    }

    /// The rest of the budget.
    pub fn left(&self) -> Duration {
        // At least 1 µs, since fred takes zero as no timeout.
        Self::total(self.timeout)
            .saturating_sub(self.start.elapsed())
            .max(Duration::from_micros(1))
    }

    /// Options for a command that has the rest of the budget.
    pub fn options(&self) -> Options {
        Options {
            timeout: Some(self.left()),
            ..Options::default()
        }
    }
}
