//! However a request ends, its hold ends with it, and the charge is right.

use std::time::Duration;

use super::{Scene, route, rules};
use crate::support::{
    envoy::{FAILURE_DENIES, PATIENT},
    redis::Redis,
};

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
    let scene = start(
        "10m",
        &[],
        &[PATIENT, FAILURE_DENIES, ("model, timeout: 60s", "model, timeout: 1s")],
    )
    .await;
    for (user, path, left) in [
        ("normal", "/header/450", 550),
        ("free", "/header/0", 1000),
        // Nobody knows what it cost: the estimate is charged.
        ("silent", "/silent", 500),
        ("error", "/error", 1000),
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

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_settles() {
    let scene = start("10m", &[], &[PATIENT, FAILURE_DENIES]).await;
    for (user, path, left) in [("before", "/never", 1000), ("during", "/endless", 500)] {
        let request = open(&scene, user, path);
        scene.wait_for_left(user, 500).await;
        if user == "during" {
            scene.envoy.wait_for_stat("cluster.model.upstream_rq_2xx", 1).await;
        }
        drop(request);
        scene.envoy.wait_for_stat("http.front.downstream_rq_active", 0).await;
        scene.wait_for_left(user, left).await;
    }
}

/// Envoy then makes no call when the stream is done: the service finds out by itself.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_while_the_service_is_asked_holds_nothing() {
    let redis = tokio::task::block_in_place(Redis::start);
    let arguments = ["--redis-url", &redis.url(), "--store-timeout", "5s"];
    let scene = start("10m", &arguments, &[PATIENT, FAILURE_DENIES]).await;
    scene.wait_for_left("anna", 1000).await;
    redis.process.signal("STOP");
    let request = open(&scene, "anna", "/never");
    scene.envoy.wait_for_stat("http.front.downstream_rq_active", 1).await;
    // The call is on its way to Redis by now, or at the latest when Redis goes on.
    tokio::time::sleep(Duration::from_millis(300)).await;
    drop(request);
    scene.envoy.wait_for_stat("http.front.downstream_rq_active", 0).await;
    redis.process.signal("CONT");
    scene.wait_for_left("anna", 1000).await;
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
        scene.envoy.process.signal(signal);
        scene.wait_for_left("anna", 1000).await;
        drop(request);
    }
}
