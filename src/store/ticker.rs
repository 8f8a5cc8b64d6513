//! Periodic tasks.

use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::time::{Interval, MissedTickBehavior, interval};

/// Ticks at an even pace, until what it works on is gone.
pub(super) struct Ticker<L> {
    target: Weak<L>,
    ticks: Interval,
}

impl<L> Ticker<L> {
    /// The first tick at once. Work that takes longer than `every` puts the next ticks off.
    pub(super) fn new(target: Weak<L>, every: Duration) -> Self {
        let mut ticks = interval(every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self { target, ticks }
    }

    /// The target, at the next tick; `None` once it is gone.
    pub(super) async fn next(&mut self) -> Option<Arc<L>> {
        self.ticks.tick().await;
        self.target.upgrade()
    }
}
