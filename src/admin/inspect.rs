//! Looking in from outside: the rules in force, and statistics as plain lines.

use std::fmt::Write;
use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};

use crate::engine::Engine;
use crate::telemetry::Metrics;

/// `/rlconfig`: one line a rule, and after `#` what else decides.
pub async fn rules(State(engine): State<Arc<Engine>>) -> Response {
    match engine.active() {
        Some(active) => format!("# generation {}\n{}", active.generation, active.rules.dump()).into_response(),
        None => (StatusCode::SERVICE_UNAVAILABLE, "no rate limit configuration loaded\n").into_response(),
    }
}

/// `/stats`: `name: value`, as envoyproxy/ratelimit prints them, of every counter and gauge by the name that statsd gets.
pub async fn stats(State(metrics): State<Arc<Metrics>>) -> Response {
    let mut text = String::new();
    for (name, value) in metrics.plain() {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{name}: {value}");
    }
    text.into_response()
}
