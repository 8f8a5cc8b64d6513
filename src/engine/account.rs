//! Counts decisions, rule by rule.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::algorithms::quota;
use crate::model::{Descriptor, Hits, Request};
use crate::rules::{OnStoreError, Rule};
use crate::telemetry::activity::Noted;
use crate::telemetry::labels::{MAX_WITH_VALUE, bounded};
use crate::telemetry::rule_stats::tag_last;
use crate::telemetry::{Activity, Metrics, RuleStats, RuleStatsRegistry};

use super::active::Active;
use super::hits::brings_no_cost;
use super::options::EngineOptions;
use super::plan::{Plan, PlanEntry};
use super::status::{Counted, Decision, StatusLimit};

/// Counts a decision in the metrics of its rules. `failure` has a failure mode for each check; `None` = the store decided.
pub(super) fn count(
    options: &EngineOptions,
    metrics: &Metrics,
    request: &Request,
    plan: &Plan,
    decision: &Decision,
    failure: Option<&[OnStoreError]>,
) {
    count_defaults(metrics, plan, &decision.active);
    for (entry, status) in plan.entries.iter().zip(&decision.statuses) {
        let (PlanEntry::Counted { check, forgets, .. }, StatusLimit::Counted(counted)) = (entry, &status.limit) else {
            continue;
        };
        let Some(descriptor) = request.descriptors.get(status.descriptor) else {
            continue;
        };
        record_usage(metrics, request, descriptor, decision, counted, *forgets);
        // `local` has decided by the fallback counters, the other modes without a counter.
        let is_undecided = failure
            .and_then(|modes| modes.get(*check))
            .is_some_and(|mode| *mode != OnStoreError::Local);
        let Some(check) = plan.transaction.checks.get(*check) else {
            continue;
        };
        if let (Hits::SettleOldest { hits: cost @ 1.., .. }, Some(rule)) = (check.hits, counted.rule)
            && let Some(usage) = decision.active.usage(rule)
        {
            // No request is worth more than the whole limit, so that one outlier does not make all others wait.
            usage.record_cost(cost.min(quota(&check.limit)));
        }
        if check.limit.hold_us > 0 && !is_undecided {
            let mut holds = counted.outcome.holds;
            if failure.is_some() {
                // The store will tell of them.
                holds.expired = 0;
            }
            metrics.holds.record(check.hits, &holds);
        }
        let shadow = counted.denied && (options.shadow_mode || !status.over_limit);
        let count = |stats: &RuleStats| {
            count_outcome(stats, counted.denied, shadow, is_undecided);
            count_hits(stats, options.near_limit_ppm, counted, check.hits, shadow);
        };
        match counted.rule.and_then(|index| decision.active.rule(index)) {
            // In one series, as in envoyproxy/ratelimit: in two, sums would count twice.
            Some(rule) => match detailed(&metrics.rules, rule, descriptor) {
                Some(stats) => count(&stats),
                None => decision
                    .active
                    .stats(rule.index)
                    .into_iter()
                    .for_each(|stats| count(stats)),
            },
            None => decision
                .active
                .override_stats(&metrics.rules, &request.domain)
                .into_iter()
                .for_each(|stats| count(stats)),
        }
    }
}

/// Counts what is known of a request without any check.
pub(super) fn count_unlimited(metrics: &Metrics, request: &Request, plan: &Plan, active: &Active) {
    if !active.rules.domains.contains_key(request.domain.as_str()) {
        metrics.unknown_domain.inc();
    }
    count_defaults(metrics, plan, active);
}

/// Counts the descriptors whose plan is the default, because its source has none for the value.
fn count_defaults(metrics: &Metrics, plan: &Plan, active: &Active) {
    let by_default = |entry: &PlanEntry| match *entry {
        PlanEntry::Unlimited { rule, by_default: true } => Some(rule),
        PlanEntry::Counted {
            rule, by_default: true, ..
        } => rule,
        _ => None,
    };
    for rule in plan.entries.iter().filter_map(by_default) {
        if let Some(from) = active.rule(rule).and_then(|rule| rule.plan_from.as_ref()) {
            metrics.plans.by_default(&from.source);
        }
    }
}

/// Records the counters that decided and those that denied, for the operator. A refund is not a decision.
pub(super) fn observe(activity: &Activity, plan: &Plan, decision: &Decision) {
    for (entry, status) in plan.entries.iter().zip(&decision.statuses) {
        let PlanEntry::Counted { check, rule, .. } = entry else {
            continue;
        };
        let Some(check) = plan.transaction.checks.get(*check) else {
            continue;
        };
        if matches!(check.hits, Hits::Refund(_)) {
            continue;
        }
        let noted = Noted::new(&check.key, || decision.active.path(*rule));
        // By `over_limit`, since a rule in shadow mode does not deny.
        if let Some(top) = &activity.top {
            top.record(noted, status.over_limit);
        }
        if status.over_limit {
            activity.events.denied(noted);
        }
    }
}

/// Records whether requests peek at this limit before they bring their cost, and logs once if such a cost is not counted.
fn record_usage(
    metrics: &Metrics,
    request: &Request,
    descriptor: &Descriptor,
    decision: &Decision,
    counted: &Counted,
    forgets: bool,
) {
    let active = &decision.active;
    let usage = match counted.rule {
        Some(rule) => active.usage(rule),
        None => active.override_usage(&request.domain),
    };
    let Some(usage) = usage else { return };
    if brings_no_cost(descriptor) {
        usage.record_peek();
    }
    // All or nothing: the cost is not counted either if another limit of the request denies it.
    if !forgets || descriptor.is_negative_hits || !(counted.denied || decision.over_limit) {
        return;
    }
    metrics.edges.forgotten_charges.inc();
    if usage.record_forgotten() {
        let rule = counted.rule.and_then(|rule| active.rule(rule));
        tracing::warn!(
            domain = request.domain,
            rule = rule.map_or("override", |rule| &rule.path),
            "hits that follow a check with 0 hits (or none of its own) were denied and are not counted, so that their \
             quota may never run out: set --charge-after-peek (CHARGE_AFTER_PEEK), or count_denied: true on the rule; \
             further ones are only counted, in sluicegate_forgotten_charges_total"
        );
    }
}

fn count_outcome(stats: &RuleStats, denied: bool, shadow: bool, is_undecided: bool) {
    let counter = match (denied, shadow) {
        _ if is_undecided => &stats.errors,
        (false, _) => &stats.allowed,
        (true, false) => &stats.denied,
        (true, true) => &stats.shadow_denied,
    };
    counter.fetch_add(1, Relaxed);
}

fn count_hits(stats: &RuleStats, near_limit_ppm: u32, counted: &Counted, asked: Hits, shadow: bool) {
    let hits = match asked {
        Hits::Acquire(hits) | Hits::Debit(hits) => hits,
        // Hits that pass as a hold are counted when it is settled, once.
        Hits::Hold { hits, .. } if counted.denied => hits,
        Hits::Settle { hits, .. } if !counted.outcome.holds.repeated => hits,
        Hits::SettleOldest { hits, .. } => hits,
        Hits::Hold { .. } | Hits::HoldMean(_) | Hits::Settle { .. } | Hits::Peek | Hits::Refund(_) => return,
    };
    stats.total_hits.fetch_add(hits, Relaxed);
    // A denied request is not in the counter, or it was charged and nothing remains: it is split as if it had been counted.
    let (left, on_top) = match (counted.denied, asked) {
        (false, _) => (counted.outcome.remaining + counted.outcome.holds.open, 0),
        (true, Hits::Debit(_) | Hits::Settle { .. } | Hits::SettleOldest { .. }) => (counted.outcome.room, hits),
        (true, _) => (counted.outcome.remaining, hits),
    };
    let after = counted.limit_hits.saturating_sub(left).saturating_add(on_top);
    let split = split_hits(counted.limit_hits, near_limit_ppm, hits, after, counted.denied);
    add(&stats.over_limit, split.over);
    add(&stats.near_limit, split.near);
    add(&stats.within_limit, split.within);
    if counted.outcome.cached {
        add(&stats.over_limit_with_local_cache, split.over);
    }
    if shadow {
        add(&stats.shadow_mode, split.over);
    }
}

/// Adds hits; zeros are common, and need not write to a shared cache line.
fn add(counter: &AtomicU64, hits: u64) {
    if hits > 0 {
        counter.fetch_add(hits, Relaxed);
    }
}

#[derive(Debug, PartialEq, Eq)]
struct Split {
    over: u64,
    near: u64,
    within: u64,
}

/// One call's hits, split as envoyproxy/ratelimit splits them: `after` is the count with these hits in it.
fn split_hits(limit: u64, near_limit_ppm: u32, hits: u64, after: u64, denied: bool) -> Split {
    let threshold = u64::try_from(u128::from(limit) * u128::from(near_limit_ppm) / 1_000_000).unwrap_or(u64::MAX);
    let before = after.saturating_sub(hits);
    if denied || after > limit {
        let over = after.saturating_sub(before.max(limit)).max(u64::from(denied)).min(hits);
        let near = limit.saturating_sub(before.max(threshold)).min(hits - over);
        return Split { over, near, within: 0 };
    }
    Split {
        over: 0,
        near: after.saturating_sub(before.max(threshold)),
        within: hits,
    }
}

/// The series with request values as labels, for a rule with `detailed_metric` or `value_to_metric`. The registry bounds their
/// number.
fn detailed(registry: &RuleStatsRegistry, rule: &Rule, descriptor: &Descriptor) -> Option<Arc<RuleStats>> {
    if !rule.detailed_metric && !rule.value_to_metric.contains(&true) {
        return None;
    }
    let names = rule
        .levels
        .iter()
        .zip(&descriptor.entries)
        .enumerate()
        .map(|(level, ((key, value), entry))| {
            let is = |levels: &[bool]| levels.get(level).copied().unwrap_or(false);
            let own = (rule.detailed_metric || is(&rule.value_to_metric)) && !is(&rule.shared);
            match if own { entry.value.as_str() } else { value.as_str() } {
                "" => key.clone(),
                // Only values of requests: the rule's own are bounded by its file.
                own if own != value => bounded(&format!("{key}_{own}"), MAX_WITH_VALUE).into_owned(),
                value => format!("{key}_{value}"),
            }
        });
    let mut names: Vec<String> = names.collect();
    tag_last(&mut names, rule);
    registry.detailed(&rule.domain, Some(&rule.path), names)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// (limit, hits, count after) -> (over, near, within), from compatibility with envoyproxy/ratelimit.
    #[test]
    fn hits_are_split_as_existing_dashboards_expect() {
        let split = |limit, hits, after| {
            let Split { over, near, within } = split_hits(limit, 800_000, hits, after, after > limit);
            (over, near, within)
        };
        assert_eq!(split(15, 1, 13), (0, 1, 1));
        assert_eq!(split(20, 3, 22), (2, 1, 0));
        assert_eq!(split(20, 7, 22), (2, 4, 0));
        assert_eq!(split(10, 3, 30), (3, 0, 0));
        assert_eq!(split(8, 2, 7), (0, 1, 2));
        assert_eq!(split(10, 1, 5), (0, 0, 1));
    }
}
