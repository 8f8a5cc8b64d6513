//! Quotas that Envoys enforce themselves: finds the rule of a bucket, and has the store carry out the steps of its account.

use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use smallvec::SmallVec;

use crate::algorithms::limit::horizon_us;
use crate::model::{
    Algorithm, Check, CounterKey, Descriptor, Enforcement, Entry, Hits, HoldId, Limit, RetryAfter, Transaction,
};
use crate::quota::account::{QuotaStand, QuotaStep, UnusedHits};
use crate::rules::OnStoreError;
use crate::store::correction::{Cause, Correction, signed};
use crate::store::{Outcomes, StoreError};
use crate::telemetry::activity::Noted;

use super::keys::rule_key;
use super::{Active, Engine, failure};

/// The rule of a bucket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum QuotaRule {
    /// No rule, or one that says `unlimited`.
    Unlimited,
    /// The domain has rules and no `rlqs`.
    NotEnabled,
    /// The rule's hits cannot be leased, or several rules apply.
    NotLeasable,
    /// A counter that may be leased.
    Counted(Box<QuotaCounter>),
}

/// A counter that may be leased.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuotaCounter {
    /// Its key.
    pub key: CounterKey,
    /// Its limit, whose holds are the leases.
    pub limit: Limit,
    /// Index of the rule.
    pub rule: usize,
    /// Leases refill by the second.
    pub refills: bool,
    /// Shadow mode: everything passes, and is counted.
    pub is_shadow: bool,
    on_store_error: OnStoreError,
}

impl Engine {
    /// The rule of a bucket with these entries, in the order of their keys.
    #[must_use]
    pub fn quota_rule(&self, active: &Active, domain: &str, bucket: Vec<Entry>) -> QuotaRule {
        let Some(rules) = active.rules.domains.get(domain) else {
            self.metrics.unknown_domain.inc();
            return QuotaRule::Unlimited;
        };
        let Some(mapping) = &rules.quota else {
            return QuotaRule::NotEnabled;
        };
        let descriptor = Descriptor {
            entries: mapping.entries(bucket),
            ..Descriptor::default()
        };
        let Some(matched) = rules.find(&descriptor.entries) else {
            return QuotaRule::Unlimited;
        };
        // A lease has one counter.
        let [rule] = matched.rules else {
            return QuotaRule::NotLeasable;
        };
        let Some(limit) = rule.limit else {
            return QuotaRule::Unlimited;
        };
        if !rule.rlqs {
            return QuotaRule::NotLeasable;
        }
        QuotaRule::Counted(Box::new(QuotaCounter {
            key: rule_key(&self.options, rule.owner(), &limit, domain, &descriptor, &matched),
            limit,
            rule: rule.index,
            refills: mapping.refill && matches!(limit.algorithm, Algorithm::TokenBucket { .. }),
            is_shadow: rule.shadow_mode || self.options.shadow_mode,
            on_store_error: rule.on_store_error.unwrap_or(self.options.on_store_error),
        }))
    }

    /// Carries out a step of an account. A store failure is not an error: `on_store_error` answers.
    pub async fn quota_step(&self, counter: &QuotaCounter, step: &QuotaStep) -> QuotaStand {
        let id = self.options.hold_id(self.clock.now_us());
        let transaction = counter.transaction(step, id);
        match self.store.check(&transaction).await {
            Ok(outcomes) => stand(step, id, &outcomes),
            Err(error) => self.quota_failed(counter, step, id, &error),
        }
    }

    /// The same at this time, where the store need not be waited for; `None` where it must be.
    #[must_use]
    pub fn quota_step_now(&self, counter: &QuotaCounter, step: &QuotaStep, now_us: u64) -> Option<QuotaStand> {
        let id = self.options.hold_id(now_us);
        let transaction = counter.of_step(&(), step, id);
        let outcomes = self.store.check_at_once(&counter.key, &transaction)?;
        Some(stand(step, id, &outcomes))
    }

    /// Decides in place of the store. Hits that the Envoy may still have count as used, since it is not known whether the store
    /// holds them.
    fn quota_failed(&self, counter: &QuotaCounter, step: &QuotaStep, id: HoldId, error: &StoreError) -> QuotaStand {
        self.report(error);
        let mode = counter.on_store_error;
        self.count_failure(mode);
        let held = step.keep + step.more.hits;
        if held > 0 && error.is_indeterminate() {
            let check = counter.check(&counter.key, Hits::Hold { hits: held, id });
            let ended = Correction::end_unknown(std::iter::once((&check, false)), true);
            ended.into_iter().for_each(|ended| self.store.correct(ended));
        }
        match mode {
            OnStoreError::Allow | OnStoreError::Deny => {
                let transaction = counter.transaction(step, id);
                let modes: SmallVec<[_; 3]> = SmallVec::from_elem(mode, transaction.checks.len());
                failure::charge_later(&*self.store, &transaction, &modes);
                QuotaStand {
                    id,
                    kept: 0,
                    got: 0,
                    slice: 0,
                    remaining: 0,
                    retry_after_us: crate::model::time::SECOND_US,
                    failure: Some(mode),
                }
            }
            OnStoreError::Local => {
                let without = QuotaStep { keep: 0, ..*step };
                // What the store may have held, or still holds, under the other one is ended.
                let id = self.options.hold_id(self.clock.now_us());
                let mut transaction = counter.transaction(&without, id);
                // Beside the settlement, which the store may have made already.
                let kept = (step.keep > 0).then(|| counter.check(&counter.key, Hits::Debit(step.keep)));
                transaction.checks.extend(kept);
                let modes: SmallVec<[_; 4]> = SmallVec::from_elem(mode, transaction.checks.len());
                let outcomes = failure::answer(self.fallback.as_deref(), &transaction, &modes);
                QuotaStand {
                    slice: 0,
                    failure: Some(mode),
                    ..stand(&without, id, &outcomes)
                }
            }
        }
    }

    /// Gives back hits that a report has proved unused.
    pub fn quota_return(&self, counter: &QuotaCounter, unused: &UnusedHits) {
        self.store.correct(Correction {
            counter: counter.key.clone(),
            limit: counter.limit,
            slice: Some(unused.slice),
            hold: None,
            delta: -signed(unused.hits),
            lasts: Duration::from_micros(horizon_us(&counter.limit)),
            cause: Cause::Lease,
        });
    }

    /// Counts requests that Envoys have decided by themselves, in the rule's metrics.
    pub fn quota_used(&self, active: &Active, counter: &QuotaCounter, allowed: u64, denied: u64) {
        let Some(stats) = active.stats(counter.rule) else {
            return;
        };
        // Streams of all cores share these numbers, and most reports leave one of them alone.
        if allowed > 0 {
            stats.allowed.fetch_add(allowed, Relaxed);
            stats.within_limit.fetch_add(allowed, Relaxed);
        }
        if denied > 0 {
            stats.denied.fetch_add(denied, Relaxed);
            stats.over_limit.fetch_add(denied, Relaxed);
        }
        let all = allowed.saturating_add(denied);
        if all > 0 {
            stats.total_hits.fetch_add(all, Relaxed);
        }
        if let Some(activity) = &self.activity
            && denied > 0
        {
            activity
                .events
                .denied(Noted::new(&counter.key, || active.path(Some(counter.rule))));
        }
    }
}

impl QuotaCounter {
    /// The transaction of a step. Its checks do not depend on one another: each is done as far as it fits.
    fn transaction(&self, step: &QuotaStep, id: HoldId) -> Transaction {
        self.of_step(&self.key, step, id)
    }

    /// The same with checks that name the counter so.
    fn of_step<K: Clone>(&self, key: &K, step: &QuotaStep, id: HoldId) -> Transaction<Hits, K> {
        let settles = match (step.settles, step.used) {
            (Some(id), hits) => Some(Hits::Settle { hits, id }),
            (None, 0) => None,
            (None, hits) => Some(Hits::Debit(hits)),
        };
        let hold = |hits| (hits > 0).then_some(Hits::Hold { hits, id });
        let checks = [settles, hold(step.keep), hold(step.more.hits)];
        Transaction {
            checks: checks.into_iter().flatten().map(|hits| self.check(key, hits)).collect(),
            deadline: None,
            exact: true,
        }
    }

    fn check<K: Clone>(&self, key: &K, hits: Hits) -> Check<Hits, K> {
        Check {
            key: key.clone(),
            limit: self.limit,
            hits,
            enforcement: Enforcement::Shadow,
        }
    }
}

/// The result of a step, from the outcomes of its transaction's checks in order.
fn stand(step: &QuotaStep, id: HoldId, outcomes: &Outcomes) -> QuotaStand {
    let mut outcomes = outcomes.iter();
    let settled = (step.settles.is_some() || step.used > 0)
        .then(|| outcomes.next())
        .flatten();
    let kept = (step.keep > 0).then(|| outcomes.next()).flatten();
    let more = (step.more.hits > 0).then(|| outcomes.next()).flatten();
    let last = more.or(kept).or(settled);
    QuotaStand {
        id,
        kept: kept.map_or(0, |outcome| outcome.holds.own),
        got: more.map_or(0, |outcome| outcome.holds.own),
        slice: settled.map_or(0, |outcome| outcome.slice),
        remaining: last.map_or(0, |outcome| outcome.remaining),
        retry_after_us: match last.map(|outcome| outcome.retry_after) {
            Some(RetryAfter::Micros(us)) => us,
            _ => crate::model::time::SECOND_US,
        },
        failure: None,
    }
}
