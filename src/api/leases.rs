//! `GET /api/v1/leases`: which Envoy holds how much of which limit (RLQS).

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use serde::{Deserialize, Serialize};

use crate::service::rlqs::LeaseFilter;

use super::Api;
use super::problem::Problem;
use super::question::list_limit;
use super::view::CounterView;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct LeaseQuery {
    domain: Option<String>,
    rule: Option<String>,
    envoy: Option<String>,
    limit: Option<usize>,
}

#[derive(Serialize)]
pub(super) struct LeaseListView {
    /// Streams of this replica.
    streams: u64,
    /// Those whose leases are not counted here, because they wait for the store.
    streams_without_answer: u64,
    /// Leases that the question takes, in this answer or not.
    total: u64,
    /// Requests that they hold.
    held: u64,
    leases: Vec<LeaseView>,
}

#[derive(Serialize)]
struct LeaseView {
    #[serde(flatten)]
    counter: CounterView,
    /// A number, as long as the stream lives.
    stream: u64,
    /// What the Envoy calls itself.
    envoy: String,
    /// It has not reported in time, and gets nothing more.
    late: bool,
    granted: u64,
    used: u64,
    held: u64,
    /// 0 = it is over, and held until a report says what was used.
    expires_in_ms: u64,
}

pub(super) async fn leases(
    State(api): State<Api>,
    question: Result<Query<LeaseQuery>, QueryRejection>,
) -> Result<Json<LeaseListView>, Problem> {
    let Query(question) = question.map_err(|error| Problem::bad(error.body_text()))?;
    let limit = list_limit(question.limit)?;
    let filter = LeaseFilter {
        domain: question.domain,
        rule: question.rule,
        envoy: question.envoy,
        limit,
    };
    let list = api.0.parts.quota.leases(filter).await;
    let active = api.0.parts.engine.active();
    let now_us = api.0.parts.clock.now_us();
    let view = |entry: crate::service::rlqs::LeaseEntry| LeaseView {
        counter: api.0.masker.counter(entry.key.as_str(), active.as_deref()),
        stream: entry.stream,
        envoy: entry.envoy.to_string(),
        late: entry.is_late,
        granted: entry.lease.granted,
        used: entry.lease.used,
        held: entry.lease.held,
        expires_in_ms: entry.lease.end_us.saturating_sub(now_us) / 1000,
    };
    Ok(Json(LeaseListView {
        streams: list.streams,
        streams_without_answer: list.streams - list.answered,
        total: list.total,
        held: list.held,
        leases: list.leases.into_iter().map(view).collect(),
    }))
}
