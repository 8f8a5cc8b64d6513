//! The operator's API, `/api/v1` on the admin listener: what is in force, who asks most and who is denied, why, and what
//! is left. `openapi.json` describes it; a test holds the two together.
//!
//! | module | what is in it |
//! |---|---|
//! | `guard`, `token` | who may ask: loopback, the bearer token, hosts and origins; headers of every answer |
//! | `state` | what all of them share |
//! | `problem` | errors as RFC 9457 problem details |
//! | `status`, `rules`, `rates`, `top`, `events` | reading what happens |
//! | `readers` | who reads events, and who leaves for a new reader |
//! | `leases` | what Envoys hold that enforce quotas themselves |
//! | `question`, `explain` | why a request passes or not, and how a counter stands |
//! | `reset`, `selections` | lets keys through again, after a dry run |
//! | `console` | the page that draws all of it |
//! | `body` | JSON bodies, bounded |
//! | `view` | counter keys as descriptors, with values masked where the settings say so |

mod body;
mod console;
mod events;
mod explain;
mod guard;
mod leases;
mod problem;
mod question;
mod rates;
mod readers;
mod reset;
mod rules;
mod selections;
mod state;
mod status;
mod token;
mod top;
mod view;

use axum::Router;
use axum::http::{StatusCode, header};
use axum::middleware;
use axum::response::IntoResponse;
use axum::routing::{get, post};

pub use state::{Api, Parts};
pub use token::{Token, TokenError};

use problem::Problem;

/// The OpenAPI 3.1 document.
pub const OPENAPI: &str = include_str!("openapi.json");

impl Api {
    /// Keeps rates and windows fresh; ends with the process.
    pub async fn run(self) {
        let mut ticks = tokio::time::interval(rates::SAMPLE_EVERY);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let now_us = self.0.parts.clock.now_us();
            self.0.rates.sample(&self.0.parts.engine, now_us);
            if let Some(top) = &self.0.parts.activity.top {
                top.collect(now_us);
            }
        }
    }

    /// Its routes, guarded.
    pub fn router(&self) -> Router {
        Router::new()
            .route("/api/v1/openapi.json", get(openapi))
            .route("/api/v1/status", get(status::status))
            .route("/api/v1/rules", get(rules::rules))
            .route("/api/v1/top", get(top::top))
            .route("/api/v1/history", get(top::history))
            .route("/api/v1/leases", get(leases::leases))
            .route("/api/v1/explain", post(explain::explain))
            .route("/api/v1/counters", get(explain::counters))
            .route("/api/v1/counters/reset", post(reset::reset))
            .route("/api/v1/events", get(events::events))
            .route("/api/{*rest}", axum::routing::any(unknown))
            .method_not_allowed_fallback(wrong_method)
            .layer(middleware::from_fn_with_state(self.clone(), guard::guard))
            .with_state(self.clone())
            .merge(console::router())
    }
}

async fn openapi() -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "application/json")], OPENAPI)
}

async fn unknown() -> Problem {
    Problem::new(
        StatusCode::NOT_FOUND,
        "no such resource; /api/v1/openapi.json lists them",
    )
}

async fn wrong_method() -> Problem {
    Problem::new(
        StatusCode::METHOD_NOT_ALLOWED,
        "this resource does not take that method; /api/v1/openapi.json says which",
    )
}
