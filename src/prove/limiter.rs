//! An engine on a memory store and a virtual clock.

use std::num::NonZeroUsize;
use std::sync::Arc;

use crate::config::problem::Clipped;
use crate::engine::{Decision, Engine, EngineOptions, Planned, RequestError};
use crate::model::{Limit, ManualClock, Request};
use crate::rules::plans::PlanOrigin;
use crate::rules::{Defaults, RuleSet};
use crate::store::MemoryStore;
use crate::telemetry::{Metrics, RuleStats};

/// Sources of plans that are not read here, because only a server is there to ask: their values have the default plan.
#[must_use]
pub fn unread_plans(rules: &RuleSet) -> Vec<String> {
    let sources = rules.sources.iter();
    let unread = sources.filter(|source| !matches!(source.from, PlanOrigin::File { .. }));
    let note = unread.map(|source| {
        let (domain, name) = (Clipped(&source.domain), Clipped(&source.name));
        format!(
            "the plans of {domain}.{name} come from a server, which was not asked: every value had the default plan"
        )
    });
    note.collect()
}

/// A rate limiter whose time is moved by its caller; its counters start empty.
pub struct VirtualLimiter {
    engine: Engine,
    clock: Arc<ManualClock>,
    store: Arc<MemoryStore>,
    rules: Arc<RuleSet>,
}

impl VirtualLimiter {
    /// A limiter with room for `max_keys` counters, whose clock reads `start_us` (microseconds since the Unix epoch).
    ///
    /// # Errors
    /// When the metrics of the engine cannot be registered.
    pub fn new(
        rules: Arc<RuleSet>,
        defaults: Defaults,
        max_keys: NonZeroUsize,
        start_us: u64,
    ) -> prometheus::Result<Self> {
        let clock = Arc::new(ManualClock::new(start_us));
        let store = Arc::new(MemoryStore::new(max_keys, Arc::clone(&clock) as _));
        let options = EngineOptions {
            defaults,
            holds_back: false,
            ..EngineOptions::default()
        };
        let engine = Engine::new(
            Arc::clone(&store) as _,
            None,
            options,
            Arc::clone(&clock) as _,
            Arc::new(Metrics::new()?),
        );
        engine.activate(Arc::clone(&rules), 1);
        Ok(Self {
            engine,
            clock,
            store,
            rules,
        })
    }

    /// Decides and counts a request at a time in microseconds since the Unix epoch. A time before the last one counts as
    /// the last one.
    ///
    /// # Errors
    /// [`RequestError`] when the request is one that the service refuses.
    pub async fn decide_at(&self, at_us: u64, request: &Request) -> Result<Decision, RequestError> {
        self.move_to(at_us);
        self.engine.decide(request, None).await
    }

    /// Plans a request that is decided later, by [`decide_planned_at`](Self::decide_planned_at). What is decided before it
    /// makes no difference to the plan, unless [`plans_ahead`](Self::plans_ahead) says no.
    ///
    /// # Errors
    /// [`RequestError`] when the request is one that the service refuses.
    pub fn plan(&self, request: &Request) -> Result<Planned, RequestError> {
        self.engine.plan(request)
    }

    /// Whether requests can be planned before others are decided: not where what one has cost sets what the next one holds.
    #[must_use]
    pub fn plans_ahead(&self) -> bool {
        let holds = |limit: &Limit| limit.hold_us > 0;
        let rules = &self.rules.rules;
        !rules.iter().any(|rule| rule.limits().iter().any(holds))
    }

    /// Brings the counters of planned requests near.
    pub fn warm<'p>(&self, planned: impl Iterator<Item = &'p Planned>) {
        self.store.warm(planned.map(Planned::transaction));
    }

    /// Decides and counts a planned request, as [`decide_at`](Self::decide_at) does.
    ///
    /// # Errors
    /// [`RequestError`] when the request is one that the service refuses.
    pub fn decide_planned_at(
        &self,
        at_us: u64,
        planned: Planned,
        request: &Request,
    ) -> impl Future<Output = Result<Decision, RequestError>> {
        self.move_to(at_us);
        self.engine.decide_planned(planned, request)
    }

    fn move_to(&self, at_us: u64) {
        use crate::model::Clock;
        if at_us > self.clock.now_us() {
            self.clock.set(at_us);
        }
    }

    /// The rules in force.
    #[must_use]
    pub const fn rules(&self) -> &Arc<RuleSet> {
        &self.rules
    }

    /// What was counted of the rule at this index.
    #[must_use]
    pub fn stats(&self, rule: usize) -> Option<Arc<RuleStats>> {
        self.engine.active()?.stats(rule).map(Arc::clone)
    }

    /// Counters that were dropped for want of room: above 0, decisions may be more generous than a server's.
    #[must_use]
    pub fn evicted(&self) -> u64 {
        self.store.stats().evicted
    }
}
