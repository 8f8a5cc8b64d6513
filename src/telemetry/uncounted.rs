//! Which of the counters of what passes uncounted have risen lately: the health detail that names them.

use std::fmt;
use std::sync::Arc;

use parking_lot::Mutex;
use prometheus::core::Collector;
use prometheus::proto::{LabelPair, Metric, MetricFamily};
use prometheus::{IntCounter, IntCounterVec};

use crate::model::Clock;
use crate::model::time::SECOND_US;

/// How long a counter that has risen is named.
const RECENT_US: u64 = 60 * SECOND_US;

/// Watches some counters.
pub struct Uncounted {
    clock: Arc<dyn Clock>,
    watched: Vec<Watched>,
    seen: Mutex<Vec<LastTotal>>,
}

/// A metric's name, and its total.
pub(super) struct Watched(&'static str, Box<dyn Fn() -> u64 + Send + Sync>);

#[derive(Clone, Copy, Default)]
struct LastTotal {
    total: u64,
    rose_us: Option<u64>,
}

impl Watched {
    pub fn counter(name: &'static str, counter: &IntCounter) -> Self {
        let counter = counter.clone();
        Self(name, Box::new(move || counter.get()))
    }

    /// The series that have this label; all of them without one.
    pub fn counters(name: &'static str, counters: &IntCounterVec, label: Option<(&'static str, &'static str)>) -> Self {
        let counters = counters.clone();
        let has_label = move |metric: &&Metric| {
            let is_it = |pair: &LabelPair| Some((pair.name(), pair.value())) == label;
            label.is_none() || metric.get_label().iter().any(is_it)
        };
        let total = move || {
            let families = counters.collect();
            let metrics = families.iter().flat_map(MetricFamily::get_metric).filter(has_label);
            metrics.map(|metric| metric.get_counter().get_value()).sum::<f64>()
        };
        #[allow(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a sum of whole numbers"
        )]
        Self(name, Box::new(move || total() as u64))
    }
}

impl Uncounted {
    pub(super) fn new(watched: Vec<Watched>, clock: Arc<dyn Clock>) -> Self {
        let seen = Mutex::new(vec![LastTotal::default(); watched.len()]);
        Self { clock, watched, seen }
    }

    /// The metrics that have risen within the last minute, as far as it was looked within that minute.
    pub fn look(&self) -> Vec<&'static str> {
        let now_us = self.clock.now_us();
        let mut seen = self.seen.lock();
        let mut recent = Vec::new();
        for (Watched(name, total), seen) in self.watched.iter().zip(seen.iter_mut()) {
            let total = total();
            if total > seen.total {
                seen.rose_us = Some(now_us);
            }
            seen.total = total;
            if seen
                .rose_us
                .is_some_and(|rose_us| now_us < rose_us.saturating_add(RECENT_US))
            {
                recent.push(*name);
            }
        }
        recent
    }
}

impl fmt::Debug for Uncounted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list()
            .entries(self.watched.iter().map(|watched| watched.0))
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use prometheus::Opts;

    use super::*;
    use crate::model::ManualClock;

    #[test]
    fn what_has_risen_is_named_for_a_minute() {
        let clock = Arc::new(ManualClock::new(0));
        let shed = IntCounter::new("shed", "help").unwrap();
        let closed = IntCounterVec::new(Opts::new("closed", "help"), &["port", "reason"]).unwrap();
        let watched = vec![
            Watched::counter("shed", &shed),
            Watched::counters("closed", &closed, Some(("port", "grpc"))),
        ];
        let uncounted = Uncounted::new(watched, Arc::clone(&clock) as Arc<dyn Clock>);
        assert!(uncounted.look().is_empty());
        shed.inc();
        closed.with_label_values(&["http", "slow"]).inc();
        assert_eq!(uncounted.look(), ["shed"]);
        clock.set(RECENT_US / 2);
        closed.with_label_values(&["grpc", "slow"]).inc();
        assert_eq!(uncounted.look(), ["shed", "closed"]);
        clock.set(RECENT_US);
        assert_eq!(uncounted.look(), ["closed"]);
        clock.set(2 * RECENT_US);
        assert!(uncounted.look().is_empty());
    }
}
