//! The same for minutes, with many Envoys, and with what takes long to go wrong: `make quotas` runs them one after the other.

use std::time::{Duration, Instant};

use super::scene::{Load, QuotaEnvoy, Recorder, Scene, Terms, pass, stop};
use super::{LIMIT, TERMS};
use crate::support::redis::Redis;
use crate::support::redis::sentinel::Sentinel;

/// A minute's window: three quarters of it are there at once, and the rest as it comes free.
const MINUTE: Terms = Terms {
    limit: 1500,
    window: Duration::from_secs(60),
    refills: false,
};

async fn sixteen(skewed: bool, what: &str) {
    let scene = Scene::start(MINUTE, 16, 1, &[]).await;
    let load = scene.load(75, skewed);
    pass(70).await;
    let start = Instant::now();
    pass(90).await;
    let later = scene.upstream.since(start);
    println!(
        "{what}: {later} of {} in 90 s after the first window",
        MINUTE.limit * 3 / 2
    );
    scene.ends(load, 2.67, what).await;
    assert!(later as u64 >= MINUTE.limit * 3 / 2 * 95 / 100, "{later} only");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "minutes"]
async fn sixteen_envoys_share_a_minute() {
    sixteen(false, "sixteen, even").await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "minutes"]
async fn sixteen_envoys_share_a_minute_that_one_of_them_needs() {
    sixteen(true, "sixteen, 90:10").await;
}

async fn killed(arguments: &[&str], what: &str) {
    let mut scene = Scene::start(MINUTE, 2, 1, arguments).await;
    let load = scene.load(75, false);
    pass(25).await;
    scene.kill_and_start_again(arguments);
    pass(40).await;
    scene.services[1].process.signal("KILL");
    pass(3).await;
    let port = scene.services[0].grpc_port;
    let again = tokio::task::block_in_place(|| {
        scene.services[1].process.wait_for_exit();
        crate::support::sluicegate::Sluicegate::start_again(port, &MINUTE.rules(), arguments)
    });
    scene.services.push(again);
    pass(75).await;
    scene.ends(load, 2.4, what).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "minutes"]
async fn a_server_that_is_killed_keeps_a_minute_in_redis() {
    let redis = tokio::task::block_in_place(Redis::start);
    killed(&["--redis-url", &redis.url(), "--store-timeout", "2s"], "killed, Redis").await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "minutes"]
async fn a_server_that_is_killed_and_has_forgotten_a_minute() {
    killed(&[], "killed, memory").await;
}

/// While the master is dead nothing is known for sure; what it had not passed on yet is lost with it.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "minutes"]
async fn a_failover_of_redis_passes_no_limit() {
    let pair = tokio::task::block_in_place(Sentinel::start);
    let arguments = ["--redis-url", &pair.url(), "--store-timeout", "500ms"];
    let scene = Scene::start(TERMS, 2, 1, &arguments).await;
    let load = scene.load(100, false);
    pass(23).await;
    tokio::task::block_in_place(|| pair.master.process.signal("KILL"));
    pass(37).await;
    scene.ends(load, 6.0, "failover").await;
}

/// The server closes each connection after some seconds.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "minutes"]
async fn envoys_that_connect_anew_all_the_time_pass_no_limit() {
    let redis = tokio::task::block_in_place(Redis::start);
    let url = redis.url();
    let age = [
        "--grpc-max-connection-age",
        "7s",
        "--grpc-max-connection-age-grace",
        "1s",
    ];
    let arguments = [&["--redis-url", url.as_str(), "--store-timeout", "2s"][..], &age].concat();
    let scene = Scene::start(TERMS, 2, 1, &arguments).await;
    let load = scene.load(100, false);
    pass(60).await;
    scene.ends(load, 6.0, "reconnecting").await;
}

/// Two processes have leases while the new one takes over.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "minutes"]
async fn a_hot_restart_passes_no_limit() {
    let upstream = Recorder::start().await;
    let base = 1 + std::process::id() % 30_000;
    let (envoy, service) = tokio::task::block_in_place(|| {
        let service = crate::support::sluicegate::Sluicegate::start(&TERMS.rules(), &[]);
        (
            QuotaEnvoy::start_restartable(service.grpc_port, upstream.port, base),
            service,
        )
    });
    let scene = Scene {
        terms: TERMS,
        services: vec![service],
        envoys: vec![envoy],
        upstream,
    };
    let load = scene.load(100, false);
    pass(22).await;
    let next = tokio::task::block_in_place(|| scene.envoys[0].restarted(base));
    pass(38).await;
    let api = crate::support::http::Client::new(scene.services[0].admin_port);
    let leases = api.get("/api/v1/leases", &[]).await.json();
    println!("after the restart: {} streams", leases["streams"]);
    assert_eq!(leases["streams"], 1, "the old process has gone, the new one is there");
    scene.ends(load, 6.0, "hot restart").await;
    drop(next);
}

/// Two Envoys under load for 12 s, and then a Redis that stands still.
async fn with_a_frozen_redis(on_store_error: &str) -> (Redis, Scene, Vec<Load>) {
    let redis = tokio::task::block_in_place(Redis::start);
    let arguments = [
        "--redis-url",
        &redis.url(),
        "--store-timeout",
        "200ms",
        "--on-store-error",
        on_store_error,
    ];
    let scene = Scene::start(TERMS, 2, 1, &arguments).await;
    let load = scene.load(100, false);
    pass(12).await;
    tokio::task::block_in_place(|| redis.process.signal("STOP"));
    (redis, scene, load)
}

/// `deny`: what is leased is used up, then nothing passes; it goes on when the store is back.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "minutes"]
async fn without_a_store_deny_lets_only_leases_be_used() {
    let (redis, scene, load) = with_a_frozen_redis("deny").await;
    // The longest lease, and a report.
    pass(18).await;
    let start = Instant::now();
    pass(5).await;
    assert_eq!(scene.upstream.since(start), 0, "nothing is leased");
    redis.process.signal("CONT");
    pass(8).await;
    let start = Instant::now();
    pass(15).await;
    assert!(scene.upstream.since(start) > 300, "leased again");
    scene.ends(load, 5.8, "deny").await;
}

/// `allow`: everything passes while the store is away. What is reported then is counted once it is back.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "minutes"]
async fn without_a_store_allow_lets_everything_pass() {
    let (redis, scene, load) = with_a_frozen_redis("allow").await;
    pass(12).await;
    let start = Instant::now();
    pass(8).await;
    let away = scene.upstream.since(start);
    redis.process.signal("CONT");
    // Assignments that let everything pass end, and a window after them.
    pass(20).await;
    let start = Instant::now();
    pass(20).await;
    let later = scene.upstream.since(start);
    let (allowed, denied) = stop(load).await;
    println!("allow: {away} in 8 s at 100 a second while away, {later} in the 20 s after; {allowed} / {denied}");
    assert!(away >= 700, "{away} in 8 s at 100 a second");
    assert!(later as u64 <= 2 * LIMIT, "{later} in two windows of {LIMIT}");
    assert!(later as u64 >= LIMIT, "{later} in two windows of {LIMIT}");
}
