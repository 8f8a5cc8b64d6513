//! Plan → store → decision: what every service calls for a request.

mod account;
mod active;
mod candidate;
mod decision;
mod failure;
mod hits;
mod keys;
mod look;
mod options;
mod permits;
mod plan;
mod planned;
mod quota;
mod release_filter;
mod reset;
mod scopes;
mod status;
mod wait;

use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::config::settings::OnOverload;
use crate::model::{Clock, Request, Transaction};
use crate::rules::{OnStoreError, RuleSet};
use crate::store::remote::Fallback;
use crate::store::{Store, StoreError};
use crate::telemetry::throttle::Throttle;
use crate::telemetry::{Activity, Metrics};

pub use active::Active;
pub use look::{Counter, Look, Looked};
pub use options::EngineOptions;
pub use plan::RequestError;
pub use planned::Planned;
pub use quota::{QuotaCounter, QuotaRule};
pub use release_filter::PERMIT_TAG;
pub use reset::{FindError, FoundCounters, MAX_FOUND, SearchPosition};
pub use status::{Counted, Decision, Status, StatusLimit};

use permits::Granted;
use plan::{Plan, PlanInput};
use release_filter::ReleaseFilter;

/// Time before the caller's deadline that is reserved for the failure mode's answer; a quarter of what is left, if that is
/// less.
const MARGIN: Duration = Duration::from_millis(5);

/// Decides requests by the rules in force. Shared by all connections.
pub struct Engine {
    active: ArcSwapOption<Active>,
    store: Arc<dyn Store>,
    fallback: Option<Arc<Fallback>>,
    releases: ReleaseFilter,
    waiting: wait::DelayLimiter,
    permits: Semaphore,
    options: EngineOptions,
    clock: Arc<dyn Clock>,
    metrics: Arc<Metrics>,
    activity: Option<Arc<Activity>>,
    store_errors: Throttle,
    overloads: Throttle,
    unnoted: Throttle,
}

impl Engine {
    /// An engine without rules: every request is answered [`RequestError::NoConfiguration`] until
    /// [`activate`](Self::activate).
    #[must_use]
    pub fn new(
        store: Arc<dyn Store>,
        fallback: Option<Arc<Fallback>>,
        options: EngineOptions,
        clock: Arc<dyn Clock>,
        metrics: Arc<Metrics>,
    ) -> Self {
        let waiting = wait::DelayLimiter::new(options.max_waiting);
        let permits = Semaphore::new(options.max_concurrent.min(Semaphore::MAX_PERMITS));
        let active = ArcSwapOption::empty();
        Self {
            active,
            store,
            fallback,
            releases: ReleaseFilter::new(options.max_noted),
            waiting,
            permits,
            options,
            clock,
            metrics,
            activity: None,
            store_errors: Throttle::new(),
            overloads: Throttle::new(),
            unnoted: Throttle::new(),
        }
    }

    /// Also records decisions for the operator's API.
    #[must_use]
    pub fn observed(self, activity: Arc<Activity>) -> Self {
        Self {
            activity: Some(activity),
            ..self
        }
    }

    /// Puts rules in force; requests in progress finish by the old ones.
    pub fn activate(&self, rules: Arc<RuleSet>, generation: u64) {
        if let Some(fallback) = &self.fallback {
            let default = self.options.on_store_error;
            // Limits that requests bring themselves have no mode of their own.
            let by_default = default == OnStoreError::Local;
            let of_rules = rules
                .rules
                .iter()
                .any(|rule| rule.on_store_error == Some(OnStoreError::Local));
            fallback.set_wanted(by_default || of_rules);
        }
        let before = self.active.load();
        let active = Active::new(rules, generation, &self.metrics.rules, before.as_deref());
        self.active.store(Some(Arc::new(active)));
    }

    /// The rules in force.
    #[must_use]
    pub fn active(&self) -> Option<Arc<Active>> {
        self.active.load_full()
    }

    /// Decides one request and counts it.
    ///
    /// A store failure is not an error: `on_store_error` answers. `deadline` is when the caller stops waiting.
    ///
    /// # Errors
    /// [`RequestError`] when the request is not valid or no rules are in force.
    pub async fn decide(&self, request: &Request, deadline: Option<Instant>) -> Result<Decision, RequestError> {
        let active = self.active.load_full().ok_or(RequestError::NoConfiguration)?;
        self.decide_by(active, request, deadline).await
    }

    /// [`decide`](Self::decide) by rules that the caller has pinned, because it has already used another part of them.
    ///
    /// # Errors
    /// [`RequestError`] when the request is not valid.
    pub async fn decide_by(
        &self,
        active: Arc<Active>,
        request: &Request,
        deadline: Option<Instant>,
    ) -> Result<Decision, RequestError> {
        let Ok(permit) = self.permits.try_acquire() else {
            return self.shed(active, request);
        };
        let mut plan = plan::plan(self.plan_input(&active, request))?;
        Ok(self.carry_out(active, &mut plan, permit, request, deadline).await)
    }

    /// Asks the store, makes the decision and counts it.
    async fn carry_out(
        &self,
        active: Arc<Active>,
        plan: &mut Plan,
        permit: SemaphorePermit<'_>,
        request: &Request,
        deadline: Option<Instant>,
    ) -> Decision {
        self.releases
            .reduce(&mut plan.transaction, request.releases_all, &*self.clock);
        let candidates = plan.candidates.take().map(|mut candidates| {
            candidates.transaction.deadline = deadline.map(in_time);
            candidates.start(&self.store)
        });
        if plan.transaction.checks.is_empty() {
            account::count_unlimited(&self.metrics, request, plan, &active);
            let decision = decision::uncounted(active, plan);
            if let Some(candidates) = candidates {
                candidates
                    .beside(async {})
                    .await
                    .1
                    .count(&decision, self.activity.as_ref());
            }
            return decision;
        }
        plan.transaction.deadline = deadline.map(in_time);
        // `*self.store`, since the `Arc` implements `Store`, too, with one more boxed future.
        let live = (*self.store).check(&plan.transaction);
        let (answer, candidate_result) = match candidates {
            None => (live.await, None),
            Some(candidates) => {
                let (answer, candidate_result) = candidates.beside(live).await;
                (answer, Some(candidate_result))
            }
        };
        let (mut held, failure) = match answer {
            Ok(outcomes) => (Granted::of(&self.store, &plan.transaction, outcomes, None), None),
            Err(error) => {
                self.report(&error);
                let modes = plan.failure_modes(&active, self.options.on_store_error);
                (
                    self.decide_without_store(&plan.transaction, &modes, &error),
                    Some(modes),
                )
            }
        };
        // A delayed answer keeps no permit, so that it does not block other requests: delays have a bound of their own.
        drop(permit);
        self.hold_back(&plan.transaction, &mut held, failure.as_deref(), deadline)
            .await;
        if held.grants() {
            // If the caller has disconnected, its call is dropped at this await, and `held` gives its permits and holds back.
            tokio::task::yield_now().await;
        }
        held.disarm();
        let decision = decision::decide(&self.options, active, plan, &held.outcomes, failure.as_deref());
        if request.releases_all && !self.releases.note(plan, &decision.statuses, &*self.clock) {
            self.report_unnoted();
        }
        account::count(
            &self.options,
            &self.metrics,
            request,
            plan,
            &decision,
            failure.as_deref(),
        );
        if let Some(activity) = &self.activity {
            account::observe(activity, plan, &decision);
        }
        if let Some(candidate_result) = candidate_result {
            candidate_result.count(&decision, self.activity.as_ref());
        }
        if self.options.shadow_mode && plan.would_deny(&decision.statuses) {
            self.metrics.global_shadow_mode.inc();
        }
        decision
    }

    fn plan_input<'r>(&'r self, active: &'r Active, request: &'r Request) -> PlanInput<'r> {
        PlanInput {
            options: &self.options,
            active,
            request,
            clock: &*self.clock,
        }
    }

    /// Answers without a decision, at once, so that no queue grows.
    fn shed(&self, active: Arc<Active>, request: &Request) -> Result<Decision, RequestError> {
        self.metrics.shed.inc();
        if let Some(suppressed) = self.overloads.pass(self.clock.now_us()) {
            tracing::warn!(
                suppressed,
                max_concurrent = self.options.max_concurrent,
                "overload: answering without a decision"
            );
        }
        match self.options.on_overload {
            OnOverload::Allow => Ok(decision::shed(active, request.descriptors.len())),
            OnOverload::Unavailable => Err(RequestError::Overloaded),
        }
    }

    /// Delays an answer for as long as a leaky bucket says. If that is not possible, denies it and gives back what it took.
    async fn hold_back(
        &self,
        transaction: &Transaction,
        held: &mut Granted,
        modes: Option<&[OnStoreError]>,
        deadline: Option<Instant>,
    ) {
        let Some(delay) = wait::delay(transaction, &held.outcomes).filter(|_| self.options.holds_back) else {
            return;
        };
        if self.waiting.wait(delay, deadline).await {
            return;
        }
        let taken = held.outcomes.clone();
        wait::deny(transaction, &mut held.outcomes);
        let refunds = wait::refunds(transaction, &taken, &held.outcomes, modes);
        if !transaction.passes(held.outcomes.iter().map(|outcome| outcome.allowed)) {
            held.disarm();
        }
        refunds.into_iter().for_each(|refund| self.store.correct(refund));
    }

    /// Decides by each check's failure mode.
    fn decide_without_store(&self, transaction: &Transaction, modes: &[OnStoreError], error: &StoreError) -> Granted {
        self.count_failure(failure::strongest(modes));
        let outcomes = failure::answer(self.fallback.as_deref(), transaction, modes);
        failure::charge_later(&*self.store, transaction, modes);
        if error.is_indeterminate() {
            failure::end_unknown_holds(&*self.store, transaction, &outcomes);
        }
        Granted::of(&self.store, transaction, outcomes, Some(modes))
    }

    fn count_failure(&self, mode: OnStoreError) {
        let decisions = &self.metrics.failure_mode_decisions;
        decisions.with_label_values(&[mode.name()]).inc();
    }

    fn report_unnoted(&self) {
        self.metrics.edges.unnoted_denials.inc();
        if let Some(suppressed) = self.unnoted.pass(self.clock.now_us()) {
            tracing::warn!(
                suppressed,
                "more concurrency counters deny than can be noted: Envoy's release of a denied request frees a permit that \
                 another request holds; let routes release what the answer's metadata says (docs/rules.md)"
            );
        }
    }

    fn report(&self, error: &StoreError) {
        self.metrics.compat_error("redis_error");
        if let Some(suppressed) = self.store_errors.pass(self.clock.now_us()) {
            tracing::warn!(%error, suppressed, on_store_error = self.options.on_store_error.name(), "the store cannot decide");
        }
    }
}

/// The deadline of the store's answer: early enough that the failure mode's answer still reaches the caller.
fn in_time(deadline: Instant) -> Instant {
    let left = deadline.saturating_duration_since(tokio::time::Instant::now().into_std());
    deadline.checked_sub((left / 4).min(MARGIN)).unwrap_or(deadline)
}
