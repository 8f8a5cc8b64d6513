//! `GET /api/v1/top`: who asks most, and who is denied most; `GET /api/v1/history`: one of them over the last hour.

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};

use crate::engine::Active;
use crate::model::key::Identity;
use crate::rules::Rule;
use crate::telemetry::activity::{By, History, Hitter, Noted, Span, Top, TopList};

use super::Api;
use super::problem::Problem;
use super::question::list_limit;
use super::view::{CounterView, share};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Question {
    rule: Option<String>,
    domain: Option<String>,
    #[serde(default)]
    by: ByName,
    #[serde(default)]
    window: WindowName,
    limit: Option<usize>,
    /// Counters of candidate limits, in place of those in force.
    #[serde(default)]
    candidates: bool,
    /// With what each counted slice by slice.
    #[serde(default)]
    slices: bool,
}

impl Question {
    /// Whether a counter is of the rule and the domain that are asked for.
    fn takes(&self, name: &str, active: Option<&Active>) -> bool {
        if self.rule.is_none() && self.domain.is_none() {
            return true;
        }
        let noted = Noted::read(name);
        let Some(identity) = Identity::of(noted.key) else {
            return false;
        };
        let is_rule = |path: &str| {
            let rule = active.and_then(|active| active.rule_of(&identity, noted.rule));
            rule.is_some_and(|rule| &*rule.path == path)
        };
        let is_domain = |domain: &str| identity.domain == domain;
        self.domain.as_deref().is_none_or(is_domain) && self.rule.as_deref().is_none_or(is_rule)
    }

    /// Whether the rule and the domain that are asked for are in force.
    fn exists(&self, active: &Active) -> Result<(), Problem> {
        let rules = &active.rules;
        let (domain, path) = (self.domain.as_deref(), self.rule.as_deref());
        if domain.is_some_and(|domain| !rules.domains.contains_key(domain)) {
            let detail = "no such domain; GET /api/v1/rules lists the rules with theirs";
            return Err(Problem::new(StatusCode::NOT_FOUND, detail));
        }
        let is_it = |rule: &Rule| domain.is_none_or(|domain| *rule.domain == *domain);
        let has = |path: &str| rules.rules.iter().any(|rule| *rule.path == *path && is_it(rule));
        if path.is_none_or(has) {
            return Ok(());
        }
        let detail = "no such rule; GET /api/v1/rules lists the rules' paths";
        Err(Problem::new(StatusCode::NOT_FOUND, detail))
    }
}

#[derive(Clone, Copy, Default, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
enum ByName {
    #[default]
    Denied,
    Hits,
}

#[derive(Clone, Copy, Default, Deserialize, Serialize)]
enum WindowName {
    #[serde(rename = "1m")]
    Minute,
    #[default]
    #[serde(rename = "10m")]
    TenMinutes,
    #[serde(rename = "1h")]
    Hour,
}

#[derive(Serialize)]
pub(super) struct TopView {
    by: ByName,
    window: WindowName,
    /// How much time is counted really.
    covers_seconds: u64,
    /// Decisions of all counters, and how many of them were denied.
    hits: u64,
    denied: u64,
    /// Lengths of the slices of time that the counters' `slices` are about, oldest first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    slice_seconds: Vec<u64>,
    counters: Vec<HitterView>,
}

#[derive(Serialize)]
struct HitterView {
    /// For `history`.
    id: String,
    #[serde(flatten)]
    counter: CounterView,
    /// Decisions: at least so many, and at most `…_error` more.
    hits: u64,
    hits_error: u64,
    denied: u64,
    denied_error: u64,
    /// Of all that the list is ordered by, 0 to 1.
    share: f64,
    /// What the list is ordered by, slice by slice.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    slices: Vec<u64>,
}

fn sketches(api: &Api, candidates: bool) -> Result<&Top, Problem> {
    let activity = &api.0.parts.activity;
    let sketches = if candidates {
        &activity.candidates
    } else {
        &activity.top
    };
    sketches.as_ref().ok_or_else(|| {
        Problem::new(
            StatusCode::NOT_FOUND,
            "heavy hitters are off: start the server with --top on",
        )
    })
}

pub(super) async fn top(
    State(api): State<Api>,
    question: Result<Query<Question>, QueryRejection>,
) -> Result<Json<TopView>, Problem> {
    let Query(question) = question.map_err(|error| Problem::bad(error.body_text()))?;
    let limit = list_limit(question.limit)?;
    let sketches = sketches(&api, question.candidates)?;
    let active = api.0.parts.engine.active();
    let by = match question.by {
        ByName::Denied => By::Denied,
        ByName::Hits => By::Hits,
    };
    let span = match question.window {
        WindowName::Minute => Span::Minute,
        WindowName::TenMinutes => Span::TenMinutes,
        WindowName::Hour => Span::Hour,
    };
    let takes = |name: &str| question.takes(name, active.as_deref());
    let list = sketches.list(by, span, limit, api.0.parts.clock.now_us(), takes);
    if list.hitters.is_empty()
        && let Some(active) = &active
    {
        // An empty list of what is misspelled would read as if it were quiet.
        question.exists(active)?;
    }
    let (slice_seconds, mut slices) = match question.slices {
        true => slices_of(sketches, &list, (by, span), api.0.parts.clock.now_us()),
        false => (Vec::new(), Vec::new()),
    };
    let view = |(at, hitter): (usize, &Hitter)| {
        let (part, of) = match by {
            By::Denied => (hitter.denied, list.denied),
            By::Hits => (hitter.hits, list.hits),
        };
        HitterView {
            id: id(&hitter.key),
            counter: api.0.masker.counter(&hitter.key, active.as_deref()),
            hits: hitter.hits,
            hits_error: hitter.hits_error,
            denied: hitter.denied,
            denied_error: hitter.denied_error,
            share: share(part, of),
            slices: slices.get_mut(at).map(std::mem::take).unwrap_or_default(),
        }
    };
    Ok(Json(TopView {
        by: question.by,
        window: question.window,
        covers_seconds: list.covers_us / 1_000_000,
        hits: list.hits,
        denied: list.denied,
        slice_seconds,
        counters: list.hitters.iter().enumerate().map(view).collect(),
    }))
}

/// The lengths of a window's slices in seconds, oldest first, and of each counter of a list what it is ordered by in each.
fn slices_of(sketches: &Top, list: &TopList, (by, span): (By, Span), now_us: u64) -> (Vec<u64>, Vec<Vec<u64>>) {
    let names: Vec<&str> = list.hitters.iter().map(|hitter| hitter.key.as_str()).collect();
    let histories = sketches.histories(&names, span, now_us);
    let count = |slice: &History| match by {
        By::Denied => slice.denied,
        By::Hits => slice.hits,
    };
    let first = histories.first().into_iter().flatten();
    let seconds = first.map(|slice| slice.length_us.div_ceil(1_000_000)).collect();
    let counts = histories.iter().map(|history| history.iter().map(count).collect());
    (seconds, counts.collect())
}

/// Names a counter without telling its values, by its [name](Noted::name).
fn id(name: &str) -> String {
    blake3::hash(name.as_bytes()).to_hex()[..16].to_owned()
}

/// What `history` calls a counter in force, if it was among the most frequent of the last hour.
pub(super) fn id_of(api: &Api, counter: Noted<'_>) -> Option<String> {
    let (sketches, name) = (sketches(api, false).ok()?, counter.name());
    let now_us = api.0.parts.clock.now_us();
    let is_listed = |by| {
        let list = sketches.list(by, Span::Hour, 1, now_us, |listed| listed == name);
        !list.hitters.is_empty()
    };
    (is_listed(By::Hits) || is_listed(By::Denied)).then(|| id(&name))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Which {
    id: String,
}

#[derive(Serialize)]
pub(super) struct HistoryView {
    counter: CounterView,
    /// Oldest first; coarser the longer ago.
    slices: Vec<SliceView>,
}

#[derive(Serialize)]
struct SliceView {
    began_seconds_ago: u64,
    seconds: u64,
    hits: u64,
    denied: u64,
}

pub(super) async fn history(
    State(api): State<Api>,
    which: Result<Query<Which>, QueryRejection>,
) -> Result<Json<HistoryView>, Problem> {
    let Query(which) = which.map_err(|error| Problem::bad(error.body_text()))?;
    let now_us = api.0.parts.clock.now_us();
    let is_it = |key: &str| id(key) == which.id;
    let found = [false, true].into_iter().find_map(|candidates| {
        let sketches = sketches(&api, candidates).ok()?;
        [By::Denied, By::Hits].into_iter().find_map(|by| {
            let list = sketches.list(by, Span::Hour, 1, now_us, is_it);
            Some((sketches, list.hitters.into_iter().next()?))
        })
    });
    let Some((sketches, hitter)) = found else {
        sketches(&api, false)?;
        let detail = "no frequent counter has this id; /api/v1/top lists those that there are";
        return Err(Problem::new(StatusCode::NOT_FOUND, detail));
    };
    let slices = sketches.history(&hitter.key, now_us).into_iter();
    Ok(Json(HistoryView {
        counter: api
            .0
            .masker
            .counter(&hitter.key, api.0.parts.engine.active().as_deref()),
        slices: slices
            .map(|slice| SliceView {
                began_seconds_ago: slice.began_us_ago / 1_000_000,
                seconds: slice.length_us / 1_000_000,
                hits: slice.hits,
                denied: slice.denied,
            })
            .collect(),
    }))
}
