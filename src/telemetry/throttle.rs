//! Keeps a failing dependency from filling the log: one line a second for each place, and how many were left out.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::model::time::SECOND_US;

/// Lets one event a second through.
#[derive(Debug, Default)]
pub struct Throttle {
    next_us: AtomicU64,
    suppressed: AtomicU64,
}

impl Throttle {
    /// A throttle that lets the first event through.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            next_us: AtomicU64::new(0),
            suppressed: AtomicU64::new(0),
        }
    }

    /// Whether to log now; if so, how many events were left out since the last line.
    pub fn pass(&self, now_us: u64) -> Option<u64> {
        let next = self.next_us.load(Ordering::Relaxed);
        let won = now_us >= next
            && self
                .next_us
                .compare_exchange(next, now_us + SECOND_US, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok();
        if won {
            Some(self.suppressed.swap(0, Ordering::Relaxed))
        } else {
            self.suppressed.fetch_add(1, Ordering::Relaxed);
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_a_second_with_a_count_of_the_rest() {
        let throttle = Throttle::new();
        assert_eq!(throttle.pass(5), Some(0));
        assert_eq!(throttle.pass(6), None);
        assert_eq!(throttle.pass(7), None);
        assert_eq!(throttle.pass(5 + SECOND_US), Some(2));
    }
}
