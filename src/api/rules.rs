//! `GET /api/v1/rules`: the rules in force with what they decided.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use serde::{Deserialize, Serialize};

use crate::engine::Active;
use crate::rules::Rule;

use super::Api;
use super::problem::Problem;
use super::rates::counts;
use super::view::share;

/// Most rules in an answer.
const MAX_PAGE: usize = 1_000;
/// Most rules that may be skipped.
const MAX_OFFSET: usize = 1_000_000;
const USUAL_PAGE: usize = 200;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Page {
    domain: Option<String>,
    /// Part of a rule's path, name or domain.
    filter: Option<String>,
    #[serde(default)]
    order: Order,
    #[serde(default)]
    offset: usize,
    limit: Option<usize>,
}

#[derive(Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Order {
    /// As they are written.
    #[default]
    Written,
    /// Those first that deny most now, then those that have denied most.
    Denied,
}

#[derive(Serialize)]
pub(super) struct RuleList {
    generation: u64,
    /// Rules that the question takes, in this answer or not.
    total: usize,
    offset: usize,
    rules: Vec<RuleView>,
}

#[derive(Serialize)]
struct RuleView {
    domain: String,
    path: String,
    name: String,
    /// Where it is written.
    source: String,
    unlimited: bool,
    /// Hits in a window.
    limit: u32,
    window: String,
    algorithm: Option<&'static str>,
    shadow_mode: bool,
    quota_mode: bool,
    on_store_error: Option<&'static str>,
    decisions: Decisions<u64>,
    per_second: Decisions<f64>,
    near_limit: u64,
    candidate: Option<CandidateView>,
}

/// A limit that is tried beside the rule's.
#[derive(Serialize)]
struct CandidateView {
    limit: u32,
    window: String,
    algorithm: &'static str,
    decisions: Compared,
    /// Of all that both limits decided, 0 to 1: requests that only the candidate would deny.
    would_deny_share: f64,
}

/// What a candidate decided, compared with the limit in force.
#[derive(Serialize)]
struct Compared {
    both_allow: u64,
    would_deny: u64,
    would_allow: u64,
    both_deny: u64,
    error: u64,
}

#[derive(Serialize)]
struct Decisions<T> {
    allowed: T,
    denied: T,
    shadow_denied: T,
}

impl<T> From<[T; 3]> for Decisions<T> {
    fn from([allowed, denied, shadow_denied]: [T; 3]) -> Self {
        Self {
            allowed,
            denied,
            shadow_denied,
        }
    }
}

pub(super) async fn rules(
    State(api): State<Api>,
    page: Result<Query<Page>, QueryRejection>,
) -> Result<Json<RuleList>, Problem> {
    let Query(page) = page.map_err(|error| Problem::bad(error.body_text()))?;
    let active = api.0.parts.engine.active().ok_or_else(Problem::no_rules)?;
    let limit = page.limit.unwrap_or(USUAL_PAGE);
    if !(1..=MAX_PAGE).contains(&limit) {
        return Err(Problem::bad(format!("limit: allowed are 1 to {MAX_PAGE}")));
    }
    if page.offset > MAX_OFFSET {
        return Err(Problem::bad(format!("offset: allowed are 0 to {MAX_OFFSET}")));
    }
    let takes = |rule: &Rule| {
        page.domain.as_deref().is_none_or(|domain| domain == &*rule.domain)
            && page.filter.as_deref().is_none_or(|text| {
                let texts = [&rule.path, &rule.name, &rule.domain];
                texts.iter().any(|own| own.contains(text))
            })
    };
    let mut taken: Vec<_> = active.rules.rules.iter().filter(|rule| takes(rule)).collect();
    let now_us = api.0.parts.clock.now_us();
    if page.order == Order::Denied {
        let denials = |rule: &Arc<Rule>| {
            let decisions = counts(&active, rule.index);
            let [_, per_second, _] = api.0.rates.rate(&active, rule.index, decisions, now_us);
            (per_second, decisions[1])
        };
        let mut denying: Vec<_> = taken.into_iter().map(|rule| (denials(rule), rule)).collect();
        denying.sort_by(|(a, _), (b, _)| b.0.total_cmp(&a.0).then(b.1.cmp(&a.1)));
        taken = denying.into_iter().map(|(_, rule)| rule).collect();
    }
    let view = |rule: &Rule| rule_view(&api, &active, rule, now_us);
    Ok(Json(RuleList {
        generation: active.generation,
        total: taken.len(),
        offset: page.offset,
        rules: taken
            .iter()
            .skip(page.offset)
            .take(limit)
            .map(|rule| view(rule))
            .collect(),
    }))
}

fn candidate_view(active: &Active, rule: &Rule) -> Option<CandidateView> {
    let candidate = rule.candidate.as_ref()?;
    let stats = active.stats(rule.index)?.candidate()?;
    let decisions = Compared {
        both_allow: stats.both_allow.load(Relaxed),
        would_deny: stats.would_deny.load(Relaxed),
        would_allow: stats.would_allow.load(Relaxed),
        both_deny: stats.both_deny.load(Relaxed),
        error: stats.errors.load(Relaxed),
    };
    let all = decisions.both_allow + decisions.would_deny + decisions.would_allow + decisions.both_deny;
    Some(CandidateView {
        limit: candidate.requests_per_unit,
        window: candidate.window.to_string(),
        algorithm: candidate.limit.algorithm.kind().name(),
        would_deny_share: share(decisions.would_deny, all),
        decisions,
    })
}

fn rule_view(api: &Api, active: &Active, rule: &Rule, now_us: u64) -> RuleView {
    let decisions = counts(active, rule.index);
    RuleView {
        domain: rule.domain.to_string(),
        path: rule.path.to_string(),
        name: rule.name.to_string(),
        source: rule.source.to_string(),
        unlimited: rule.limit.is_none(),
        limit: rule.requests_per_unit,
        window: rule.window.to_string(),
        algorithm: rule.limit.map(|limit| limit.algorithm.kind().name()),
        shadow_mode: rule.shadow_mode,
        quota_mode: rule.quota_mode,
        on_store_error: rule.on_store_error.map(crate::rules::OnStoreError::name),
        decisions: decisions.into(),
        per_second: api.0.rates.rate(active, rule.index, decisions, now_us).into(),
        near_limit: active
            .stats(rule.index)
            .map_or(0, |stats| stats.near_limit.load(Relaxed)),
        candidate: candidate_view(active, rule),
    }
}
