//! Costs and holds while Redis is late or stands still: nothing of them is lost, and nothing stays that nobody knows of.

use std::time::{Duration, Instant};

use sluicegate::config::settings::{RedisSettings, Settings, StoreKind};
use sluicegate::rules::OnStoreError;

use crate::holds::{RULES, hold, left, settle};
use crate::server::Server;
use crate::support::redis::Redis;

const PATIENCE: Duration = Duration::from_secs(30);

async fn start(redis: &Redis, mode: OnStoreError) -> Server {
    let url = redis.url();
    let settings = move |settings: &mut Settings| {
        settings.store.kind = StoreKind::Redis;
        settings.store.redis = Some(RedisSettings::from_url(&url).expect("a URL"));
        settings.store.on_store_error = mode;
    };
    let server = Server::start_with(RULES, settings).await;
    // Until Redis has answered, the failure mode does.
    until("Redis decides", async || {
        redis.cli(&["dbsize"]) != "0" && hold(&server, &[("team", 0)]).await.remaining == 600
    })
    .await;
    server
}

async fn until(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let start = Instant::now();
    while !is_so().await {
        assert!(start.elapsed() < PATIENCE, "{what}: not in time");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn until_left(server: &Server, key: &str, expected: u32) {
    let mut last = 0;
    let start = Instant::now();
    // Twice, since a failure mode may say the same by chance.
    let mut times = 0;
    while times < 2 {
        assert!(start.elapsed() < PATIENCE, "{key}: {last} left, {expected} should be");
        last = left(server, key).await;
        times = if last == expected { times + 1 } else { 0 };
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
}

/// A cost without an id is charged once, also where Redis answers too late and no fallback counters decide.
#[tokio::test(flavor = "multi_thread")]
async fn a_cost_without_an_id_is_charged_in_every_failure_mode() {
    for mode in [OnStoreError::Local, OnStoreError::Deny, OnStoreError::Allow] {
        let redis = tokio::task::block_in_place(Redis::start);
        let server = start(&redis, mode).await;
        // What Redis carries out too late, and what never reaches it.
        for costs in [["200", "30", "70"], ["100", "20", "30"]] {
            let [user, plain, gateway] = costs.map(|cost| cost.parse().expect("a number"));
            redis.cli(&["client", "pause", "150"]);
            settle(&server, &[("user", user)], "none").await;
            settle(&server, &[("plain", plain)], "none").await;
            hold(&server, &[("gateway", gateway)]).await;
            tokio::time::sleep(Duration::from_millis(400)).await;
        }
        until_left(&server, "user", 700).await;
        until_left(&server, "plain", 50).await;
        // Questions hold the mean cost of a request; what is left of them ends with their ttl.
        let gateway = left(&server, "gateway").await;
        assert!(gateway <= 900, "{mode:?}: {gateway} left of 1000, 100 were charged");
        server.stop().await;
    }
}

/// A hold whose answer is lost, so that nobody knows its id, does not stay for its ttl.
#[tokio::test(flavor = "multi_thread")]
async fn a_hold_that_nobody_was_told_of_ends() {
    for mode in [OnStoreError::Deny, OnStoreError::Local] {
        let redis = tokio::task::block_in_place(Redis::start);
        let server = start(&redis, mode).await;
        redis.process.signal("STOP");
        // Longer than a connection lives without an answer.
        let told = hold(&server, &[("user", 900)]).await;
        assert_eq!(told.passes, mode == OnStoreError::Local);
        let second = hold(&server, &[("user", 900)]).await;
        assert!(!second.passes);
        tokio::time::sleep(Duration::from_secs(2)).await;
        redis.process.signal("CONT");
        until_left(&server, "user", if told.passes { 100 } else { 1000 }).await;
        server.stop().await;
    }
}

/// A hold that one limit's failure mode grants, and another's does not, is settled on both.
#[tokio::test(flavor = "multi_thread")]
async fn a_hold_of_one_limit_is_charged_by_another_that_holds_nothing() {
    let redis = tokio::task::block_in_place(Redis::start);
    let server = start(&redis, OnStoreError::Local).await;
    redis.process.signal("STOP");
    let told = hold(&server, &[("user", 500), ("open", 500)]).await;
    let id = told.id.expect("local counters hold");
    tokio::time::sleep(Duration::from_secs(2)).await;
    redis.process.signal("CONT");
    until_left(&server, "user", 500).await;
    settle(&server, &[("user", 300), ("open", 300)], &id).await;
    until_left(&server, "user", 700).await;
    until_left(&server, "open", 700).await;
    server.stop().await;
}

/// What was admitted while Redis stood still is told to it before the process ends.
#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_ends_tells_redis_first() {
    let redis = tokio::task::block_in_place(Redis::start);
    let server = start(&redis, OnStoreError::Local).await;
    let id = hold(&server, &[("user", 500)]).await.id.expect("a hold");
    redis.process.signal("STOP");
    settle(&server, &[("user", 400)], &id).await;
    hold(&server, &[("plain", 70)]).await;
    let ends = tokio::spawn(server.stop());
    tokio::time::sleep(Duration::from_millis(1500)).await;
    redis.process.signal("CONT");
    ends.await.expect("no panic");
    let next = start(&redis, OnStoreError::Deny).await;
    until_left(&next, "user", 600).await;
    next.stop().await;
}
