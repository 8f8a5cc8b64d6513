//! Budgets of tokens on a stock Envoy, with the configurations that docs/budgets.md tells users to set.

mod endings;
mod model;
mod recipes;

use http::StatusCode;
use sluicegate::proto::envoy::extensions::common::ratelimit::v3 as common;
use sluicegate::proto::envoy::service::ratelimit::v3 as wire;
use tokio::{task::JoinSet, time::Instant};
use wire::rate_limit_service_client::RateLimitServiceClient;

use self::model::Model;
use crate::support::{
    envoy::{Envoy, FAILURE_DENIES, PATIENT, project_file, with_cluster},
    http::{Answer, Client},
    process::{PATIENCE, POLL},
    redis::Redis,
    sluicegate::Sluicegate,
};

/// A body by which the gateway's filter knows a chat.
const CHAT: &str = r#"{"model":"m","max_tokens":400,"messages":[{"role":"user","content":"hi"}]}"#;
/// The line of `envoy.yaml` above its rate limits.
const ABOVE: &str =
    "                      # Each entry makes one descriptor; all of a request's descriptors must pass.\n";
/// The place in it of a filter before the limiter.
const FIRST_FILTER: &str = "                http_filters:\n                  - name: envoy.filters.http.ratelimit\n";

/// 1,000 tokens for each user.
fn rules(ttl: &str) -> String {
    format!(
        "domain: demo
descriptors:
  - key: user
    rate_limit: {{ name: tokens, requests_per_unit: 1000, unit: hour, hold: {{ ttl: {ttl} }} }}
"
    )
}

/// The part of the page that begins with this line and has this text, so deep as it stands in `envoy.yaml`.
fn documented(start: &str, text: &str, indent: usize) -> String {
    let page = project_file("docs/budgets.md");
    let mut blocks = page.split("```yaml\n").filter_map(|rest| rest.split("```").next());
    let block = blocks.find(|block| block.starts_with(start) && block.contains(text));
    let block = block.unwrap_or_else(|| panic!("no example of {text}"));
    block.lines().map(|line| format!("{:indent$}{line}\n", "")).collect()
}

/// What the page tells to set for a route, by something that it has.
fn route(text: &str) -> String {
    documented("typed_per_filter_config:", text, 22)
}

struct Scene {
    service: Sluicegate,
    envoy: Envoy,
}

impl Scene {
    /// An Envoy as the page says, in front of a model server.
    async fn start(rules: &str, route: &str, arguments: &[&str], changes: &[(&str, &str)]) -> Self {
        let service = Sluicegate::start(rules, arguments);
        let model = Model::start().await;
        let cluster = with_cluster("model", model.port);
        let own = [
            (ABOVE, route),
            (
                "route: { cluster: upstream }",
                "route: { cluster: model, timeout: 60s }",
            ),
            ("  clusters:\n", cluster.as_str()),
        ];
        let envoy = Envoy::start(service.grpc_port, &[&own, changes].concat());
        Self { service, envoy }
    }

    /// The same with filters of the page before the limiter.
    async fn with_filters(rules: &str, filters: &str, route: &str) -> Self {
        let filters = format!("{filters}                  - name: envoy.filters.http.ratelimit\n");
        let changes = [PATIENT, FAILURE_DENIES, (FIRST_FILTER, filters.as_str())];
        Self::start(rules, route, &[], &changes).await
    }

    async fn ask(&self, user: &str, path: &str) -> Answer {
        let headers = [("x-user", user), ("content-type", "application/json")];
        self.envoy.client().post(path, &headers, CHAT).await
    }

    /// So many requests at once, each on a connection of its own; how many pass.
    async fn burst(&self, user: &'static str, path: &'static str, count: usize) -> usize {
        let mut requests = JoinSet::new();
        for _ in 0..count {
            let client = self.envoy.client();
            let headers = [("x-user", user), ("content-type", "application/json")];
            requests.spawn(async move { client.post(path, &headers, CHAT).await.status });
        }
        let statuses = requests.join_all().await;
        for status in &statuses {
            assert!(
                [StatusCode::OK, StatusCode::TOO_MANY_REQUESTS].contains(status),
                "{status}"
            );
        }
        statuses.iter().filter(|status| **status == StatusCode::OK).count()
    }

    /// What a user has left: neither used nor held.
    async fn left(&self, user: &str) -> u32 {
        self.left_of("user", user).await
    }

    async fn left_of(&self, key: &str, value: &str) -> u32 {
        let entry = |key: &str, value: &str| common::rate_limit_descriptor::Entry {
            key: key.into(),
            value: value.into(),
        };
        let peek = wire::RateLimitRequest {
            domain: "demo".into(),
            descriptors: vec![common::RateLimitDescriptor {
                entries: vec![entry(key, value)],
                hits_addend: Some(0),
                ..Default::default()
            }],
            hits_addend: 0,
        };
        let address = format!("http://127.0.0.1:{}", self.service.grpc_port);
        let mut client = RateLimitServiceClient::connect(address).await.expect("connected");
        let answer = client.should_rate_limit(peek).await.expect("answered").into_inner();
        answer.statuses[0].limit_remaining
    }

    async fn metrics(&self) -> String {
        Client::new(self.service.admin_port).get("/metrics", &[]).await.body
    }

    /// Waits until so many hits have been charged in place of holds. (To ask what is left would be a hold here.)
    async fn wait_for_charges(&self, expected: u64) {
        let line = format!("sluicegate_hold_hits_total{{result=\"charged\"}} {expected}");
        self.wait_for_line(&line).await;
    }

    /// Waits for a line among the metrics.
    async fn wait_for_line(&self, line: &str) {
        let start = Instant::now();
        loop {
            let metrics = self.metrics().await;
            if metrics.lines().any(|found| found == line) {
                return;
            }
            assert!(start.elapsed() < PATIENCE, "no `{line}`");
            tokio::time::sleep(POLL).await;
        }
    }

    /// Waits until a user has so much left: Envoy settles behind the response.
    async fn wait_for_left(&self, user: &str, expected: u32) {
        self.wait_for_left_of("user", user, expected).await;
    }

    async fn wait_for_left_of(&self, key: &str, value: &str, expected: u32) {
        let start = Instant::now();
        loop {
            let left = self.left_of(key, value).await;
            if left == expected {
                return;
            }
            assert!(start.elapsed() < PATIENCE, "{value} has {left} left, not {expected}");
            tokio::time::sleep(POLL).await;
        }
    }
}

async fn a_burst_is_never_charged_more_than_the_limit(arguments: &[&str]) {
    let changes = [PATIENT, FAILURE_DENIES];
    let scene = Scene::start(&rules("10m"), &route("x-tokens"), arguments, &changes).await;
    // 20 streams of 500 against 1,000: two pass. Envoy calls for those that were denied, too; that changes nothing.
    assert_eq!(scene.burst("anna", "/header/450", 20).await, 2);
    scene.wait_for_left("anna", 100).await;
    // What is left is too little for another, and is not lost.
    assert_eq!(scene.burst("anna", "/header/1", 1).await, 0);
    // Estimates that are far too high give back what was not used.
    for _ in 0..5 {
        assert_eq!(scene.ask("ben", "/header/10").await.status, StatusCode::OK);
    }
    scene.wait_for_left("ben", 950).await;
    // An estimate that was too low is charged in full.
    assert_eq!(scene.ask("carl", "/header/5000").await.status, StatusCode::OK);
    scene.wait_for_left("carl", 0).await;
    assert_eq!(
        scene.ask("carl", "/header/1").await.status,
        StatusCode::TOO_MANY_REQUESTS
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_burst_is_never_charged_more_than_the_limit_in_memory() {
    a_burst_is_never_charged_more_than_the_limit(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_burst_is_never_charged_more_than_the_limit_in_redis() {
    let redis = tokio::task::block_in_place(Redis::start);
    a_burst_is_never_charged_more_than_the_limit(&["--redis-url", &redis.url(), "--store-timeout", "5s"]).await;
}

/// Envoy reads the model's answer by itself: estimates from the request, costs from JSON and from events.
#[tokio::test(flavor = "multi_thread")]
async fn the_gateways_own_filter_estimates_and_counts() {
    let filter = documented("http_filters:", "ai_protocol_manager", 16);
    let scene = Scene::with_filters(&rules("10m"), &filter, &route("envoy.ai.token_usage")).await;
    // 400 tokens at most, and a few for the question: two of 20 pass.
    assert_eq!(scene.burst("anna", "/json/350", 20).await, 2);
    scene.wait_for_left("anna", 300).await;
    assert_eq!(scene.burst("ben", "/stream/350", 20).await, 2);
    scene.wait_for_left("ben", 300).await;
    // No usage in the answer: the estimate is charged.
    assert_eq!(scene.ask("carl", "/silent").await.status, StatusCode::OK);
    let start = Instant::now();
    while !(500..600).contains(&scene.left("carl").await) {
        assert!(start.elapsed() < PATIENCE, "{} left", scene.left("carl").await);
        tokio::time::sleep(POLL).await;
    }
    // An error costs nothing.
    assert_eq!(scene.ask("dora", "/error").await.status, StatusCode::BAD_GATEWAY);
    scene.wait_for_left("dora", 1000).await;
}

/// A gateway that checks with 0 hits and charges later needs no other configuration.
#[tokio::test(flavor = "multi_thread")]
async fn questions_of_an_unchanged_gateway_hold_the_mean_cost() {
    let rules = rules("10m").replace("ttl: 10m", "ttl: 10m, adaptive: { first: 500 }");
    let scene = Scene::start(&rules, &route("number: 0"), &[], &[PATIENT, FAILURE_DENIES]).await;
    assert_eq!(scene.burst("anna", "/header/500", 20).await, 2);
    scene.wait_for_charges(1000).await;
    assert_eq!(scene.burst("ben", "/header/500", 20).await, 2);
    scene.wait_for_charges(2000).await;
    for user in ["anna", "ben"] {
        assert_eq!(
            scene.ask(user, "/header/500").await.status,
            StatusCode::TOO_MANY_REQUESTS
        );
    }
}
