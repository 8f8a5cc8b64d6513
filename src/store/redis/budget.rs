//! The time that one call may take.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use fred::types::config::Options;

use crate::store::remote::GRACE;

/// The time that a call has, with all of its redirections: longer than its callers wait (see [`GRACE`]).
pub(super) struct Budget {
    pub start: Instant,
    /// The store's own timeout. A call that takes longer speaks against the server, whatever its callers' deadlines.
    pub timeout: Duration,
    /// Whether nothing of it has been used yet, so that the client's own timeout will do.
    untouched: AtomicBool,
}

impl Budget {
    /// From now on.
    pub fn new(timeout: Duration) -> Self {
        Self {
            start: Instant::now(),
            timeout,
            untouched: AtomicBool::new(true),
        }
    }

    /// What the client's own timeout has to be.
    pub fn total(timeout: Duration) -> Duration {
        timeout + GRACE
    }

    /// Begins to use it; whether nothing of it had been used before.
    pub fn touch(&self) -> bool {
        self.untouched.swap(false, Ordering::Relaxed)
    }

    pub fn left(&self) -> Duration {
        // fred reads zero as no limit.
        Self::total(self.timeout)
            .saturating_sub(self.start.elapsed())
            .max(Duration::from_micros(1))
    }

    pub fn options(&self) -> Options {
        Options {
            timeout: Some(self.left()),
            ..Options::default()
        }
    }
}
