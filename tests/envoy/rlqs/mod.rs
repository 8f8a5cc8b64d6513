//! Envoys that enforce quotas themselves, with the shipped configuration: no window at the upstream is ever over the limit,
//! whatever dies or stands still.

mod long;
mod scene;

use std::time::Duration;

use sluicegate::proto::envoy::extensions::common::ratelimit::v3 as common;
use sluicegate::proto::envoy::service::ratelimit::v3 as wire;
use wire::rate_limit_service_client::RateLimitServiceClient;

use self::scene::{Scene, Terms, pass, stop};
use crate::support::redis::Redis;

const LIMIT: u64 = 500;
const TERMS: Terms = Terms::short(LIMIT);

async fn spread(envoys: usize, skewed: bool, what: &str) {
    let scene = Scene::start(TERMS, envoys, 1, &[]).await;
    let load = scene.load(150, skewed);
    pass(35).await;
    scene.ends(load, 3.5, what).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_envoy_stays_within_the_limit() {
    spread(1, false, "one").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_envoys_share_a_limit() {
    spread(2, false, "two, even").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn four_envoys_share_a_limit_that_one_of_them_needs() {
    spread(4, true, "four, 90:10").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_servers_share_a_limit_in_redis() {
    let redis = tokio::task::block_in_place(Redis::start);
    let arguments = ["--redis-url", &redis.url(), "--store-timeout", "2s"];
    let scene = Scene::start(TERMS, 4, 2, &arguments).await;
    let load = scene.load(150, false);
    pass(35).await;
    scene.ends(load, 3.5, "two servers").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_killed_comes_back_in_time() {
    let redis = tokio::task::block_in_place(Redis::start);
    let url = redis.url();
    let mut scene = Scene::start(TERMS, 2, 1, &["--redis-url", &url, "--store-timeout", "2s"]).await;
    let load = scene.load(100, false);
    pass(12).await;
    scene.kill_and_start_again(&["--redis-url", &url, "--store-timeout", "2s"]);
    pass(25).await;
    scene.ends(load, 3.7, "killed").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_envoy_that_stands_still_is_waited_for() {
    let scene = Scene::start(TERMS, 2, 1, &[]).await;
    let load = scene.load(100, false);
    pass(12).await;
    tokio::task::block_in_place(|| scene.envoys[0].process.signal("STOP"));
    pass(13).await;
    scene.envoys[0].process.signal("CONT");
    pass(15).await;
    scene.ends(load, 4.0, "stopped").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_stands_still_passes_no_limit() {
    let redis = tokio::task::block_in_place(Redis::start);
    let scene = Scene::start(TERMS, 2, 1, &["--redis-url", &redis.url(), "--store-timeout", "200ms"]).await;
    let load = scene.load(100, false);
    pass(12).await;
    tokio::task::block_in_place(|| redis.process.signal("STOP"));
    pass(13).await;
    redis.process.signal("CONT");
    pass(15).await;
    scene.ends(load, 4.0, "frozen Redis").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_stops_hands_its_streams_over() {
    let redis = tokio::task::block_in_place(Redis::start);
    let url = redis.url();
    let mut scene = Scene::start(TERMS, 2, 1, &["--redis-url", &url]).await;
    let load = scene.load(60, false);
    pass(8).await;
    tokio::task::block_in_place(|| {
        scene.services[0].process.signal("TERM");
        let status = scene.services[0].process.wait_for_exit();
        assert!(status.success(), "{status}");
        let log = scene.services[0].process.log();
        assert!(!log.contains("still open"), "streams are closed, not cut: {log}");
    });
    pass(2).await;
    scene.ends(load, 1.0, "handed over").await;
}

/// One limit for requests that ask one by one and for quotas.
#[tokio::test(flavor = "multi_thread")]
async fn calls_and_quotas_count_on_one_counter() {
    let scene = Scene::start(TERMS, 1, 1, &[]).await;
    let load = scene.load(40, false);
    let address = format!("http://127.0.0.1:{}", scene.services[0].grpc_port);
    let mut client = RateLimitServiceClient::connect(address).await.expect("connected");
    let entry = |key: &str, value: &str| common::rate_limit_descriptor::Entry {
        key: key.into(),
        value: value.into(),
    };
    let request = wire::RateLimitRequest {
        domain: "edge".into(),
        descriptors: vec![common::RateLimitDescriptor {
            entries: vec![entry("name", "per-user"), entry("user", "anna")],
            ..Default::default()
        }],
        hits_addend: 0,
    };
    let mut ticks = tokio::time::interval(Duration::from_millis(25));
    let mut asked = 0;
    let port = scene.upstream.port;
    let direct = crate::support::http::Client::new(port);
    for _ in 0..1200 {
        ticks.tick().await;
        let answer = client
            .should_rate_limit(request.clone())
            .await
            .expect("answered")
            .into_inner();
        if answer.overall_code == i32::from(wire::rate_limit_response::Code::Ok) {
            asked += 1;
            direct.get("/", &[]).await;
        }
    }
    println!("{asked} by calls");
    assert!(asked >= LIMIT / 5, "{asked} by calls");
    // A call is decided a moment before its request comes to the upstream.
    scene.ends_within(Duration::from_millis(250), load, 3.0, "both").await;
}

/// Requests come as the rate says, from the second report on.
#[tokio::test(flavor = "multi_thread")]
async fn leases_of_a_token_bucket_refill() {
    let terms = Terms {
        limit: 1200,
        window: Duration::from_secs(60),
        refills: true,
    };
    let scene = Scene::start(terms, 2, 1, &[]).await;
    let load = scene.load(60, false);
    // The first lease of each stream is all there at once.
    pass(24).await;
    let start = std::time::Instant::now();
    pass(16).await;
    let (passed, least) = (scene.upstream.since(start), scene.upstream.least(terms));
    let (allowed, denied) = stop(load).await;
    println!("a rate of 20/s: {passed} in 16 s, at least {least:.1} left in the bucket; {allowed} / {denied}");
    assert!(least >= -1.0, "a bucket would be {least} short");
    // With two Envoys each has half of the rate and a second of it at once.
    assert!((270..=365).contains(&passed), "{passed} in 16 s at 20 a second");
}
