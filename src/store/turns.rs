//! The turns of a layer's background task.

use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::time::{Interval, MissedTickBehavior, interval};

/// Turns at an even pace, until the layer is gone.
pub(super) struct Turns<L> {
    layer: Weak<L>,
    ticks: Interval,
}

impl<L> Turns<L> {
    /// The first one at once. A turn that takes longer than `every` puts the next ones off.
    pub(super) fn new(layer: Weak<L>, every: Duration) -> Self {
        let mut ticks = interval(every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self { layer, ticks }
    }

    /// The layer, when it is its turn; `None` once it is gone.
    pub(super) async fn next(&mut self) -> Option<Arc<L>> {
        self.ticks.tick().await;
        self.layer.upgrade()
    }
}
