//! Periodic tasks.

use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::time::{Interval, MissedTickBehavior, interval};

/// Ticks at a fixed interval, until its target has been dropped.
pub(super) struct Ticker<L> {
    target: Weak<L>,
    ticks: Interval,
}

impl<L> Ticker<L> {
    /// The first tick comes at once. After work that takes longer than `every`, the next ticks are delayed.
    pub(super) fn new(target: Weak<L>, every: Duration) -> Self {
        let mut ticks = interval(every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self { target, ticks }
    }

    /// Waits for the next tick and returns the target; `None` once it has been dropped.
    pub(super) async fn next(&mut self) -> Option<Arc<L>> {
        self.ticks.tick().await;
        self.target.upgrade()
    }
}
