//! Decisions a second of each rule.

use std::collections::VecDeque;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use parking_lot::Mutex;

use crate::engine::{Active, Engine};

/// Between two looks at the counters.
pub(super) const SAMPLE_EVERY: Duration = Duration::from_secs(2);
/// Looks that are kept: a minute.
const SAMPLES: usize = 30;
/// Decisions of each rule a while ago, for rates.
#[derive(Default)]
pub(super) struct Rates(Mutex<VecDeque<Sample>>);

struct Sample {
    at_us: u64,
    generation: u64,
    counts: Vec<[u64; 3]>,
}

impl Rates {
    pub fn sample(&self, engine: &Engine, now_us: u64) {
        let Some(active) = engine.active() else { return };
        let rules = 0..active.rules.rules.len();
        let counts = rules.map(|rule| counts(&active, rule)).collect();
        let mut samples = self.0.lock();
        // A rule's index means something within one configuration.
        samples.retain(|sample| sample.generation == active.generation);
        if samples.len() == SAMPLES {
            samples.pop_front();
        }
        samples.push_back(Sample {
            at_us: now_us,
            generation: active.generation,
            counts,
        });
    }

    /// Decisions a second by outcome, over the last minute or as much of it as this configuration is in force.
    pub fn rate(&self, active: &Active, rule: usize, now: [u64; 3], now_us: u64) -> [f64; 3] {
        let samples = self.0.lock();
        let first = samples.iter().find(|sample| sample.generation == active.generation);
        let Some(first) = first.filter(|first| first.at_us < now_us) else {
            return [0.0; 3];
        };
        let before = first.counts.get(rule).copied().unwrap_or(now);
        #[allow(clippy::cast_precision_loss, reason = "a rate for people")]
        let seconds = (now_us - first.at_us) as f64 / 1e6;
        #[allow(clippy::cast_precision_loss, reason = "a rate for people")]
        let rate = |at: usize| now[at].saturating_sub(before[at]) as f64 / seconds;
        [rate(0), rate(1), rate(2)]
    }
}

/// Allowed, denied, denied in shadow mode.
pub(super) fn counts(active: &Active, rule: usize) -> [u64; 3] {
    active.stats(rule).map_or([0; 3], |stats| {
        [&stats.allowed, &stats.denied, &stats.shadow_denied].map(|count| count.load(Relaxed))
    })
}
