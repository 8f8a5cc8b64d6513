//! Whether this process should get traffic, and why not.

use std::sync::Arc;

use parking_lot::Mutex;
use prometheus::IntGauge;
use serde::Serialize;
use tokio::sync::watch;

use crate::telemetry::Uncounted;

/// Everything that health depends on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Conditions {
    /// Rules are in force (or not needed to be healthy).
    pub configured: bool,
    /// The process is told to end.
    pub draining: bool,
    /// The store answers; false while the failure mode does.
    pub store_answers: bool,
    /// No rules are in force: no request is limited.
    pub no_rules: bool,
    /// The newest rules are wrong, or their source is away: older ones, if any, stay in force.
    pub stale_rules: bool,
    /// Sources of plans whose last good entries stay in force, because they cannot be read: `domain/name`. They do not make
    /// the process unhealthy.
    pub stale_plan_sources: Vec<String>,
    /// Quotas are given to Envoys (RLQS) by `on_store_error`, because the store does not answer. They do not make the process
    /// unhealthy.
    pub quotas_without_store: bool,
    /// The metrics of what passes uncounted that have risen within the last minute. They do not make the process unhealthy.
    pub uncounted: Vec<&'static str>,
    /// Whether a store that does not answer makes the process unhealthy.
    #[serde(skip)]
    pub needs_store: bool,
}

impl Conditions {
    /// The verdict.
    #[must_use]
    pub const fn healthy(&self) -> bool {
        self.configured && !self.draining && (self.store_answers || !self.needs_store)
    }

    /// What is not as it should be, in words. Where the process is not healthy, the first says why.
    #[must_use]
    pub fn reasons(&self) -> Vec<String> {
        let stale = self.stale_plan_sources.join(", ");
        let said = [
            (self.draining, "draining".to_owned()),
            (!self.configured, "no rate limit configuration loaded".to_owned()),
            (!self.store_answers, "the store does not answer".to_owned()),
            (!stale.is_empty(), format!("plans are stale: {stale}")),
            (
                self.quotas_without_store,
                "quotas are given to Envoys without the store".to_owned(),
            ),
            (
                !self.uncounted.is_empty(),
                format!(
                    "not all requests are counted as configured: {}",
                    self.uncounted.join(", ")
                ),
            ),
        ];
        said.into_iter().filter_map(|(is, text)| is.then_some(text)).collect()
    }
}

/// Shared by all who know a condition and all who are asked.
#[derive(Debug, Clone)]
pub struct Health {
    conditions: Arc<Mutex<Conditions>>,
    undecided_streams: Option<IntGauge>,
    uncounted: Option<Arc<Uncounted>>,
    verdict: watch::Sender<bool>,
}

impl Health {
    /// Not configured yet; `needs_store` as in [`Conditions`]: then the store must have answered once, too.
    #[must_use]
    pub fn new(needs_store: bool) -> Self {
        let conditions = Conditions {
            configured: false,
            draining: false,
            store_answers: !needs_store,
            no_rules: true,
            stale_rules: false,
            stale_plan_sources: Vec::new(),
            quotas_without_store: false,
            uncounted: Vec::new(),
            needs_store,
        };
        Self {
            conditions: Arc::new(Mutex::new(conditions)),
            undecided_streams: None,
            uncounted: None,
            verdict: watch::Sender::new(false),
        }
    }

    /// Takes whether quotas are given without the store from this number of streams.
    #[must_use]
    pub fn counting(mut self, undecided_streams: IntGauge) -> Self {
        self.undecided_streams = Some(undecided_streams);
        self
    }

    /// Takes what passes uncounted from these counters.
    #[must_use]
    pub fn watching(mut self, uncounted: Arc<Uncounted>) -> Self {
        self.uncounted = Some(uncounted);
        self
    }

    /// The metrics of what passes uncounted that have risen within the last minute. What has risen is only seen by asking.
    pub fn uncounted(&self) -> Vec<&'static str> {
        self.uncounted
            .as_ref()
            .map_or_else(Vec::new, |uncounted| uncounted.look())
    }

    /// Changes a condition and tells all who watch.
    pub fn update(&self, change: impl FnOnce(&mut Conditions)) {
        let mut conditions = self.conditions.lock();
        change(&mut conditions);
        let healthy = conditions.healthy();
        self.verdict
            .send_if_modified(|verdict| std::mem::replace(verdict, healthy) != healthy);
    }

    /// As things stand.
    #[must_use]
    pub fn conditions(&self) -> Conditions {
        let mut conditions = self.conditions.lock().clone();
        let streams = self.undecided_streams.as_ref().map_or(0, IntGauge::get);
        conditions.quotas_without_store = streams > 0;
        conditions.uncounted = self.uncounted();
        conditions
    }

    /// The verdict, now and whenever it changes.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<bool> {
        self.verdict.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_condition_has_its_words_and_the_first_says_why_it_is_unhealthy() {
        let health = Health::new(true);
        health.update(|conditions| conditions.configured = true);
        assert_eq!(health.conditions().reasons(), ["the store does not answer"]);
        health.update(|conditions| {
            conditions.store_answers = true;
            conditions.stale_plan_sources = vec!["shop/tiers".to_owned(), "shop/keys".to_owned()];
        });
        assert!(health.conditions().healthy());
        assert_eq!(
            health.conditions().reasons(),
            ["plans are stale: shop/tiers, shop/keys"]
        );
        health.update(|conditions| {
            conditions.configured = false;
            conditions.draining = true;
            conditions.quotas_without_store = true;
        });
        assert!(!health.conditions().healthy());
        let expected = [
            "draining",
            "no rate limit configuration loaded",
            "plans are stale: shop/tiers, shop/keys",
        ];
        // Quotas without a store are counted by streams, of which there are none.
        assert_eq!(health.conditions().reasons(), expected);
    }
}
