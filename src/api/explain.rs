//! `POST /api/v1/explain`: which rule counts a request, why no other does, and whether it would pass now;
//! `GET /api/v1/counters`: one counter's state. Both count nothing.

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};

use crate::config::settings::StoreKind;
use crate::engine::{Active, Counter, Look, Looked, RequestError};
use crate::model::{Descriptor, Enforcement, Hits, Request};
use crate::rules::trace::{Match, Step, Trace, Why};
use crate::rules::{Matched, OnStoreError, Rule};
use crate::telemetry::activity::Noted;

use super::Api;
use super::body::Body;
use super::problem::Problem;
use super::question::{Question, by_descriptors, parse_descriptor};
use super::top::id_of;
use super::view::EntryView;

#[derive(Serialize)]
pub(super) struct Explanation {
    generation: u64,
    domain: String,
    /// Some rules file has the domain.
    domain_known: bool,
    would_pass: bool,
    descriptors: Vec<DescriptorView>,
}

#[derive(Serialize)]
struct DescriptorView {
    entries: Vec<EntryView>,
    /// `counted`, `unlimited`, `replaced` or `no_rule`.
    outcome: &'static str,
    /// Level by level.
    steps: Vec<StepView>,
    rule: Option<MatchedRule>,
    /// The plan of the value, where the rule has a source of plans.
    plan: Option<PlanView>,
    counter: Option<CounterState>,
    /// Where the rule is one of several limits: the others.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    others: Vec<LimitView>,
}

/// One of several limits of a descriptor.
#[derive(Serialize)]
struct LimitView {
    outcome: &'static str,
    rule: MatchedRule,
    #[serde(skip_serializing_if = "Option::is_none")]
    plan: Option<PlanView>,
    counter: Option<CounterState>,
}

#[derive(Serialize)]
struct StepView {
    key: String,
    value: String,
    /// `value`, `list`, `network`, `pattern`, `regex`, `key`, or nothing matched.
    matched: Option<&'static str>,
    /// The pattern, or the name of the set.
    pattern: Option<String>,
    others: Vec<OtherView>,
    more_others: usize,
}

#[derive(Serialize)]
struct OtherView {
    text: String,
    why: &'static str,
}

#[derive(Serialize)]
struct MatchedRule {
    path: String,
    name: String,
    source: String,
    shadow_mode: bool,
    quota_mode: bool,
    replaces: Vec<String>,
}

#[derive(Serialize)]
struct PlanView {
    source: String,
    /// Of the plan, or the limit that the entry has of its own.
    name: String,
    /// The source has none for the value.
    by_default: bool,
    /// It had one, which has expired.
    expired: bool,
}

/// A counter as it stands.
#[derive(Serialize)]
pub(super) struct CounterState {
    /// For `history`, where it was among the most frequent.
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    key: String,
    algorithm: &'static str,
    limit: u64,
    window: String,
    /// What an unused counter lets pass at once: the size of a bucket, else the limit.
    quota: u64,
    used: u64,
    /// Hits of open holds.
    held: u64,
    remaining: u64,
    resets_in_ms: u64,
    /// What the request would cost; 0 = it only asks.
    hits: u64,
    would_pass: bool,
    /// Until a hit passes; nothing where no waiting helps.
    retry_in_ms: Option<u64>,
    /// A denial here denies the request.
    enforced: bool,
    /// What is over passes with a mark (`on_limit: mark`).
    marks: bool,
    /// `memory`, `redis`, `fallback` (Redis does not answer), or `none` (it does not, and nothing counts).
    read_from: &'static str,
    /// A cached denial answered; the store was not asked.
    cached: bool,
    /// Where the descriptor has several limits: the others' counters.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    others: Vec<Self>,
}

pub(super) async fn explain(
    State(api): State<Api>,
    Body(question): Body<Question>,
) -> Result<Json<Explanation>, Problem> {
    let active = api.0.parts.engine.active().ok_or_else(Problem::no_rules)?;
    let request = question.request(&active)?;
    if request.descriptors.is_empty() {
        // The mapping made none: the request is not limited.
        return Ok(Json(explanation(&api, &request, None, &active)));
    }
    let look = api.0.parts.engine.look(&request).await.map_err(refused)?;
    let active = std::sync::Arc::clone(&look.active);
    Ok(Json(explanation(&api, &request, Some(&look), &active)))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Which {
    domain: String,
    /// `key=value|key=value`.
    descriptor: String,
}

pub(super) async fn counters(
    State(api): State<Api>,
    which: Result<Query<Which>, QueryRejection>,
) -> Result<Json<CounterState>, Problem> {
    let Query(which) = which.map_err(|error| Problem::bad(error.body_text()))?;
    let asked = by_descriptors(which.domain, vec![parse_descriptor(&which.descriptor)], 0)?;
    let look = api.0.parts.engine.look(&asked).await.map_err(refused)?;
    let mut states: Vec<CounterState> = look
        .counters()
        .map(|counter| state(&api, &look.active, counter))
        .collect();
    if states.is_empty() {
        let detail = "no rule counts this descriptor; POST /api/v1/explain says why";
        return Err(Problem::new(StatusCode::NOT_FOUND, detail));
    }
    // A limit that denies first.
    states.sort_by_key(|state| state.would_pass);
    let mut first = states.remove(0);
    first.others = states;
    Ok(Json(first))
}

pub(super) fn refused(error: RequestError) -> Problem {
    match error {
        RequestError::NoConfiguration => Problem::no_rules(),
        error => Problem::bad(error.to_string()),
    }
}

fn explanation(api: &Api, request: &Request, look: Option<&Look>, active: &Active) -> Explanation {
    let domain = active.rules.domains.get(request.domain.as_str());
    let view = |(at, descriptor): (usize, &Descriptor)| {
        let trace = domain
            .map(|domain| domain.trace(&descriptor.entries))
            .unwrap_or_default();
        let looked = look.map_or(&[][..], |look| &look.limits);
        let looked = looked.iter().filter(|(of, _)| *of == at).map(|(_, looked)| looked);
        let matched = domain.and_then(|domain| domain.find(&descriptor.entries));
        descriptor_view(api, active, (descriptor, matched), looked.collect(), &trace)
    };
    let descriptors = request.descriptors.iter().enumerate();
    Explanation {
        generation: active.generation,
        domain: request.domain.clone(),
        domain_known: domain.is_some(),
        would_pass: look.is_none_or(|look| look.would_pass),
        descriptors: descriptors.map(view).collect(),
    }
}

fn descriptor_view(
    api: &Api,
    active: &Active,
    (descriptor, matched): (&Descriptor, Option<Matched<'_>>),
    mut looked: Vec<&Looked>,
    trace: &Trace<'_>,
) -> DescriptorView {
    // A limit that denies first: the answer is about it.
    looked.sort_by_key(|looked| looked.counter().is_none_or(Counter::would_pass));
    let rule_of = |looked: &Looked| looked.rule().and_then(|rule| active.rule(rule));
    let plan_of = |rule: &Arc<Rule>| plan_view(api, descriptor, matched.as_ref()?, rule);
    let outcome_of = |looked: &Looked| match looked {
        Looked::Counted(_) => "counted",
        Looked::Unlimited { .. } => "unlimited",
        Looked::Uncounted if !trace.rules.is_empty() => "replaced",
        Looked::Uncounted => "no_rule",
    };
    let entries = descriptor.entries.iter();
    let first = looked.first().copied().unwrap_or(&Looked::Uncounted);
    let counter = |looked: &Looked| looked.counter().map(|counter| state(api, active, counter));
    let rule = rule_of(first).or_else(|| trace.rules.first());
    DescriptorView {
        entries: entries
            .clone()
            .map(|entry| EntryView {
                key: entry.key.clone(),
                value: entry.value.clone(),
                shared: false,
            })
            .collect(),
        outcome: outcome_of(first),
        steps: entries
            .zip(&trace.steps)
            .map(|(entry, step)| step_view(&entry.key, &entry.value, step))
            .collect(),
        rule: rule.map(|rule| matched_rule(rule)),
        plan: rule.and_then(plan_of),
        counter: counter(first),
        others: looked
            .iter()
            .skip(1)
            .filter_map(|looked| {
                let rule = rule_of(looked)?;
                Some(LimitView {
                    outcome: outcome_of(looked),
                    rule: matched_rule(rule),
                    plan: plan_of(rule),
                    counter: counter(looked),
                })
            })
            .collect(),
    }
}

fn step_view(key: &str, value: &str, step: &Step<'_>) -> StepView {
    let (matched, pattern) = match step.matched {
        None => (None, None),
        Some(Match::Value) => (Some("value"), None),
        Some(Match::List(name)) => (Some("list"), Some(name.to_owned())),
        Some(Match::Network(name)) => (Some("network"), Some(name.to_owned())),
        Some(Match::Pattern(pattern)) => (Some("pattern"), Some(pattern.to_owned())),
        Some(Match::Regex(name)) => (Some("regex"), Some(name.to_owned())),
        Some(Match::Key) => (Some("key"), None),
    };
    let others = step.others.iter().map(|other| OtherView {
        text: other.text.to_owned(),
        why: match other.why {
            Why::OtherValue => "other_value",
            Why::NoFit => "pattern_does_not_fit",
            Why::TooLong => "too_long_for_regex",
            Why::LessSpecific => "less_specific",
            Why::OtherKey => "other_key",
        },
    });
    StepView {
        key: key.to_owned(),
        value: value.to_owned(),
        matched,
        pattern,
        others: others.collect(),
        more_others: step.more,
    }
}

fn plan_view(api: &Api, descriptor: &Descriptor, matched: &Matched<'_>, rule: &Rule) -> Option<PlanView> {
    let from = rule.plan_from.as_ref()?;
    let value = matched.value_of_last(&descriptor.entries)?;
    let now_us = api.0.parts.clock.now_us();
    let given = from.given(&value, now_us);
    Some(PlanView {
        expired: from.has_expired(&value, now_us),
        source: from.source.name.to_string(),
        by_default: given.is_none(),
        name: given.as_ref().unwrap_or(&from.default).name.to_string(),
    })
}

fn matched_rule(rule: &Rule) -> MatchedRule {
    MatchedRule {
        path: rule.path.to_string(),
        name: rule.name.to_string(),
        source: rule.source.to_string(),
        shadow_mode: rule.shadow_mode,
        quota_mode: rule.quota_mode,
        replaces: rule.replaces.to_vec(),
    }
}

fn state(api: &Api, active: &Active, counter: &Counter) -> CounterState {
    let path = || Some(&*active.rule(counter.rule?)?.path);
    CounterState {
        id: id_of(api, Noted::new(&counter.key, path)),
        key: counter.key.to_string(),
        algorithm: counter.limit.algorithm.kind().name(),
        limit: counter.limit.hits,
        window: counter.window.to_string(),
        quota: counter.quota(),
        used: counter.used(),
        held: counter.held(),
        remaining: counter.outcome.remaining.min(counter.quota()),
        resets_in_ms: counter.outcome.reset_after_us.div_ceil(1_000),
        hits: match counter.hits {
            Hits::Acquire(hits) | Hits::Debit(hits) | Hits::Hold { hits, .. } | Hits::SettleOldest { hits, .. } => hits,
            _ => 0,
        },
        would_pass: counter.would_pass(),
        retry_in_ms: counter.retry_after_us().map(|us| us.div_ceil(1_000)),
        enforced: counter.enforcement != Enforcement::Shadow,
        marks: counter
            .rule
            .and_then(|rule| active.rule(rule))
            .is_some_and(|rule| rule.marks),
        read_from: match (counter.failure, api.0.settings.store.kind) {
            (Some(OnStoreError::Local), _) => "fallback",
            (Some(OnStoreError::Allow | OnStoreError::Deny), _) => "none",
            (None, StoreKind::Memory) => "memory",
            (None, StoreKind::Redis) => "redis",
        },
        cached: counter.outcome.cached,
        others: Vec::new(),
    }
}
