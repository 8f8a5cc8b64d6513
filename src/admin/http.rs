//! The two HTTP ports as routers.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde::Deserialize;

use crate::engine::Engine;
use crate::telemetry::Metrics;

use super::health::Health;
use super::inspect;
use super::json::{self, JsonService};

/// The public port: `/healthcheck` and `/json`.
pub fn public(health: Health, json: JsonService) -> Router {
    Router::new()
        .route("/json", post(json::check).with_state(json))
        .route("/healthcheck", get(healthcheck).with_state(health))
}

/// What the admin port shows.
#[derive(Clone)]
pub struct Admin {
    /// The rules in force.
    pub engine: Arc<Engine>,
    /// The numbers.
    pub metrics: Arc<Metrics>,
    /// The verdict.
    pub health: Health,
}

/// The admin port: reads only; nothing here changes state.
pub fn admin(admin: Admin) -> Router {
    Router::new()
        .route("/healthcheck", get(healthcheck).with_state(admin.health.clone()))
        .route("/rlconfig", get(inspect::rules).with_state(Arc::clone(&admin.engine)))
        .route("/stats", get(inspect::stats).with_state(Arc::clone(&admin.metrics)))
        .merge(metrics(admin.metrics, "/metrics"))
}

/// Metrics alone, for a port of their own.
pub fn metrics(metrics: Arc<Metrics>, path: &str) -> Router {
    Router::new().route(path, get(scrape).with_state(metrics))
}

#[derive(Deserialize)]
struct HealthQuery {
    details: Option<String>,
}

/// `OK` or the reason; `?details` gives every condition as JSON.
async fn healthcheck(State(health): State<Health>, Query(query): Query<HealthQuery>) -> Response {
    let conditions = health.conditions();
    let status = if conditions.healthy() {
        StatusCode::OK
    } else {
        StatusCode::INTERNAL_SERVER_ERROR
    };
    if query.details.is_some() {
        return (status, axum::Json(conditions)).into_response();
    }
    let reason = conditions.reasons().into_iter().next();
    let text = reason.filter(|_| !conditions.healthy());
    (status, text.unwrap_or_else(|| "OK".to_owned())).into_response()
}

async fn scrape(State(metrics): State<Arc<Metrics>>) -> Response {
    match metrics.encode() {
        Ok(text) => ([(header::CONTENT_TYPE, prometheus::TEXT_FORMAT)], text).into_response(),
        Err(error) => {
            tracing::error!(%error, "metrics could not be encoded");
            (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response()
        }
    }
}
