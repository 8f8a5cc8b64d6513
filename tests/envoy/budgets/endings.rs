//! However a request ends, its hold ends with it, and the charge is right.

use std::time::Duration;

use http::StatusCode;
use tokio::{io::AsyncWriteExt as _, net::TcpStream};

use super::{Scene, documented, route, rules};
use crate::support::{
    envoy::{FAILURE_DENIES, PATIENT},
    redis::Redis,
};

/// The part of a test's route that says how long Envoy waits.
const ROUTE: &str = "model, timeout: 60s";

async fn start(ttl: &str, arguments: &[&str], changes: &[(&str, &str)]) -> Scene {
    Scene::start(&rules(ttl), &route("x-tokens"), arguments, changes).await
}

/// A request that is still under way when it is dropped.
fn open(scene: &Scene, user: &'static str, path: &'static str) -> tokio::task::JoinSet<()> {
    let client = scene.envoy.client();
    let mut request = tokio::task::JoinSet::new();
    request.spawn(async move {
        client.post(path, &[("x-user", user)], "").await;
    });
    request
}

#[tokio::test(flavor = "multi_thread")]
async fn every_ending_of_a_response_settles() {
    let scene = start("10m", &[], &[PATIENT, FAILURE_DENIES, (ROUTE, "model, timeout: 1s")]).await;
    for (user, path, left) in [
        ("normal", "/header/450", 550),
        ("free", "/header/0", 1000),
        // Nobody knows what it cost: the estimate is charged.
        ("silent", "/silent", 500),
        ("error", "/error", 1000),
        // The connection ends before there is an answer.
        ("reset", "/reset", 1000),
        ("timeout", "/never", 1000),
    ] {
        scene.ask(user, path).await;
        scene.wait_for_left(user, left).await;
    }
    // The upstream ends it in the middle, after a status of 200.
    let mut broken = open(&scene, "broken", "/broken");
    while broken.join_next().await.is_some() {}
    scene.wait_for_left("broken", 500).await;
}

/// Nothing comes from the upstream for so long: an error where it had not begun, else what has come is charged.
#[tokio::test(flavor = "multi_thread")]
async fn an_idle_stream_settles() {
    let idle = [
        PATIENT,
        FAILURE_DENIES,
        (ROUTE, "model, timeout: 60s, idle_timeout: 0.5s"),
    ];
    let scene = start("10m", &[], &idle).await;
    let answer = scene.ask("never", "/never").await;
    assert!(
        answer.status.is_server_error() || answer.status.is_client_error(),
        "{answer:?}"
    );
    scene.wait_for_left("never", 1000).await;
    let mut endless = open(&scene, "endless", "/endless");
    while endless.join_next().await.is_some() {}
    scene.wait_for_left("endless", 500).await;
    scene.wait_for_charges(500).await;
}

/// Envoy asks once and settles once, however often it tries.
#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_is_retried_is_charged_once() {
    let retries = "model, timeout: 60s, retry_policy: { retry_on: 5xx, num_retries: 3 }";
    let scene = start("10m", &[], &[PATIENT, FAILURE_DENIES, (ROUTE, retries)]).await;
    let answer = scene.ask("anna", "/flaky/450").await;
    assert_eq!(answer.status, StatusCode::OK);
    scene.envoy.wait_for_stat("cluster.model.upstream_rq_retry", 2).await;
    scene.wait_for_left("anna", 550).await;
    // All of them fail: nothing is charged.
    let answer = scene.ask("anna", "/error").await;
    assert_eq!(answer.status, StatusCode::BAD_GATEWAY);
    scene.envoy.wait_for_stat("cluster.model.upstream_rq_retry", 5).await;
    scene.wait_for_left("anna", 550).await;
    scene.wait_for_charges(450).await;
}

/// What another rule denies holds nothing, and its end charges nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_another_rule_denies_costs_nothing() {
    let plan = "  - { key: plan, value: free, rate_limit: { requests_per_unit: 1, unit: hour } }\n";
    let rules = rules("10m") + plan;
    let both = route("x-tokens").replacen(
        "rate_limits:\n",
        "rate_limits:\n                            - actions: [{ generic_key: { descriptor_key: plan, descriptor_value: free } }]\n",
        1,
    );
    let scene = Scene::start(&rules, &both, &[], &[PATIENT, FAILURE_DENIES]).await;
    assert_eq!(scene.ask("anna", "/header/450").await.status, StatusCode::OK);
    scene.wait_for_left("anna", 550).await;
    for _ in 0..5 {
        assert_eq!(
            scene.ask("anna", "/header/450").await.status,
            StatusCode::TOO_MANY_REQUESTS
        );
    }
    // A request that comes after them all is not held up by any.
    scene.envoy.wait_for_stat("http.front.downstream_rq_active", 0).await;
    scene.wait_for_left("anna", 550).await;
    scene.wait_for_charges(450).await;
}

/// A filter before the limiter waits for the body: a client that leaves until then has not asked for anything.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_before_the_service_is_asked_holds_nothing() {
    let filter = documented("http_filters:", "ai_protocol_manager", 16);
    let scene = Scene::with_filters(&rules("10m"), &filter, &route("envoy.ai.token_usage")).await;
    let mut client = TcpStream::connect(("127.0.0.1", scene.envoy.front_port))
        .await
        .expect("connected");
    let half = "POST /json/350 HTTP/1.1\r\nhost: x\r\nx-user: anna\r\ncontent-type: application/json\r\n\
                content-length: 1000\r\n\r\n{\"model\":\"m\",";
    client.write_all(half.as_bytes()).await.expect("written");
    scene.envoy.wait_for_stat("http.front.downstream_rq_active", 1).await;
    drop(client);
    scene.envoy.wait_for_stat("http.front.downstream_rq_active", 0).await;
    scene.envoy.wait_for_stat("http.front.downstream_rq_total", 1).await;
    scene.wait_for_left("anna", 1000).await;
    let metrics = scene.metrics().await;
    assert!(
        metrics.contains("sluicegate_holds_total{result=\"made\"} 0\n"),
        "{metrics}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_settles() {
    let scene = start("10m", &[], &[PATIENT, FAILURE_DENIES]).await;
    for (user, path, left) in [("before", "/never", 1000), ("during", "/endless", 500)] {
        let request = open(&scene, user, path);
        scene.wait_for_left(user, 500).await;
        // Envoy has heard of it, too: until then it would drop the answer, and the hold would last until its ttl.
        scene.envoy.wait_for_stat("cluster.model.upstream_rq_active", 1).await;
        if user == "during" {
            scene.envoy.wait_for_stat("cluster.model.upstream_rq_2xx", 1).await;
        }
        drop(request);
        scene.envoy.wait_for_stat("http.front.downstream_rq_active", 0).await;
        scene.wait_for_left(user, left).await;
    }
}

/// A client leaves while the service waits for Redis, which then goes on.
async fn leave_while_asked(scene: &Scene, redis: &Redis) {
    redis.process.signal("STOP");
    let request = open(scene, "anna", "/never");
    scene.envoy.wait_for_stat("http.front.downstream_rq_active", 1).await;
    // The call is on its way to Redis by now, or at the latest when Redis goes on.
    tokio::time::sleep(Duration::from_millis(300)).await;
    drop(request);
    scene.envoy.wait_for_stat("http.front.downstream_rq_active", 0).await;
    redis.process.signal("CONT");
}

/// Envoy then makes no call when the stream is done: the service finds out by itself.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_while_the_service_is_asked_holds_nothing() {
    let redis = tokio::task::block_in_place(Redis::start);
    let arguments = ["--redis-url", &redis.url(), "--store-timeout", "5s"];
    let scene = start("10m", &arguments, &[PATIENT, FAILURE_DENIES]).await;
    scene.wait_for_left("anna", 1000).await;
    leave_while_asked(&scene, &redis).await;
    scene.wait_for_left("anna", 1000).await;
}

/// The same where holds have no names.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_while_its_question_is_asked_holds_nothing() {
    let redis = tokio::task::block_in_place(Redis::start);
    let arguments = ["--redis-url", &redis.url(), "--store-timeout", "5s"];
    let rules = rules("10m").replace("ttl: 10m", "ttl: 10m, adaptive: { first: 500 }");
    let changes = [PATIENT, FAILURE_DENIES];
    let scene = Scene::start(&rules, &route("number: 0"), &arguments, &changes).await;
    assert_eq!(scene.ask("warm", "/header/500").await.status, StatusCode::OK);
    scene.wait_for_charges(500).await;
    leave_while_asked(&scene, &redis).await;
    scene
        .wait_for_line("sluicegate_corrections_total{cause=\"hold\",result=\"flushed\"} 1")
        .await;
    assert_eq!(scene.burst("anna", "/header/500", 20).await, 2);
}

/// Envoy lets the request pass without an answer, and later charges without an id: in full.
#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_passed_without_an_answer_is_charged() {
    let scene = start("10m", &[], &[]).await;
    scene.wait_for_left("anna", 1000).await;
    scene.service.process.signal("STOP");
    let answer = scene.ask("anna", "/header/450").await;
    scene.service.process.signal("CONT");
    assert_eq!(answer.status, http::StatusCode::OK, "failure_mode_deny is false");
    scene.wait_for_left("anna", 550).await;
}

/// An Envoy that is told to end makes its calls, but may be gone before they leave.
#[tokio::test(flavor = "multi_thread")]
async fn an_envoy_that_ends_or_is_killed_holds_for_the_ttl_at_most() {
    for signal in ["TERM", "KILL"] {
        let scene = start("2s", &[], &[PATIENT, FAILURE_DENIES]).await;
        let request = open(&scene, "anna", "/never");
        scene.envoy.wait_for_stat("cluster.model.upstream_rq_active", 1).await;
        let metrics = scene.metrics().await;
        assert!(
            metrics.contains("sluicegate_holds_total{result=\"made\"} 1\n"),
            "{metrics}"
        );
        scene.envoy.process.signal(signal);
        scene.wait_for_left("anna", 1000).await;
        drop(request);
    }
}
