//! Anything at all from outside: never a panic, always an answer or an error with a text.
//!
//! Each target runs for a second (`FUZZ_SECONDS` for longer; `make fuzz SECONDS=60`). Inputs are good messages that were
//! then broken, since bytes at random end at the first check. A failing input is shrunk and printed.
#![allow(clippy::expect_used, reason = "a test that cannot go on says why and stops")]

mod hostile;
mod inputs;
mod targets;

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::{Duration, Instant};

use proptest::strategy::Strategy;
use proptest::test_runner::{Config, TestCaseError, TestRunner};
use sluicegate::config::settings::LimitHeaders;
use sluicegate::config::{Text, load};
use sluicegate::engine::{Engine, EngineOptions};
use sluicegate::mapping::FailureMode;
use sluicegate::model::{Clock, MonotonicClock};
use sluicegate::rules::Defaults;
use sluicegate::service::AnswerOptions;
use sluicegate::service::authz::AuthzService;
use sluicegate::service::convert::RequestBounds;
use sluicegate::service::rls::RateLimitService;
use sluicegate::store::memory::MemoryStore;
use sluicegate::telemetry::Metrics;

/// Tries inputs until the time is over.
pub fn fuzz<S: Strategy>(inputs: &S, test: impl Fn(S::Value) -> Result<(), TestCaseError>) {
    let seconds = std::env::var("FUZZ_SECONDS").ok().and_then(|text| text.parse().ok());
    let (start, time) = (Instant::now(), Duration::from_secs(seconds.unwrap_or(1)));
    let config = Config {
        cases: 64,
        failure_persistence: None,
        ..Config::default()
    };
    let mut runner = TestRunner::new(config);
    while start.elapsed() < time {
        if let Err(error) = runner.run(inputs, &test) {
            panic!("{error}");
        }
    }
}

/// Both services over counters in memory.
pub struct Services {
    /// `ShouldRateLimit`.
    pub rls: RateLimitService,
    /// `Check`.
    pub authz: AuthzService,
    /// What both count in.
    pub metrics: Arc<Metrics>,
}

/// Services with these rules and every optional part of an answer.
pub fn services(rules: &str) -> Services {
    let text = Text {
        name: Arc::from("rules.yaml"),
        text: Arc::from(rules),
    };
    let rules = load(&[text], &Defaults::default()).unwrap_or_else(|errors| panic!("{errors}"));
    let metrics = Arc::new(Metrics::new().expect("metrics"));
    let clock: Arc<dyn Clock> = Arc::new(MonotonicClock::new());
    let keys = NonZeroUsize::new(10_000).expect("not zero");
    let store = Arc::new(MemoryStore::new(keys, Arc::clone(&clock)));
    let engine = Engine::new(
        store,
        None,
        EngineOptions::default(),
        Arc::clone(&clock),
        Arc::clone(&metrics),
    );
    let engine = Arc::new(engine);
    engine.activate(Arc::new(rules), 1);
    let options = Arc::new(AnswerOptions {
        retry_after: true,
        problem_body: true,
        limit_headers: Some(LimitHeaders::default()),
        request_limit_headers: Some(LimitHeaders::default()),
        ietf_headers: true,
        dynamic_metadata: true,
        bounds: RequestBounds::default(),
    });
    Services {
        rls: RateLimitService::new(Arc::clone(&engine), Arc::clone(&options), Arc::clone(&metrics)),
        authz: AuthzService::new(engine, options, FailureMode::Allow, Arc::clone(&metrics), clock),
        metrics,
    }
}

/// Waits for an answer; nothing here waits for anything but the processor.
pub fn wait<T>(answer: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(answer)
}
