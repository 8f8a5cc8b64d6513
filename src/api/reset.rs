//! `POST /api/v1/counters/reset`: lets keys through again. Asked for a descriptor or a rule it changes nothing, and answers
//! what would be reset, with a token; asked with that token it resets exactly those counters. Each leaves a line in the log.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Json;
use axum::extract::{ConnectInfo, State};
use axum::http::StatusCode;
use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};

use crate::engine::{Active, Counter, FindError, SearchPosition};
use crate::rules::Rule;
use crate::rules::pattern::{MAX_WILDCARDS, Pattern};
use crate::store::reset::{Named, Reset};

use super::Api;
use super::body::Body;
use super::explain::refused;
use super::problem::Problem;
use super::question::{Asked, AskedEntry, by_descriptors, short, text};
use super::selections::{MAX_COUNTERS, MAX_WAITING, Selection, VALID};
use super::view::CounterView;

/// Counters that a selection shows.
const SHOWN: usize = 20;
/// Hex digits of a token.
const TOKEN_DIGITS: usize = 32;

/// What is asked for.
pub(super) enum ResetQuestion {
    Confirm(Confirm),
    Exact(Exact),
    Rule(ByRule),
}

/// By the field that only one of them has, so that what is wrong with it can be said.
impl<'de> Deserialize<'de> for ResetQuestion {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let fields = Map::deserialize(deserializer)?;
        let has = |name| fields.contains_key(name);
        let (is_confirm, is_rule, is_exact) = (has("token"), has("rule"), has("entries"));
        let fields = Value::Object(fields);
        if is_confirm {
            serde_json::from_value(fields).map(Self::Confirm)
        } else if is_rule {
            serde_json::from_value(fields).map(Self::Rule)
        } else if is_exact {
            serde_json::from_value(fields).map(Self::Exact)
        } else {
            let given = "give a domain with entries, a domain with a rule, or the token of a selection";
            return Err(D::Error::custom(given));
        }
        .map_err(D::Error::custom)
    }
}

/// Carries a selection out.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Confirm {
    token: String,
}

/// The counters of a descriptor.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Exact {
    domain: String,
    entries: Vec<AskedEntry>,
}

/// Counters of a rule.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ByRule {
    domain: String,
    /// Its path.
    rule: String,
    /// What their descriptors (`key=value|key=value`) look like; `*` stands for any text.
    #[serde(default = "anything", rename = "match")]
    pattern: String,
    /// Where the search before ended.
    from: Option<String>,
}

fn anything() -> String {
    "*".to_owned()
}

#[derive(Serialize)]
#[serde(untagged)]
pub(super) enum ResetAnswer {
    Selected(Selected),
    Done(Done),
}

/// What would be reset.
#[derive(Serialize)]
pub(super) struct Selected {
    token: String,
    expires_in_seconds: u64,
    counters: usize,
    /// No other counters fit: the search has looked at all keys.
    complete: bool,
    /// Where the search goes on, for the question's `from`.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
    /// Hits that a single counter has in use.
    #[serde(skip_serializing_if = "Option::is_none")]
    used: Option<u64>,
    sample: Vec<CounterView>,
}

/// What was reset.
#[derive(Serialize)]
pub(super) struct Done {
    counters: usize,
    /// Hits that they had in use, together.
    hits: u64,
    /// Without, other replicas keep cached denials until these end by themselves.
    replicas_told: bool,
}

pub(super) async fn reset(
    State(api): State<Api>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    Body(question): Body<ResetQuestion>,
) -> Result<Json<ResetAnswer>, Problem> {
    let active = api.0.parts.engine.active().ok_or_else(Problem::no_rules)?;
    match question {
        ResetQuestion::Confirm(confirm) => carry_out(&api, peer, &confirm.token).await,
        ResetQuestion::Exact(exact) => select_one(&api, exact).await,
        ResetQuestion::Rule(by_rule) => select_rule(&api, &active, by_rule).await,
    }
    .map(Json)
}

async fn select_one(api: &Api, exact: Exact) -> Result<ResetAnswer, Problem> {
    let asked = Asked {
        entries: exact.entries,
        hits_addend: None,
    };
    let request = by_descriptors(exact.domain, vec![asked], 0)?;
    let look = api.0.parts.engine.look(&request).await.map_err(refused)?;
    let counters: Vec<&Counter> = look.counters().collect();
    let Some(first) = counters.first() else {
        let detail = "no rule counts this descriptor; POST /api/v1/explain says why";
        return Err(Problem::new(StatusCode::NOT_FOUND, detail));
    };
    if counters.iter().any(|counter| counter.failure.is_some()) {
        return Err(store_unavailable("it does not answer"));
    }
    let used = (counters.len() == 1).then(|| first.used());
    let shown = api.0.masker.counter(first.key.as_str(), Some(&look.active));
    let what = shown.to_string();
    let counters = counters.iter().map(|counter| (counter.key.clone(), counter.limit));
    Ok(selected(api, counters.collect(), None, used, what))
}

async fn select_rule(api: &Api, active: &Active, by_rule: ByRule) -> Result<ResetAnswer, Problem> {
    text("domain", &by_rule.domain)?;
    text("rule", &by_rule.rule)?;
    short("match", &by_rule.pattern)?;
    let is_it = |rule: &&Arc<Rule>| *rule.domain == *by_rule.domain && *rule.path == *by_rule.rule;
    let rule = active.rules.rules.iter().find(is_it);
    let rule = rule.ok_or_else(|| Problem::new(StatusCode::NOT_FOUND, "no such rule; GET /api/v1/rules lists them"))?;
    let pattern = Pattern::new(&by_rule.pattern);
    let pattern = pattern.ok_or_else(|| Problem::bad(format!("match: allowed are {MAX_WILDCARDS} wildcards")))?;
    let from = by_rule
        .from
        .as_deref()
        .map_or(Some(SearchPosition::default()), SearchPosition::parse);
    let from = from.ok_or_else(|| Problem::bad("from: allowed is what a selection has as `next`"))?;
    // One search at a time: each costs the store a look at all of its keys.
    let Ok(_permit) = api.0.search.try_acquire() else {
        let detail = "another search for counters is under way; try again";
        return Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, detail));
    };
    let found = api.0.parts.engine.find(active, rule, &pattern, from).await;
    let found = found.map_err(|error| match error {
        FindError::Unlimited => Problem::new(StatusCode::NOT_FOUND, error.to_string()),
        FindError::NoNames => Problem::new(StatusCode::CONFLICT, error.to_string()),
        FindError::Position => Problem::new(StatusCode::BAD_REQUEST, error.to_string()),
        FindError::Store(error) => store_unavailable(&error.to_string()),
    })?;
    let pattern = if api.0.masker.masks() {
        "(masked)"
    } else {
        &by_rule.pattern
    };
    let what = format!("domain={} rule={} match={pattern}", by_rule.domain, by_rule.rule);
    Ok(selected(api, found.counters, found.next, None, what))
}

fn selected(
    api: &Api,
    counters: Vec<Named>,
    next: Option<SearchPosition>,
    used: Option<u64>,
    what: String,
) -> ResetAnswer {
    let active = api.0.parts.engine.active();
    let sample = counters.iter().take(SHOWN);
    ResetAnswer::Selected(Selected {
        expires_in_seconds: VALID.as_secs(),
        counters: counters.len(),
        complete: next.is_none(),
        next: next.map(|next| next.to_string()),
        used,
        sample: sample
            .map(|(key, _)| api.0.masker.counter(key.as_str(), active.as_deref()))
            .collect(),
        token: api.0.selections.keep(counters, what),
    })
}

async fn carry_out(api: &Api, peer: SocketAddr, token: &str) -> Result<ResetAnswer, Problem> {
    let is_token = token.len() == TOKEN_DIGITS && token.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    if !is_token {
        return Err(Problem::bad(format!(
            "token: {TOKEN_DIGITS} hex digits, as a selection was answered with"
        )));
    }
    let selection = api.0.selections.take(token).ok_or_else(|| {
        let detail = format!(
            "no selection waits under this token: it was carried out, asked for at another replica, is older than {} s, or newer \
             dry runs have displaced it ({MAX_WAITING} wait at most, with {MAX_COUNTERS} counters together)",
            VALID.as_secs()
        );
        Problem::new(StatusCode::CONFLICT, detail)
    })?;
    // To its end, also if the caller leaves: what is reset must be logged and told.
    let (wanted, shared) = (selection.counters.len(), Arc::clone(&api.0));
    let work = tokio::spawn(async move {
        let done = shared.parts.engine.reset(&selection.counters).await;
        log(peer, &selection, &done);
        if done.failed.is_some() {
            shared.selections.put_back(selection);
        }
        done
    });
    let done = work
        .await
        .map_err(|_| Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "the reset has failed"))?;
    if let Some(error) = done.failed {
        let fate = match done.unknown {
            0 => String::new(),
            unknown => format!("; whether {unknown} more were is unknown"),
        };
        return Err(store_unavailable(&format!(
            "{} of {wanted} counters were reset{fate}; {error}; the token still serves until its time is over",
            done.counters
        )));
    }
    Ok(ResetAnswer::Done(Done {
        counters: done.counters,
        hits: done.hits,
        replicas_told: done.announced,
    }))
}

/// The line of the log that says who reset what, and whether it is known to have happened.
fn log(peer: SocketAddr, selection: &Selection, done: &Reset) {
    let message = match (&done.failed, done.unknown) {
        (None, _) => "an operator has reset counters",
        (Some(_), 0) => "an operator's reset has failed: only as many counters as the line says were reset",
        (Some(_), _) => "an operator's reset has failed, and its outcome is unknown: some counters may have been reset",
    };
    tracing::warn!(
        who = %peer,
        what = ?selection.what,
        counters = done.counters,
        unknown = done.unknown,
        of = selection.counters.len(),
        hits_before = done.hits,
        // Of nothing, nobody was told.
        replicas_told = done.announced && done.counters > 0,
        error = done.failed.as_ref().map(tracing::field::display),
        "{message}"
    );
}

/// 503: nothing can be reset while what is decided is not the store's.
fn store_unavailable(why: &str) -> Problem {
    let detail = format!("the store cannot reset counters now: {why}; try again when it answers");
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, detail)
}
