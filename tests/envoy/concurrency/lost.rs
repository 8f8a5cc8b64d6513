//! Clients that leave, stores that refuse, answers that never come, an Envoy that dies.

use std::time::Duration;

use http::StatusCode;
use tokio::{task::JoinSet, time::Instant};

use super::{SLOTS, Scene, documented, front, in_redis, passed_of, rules};
use crate::support::{
    envoy::{FAILURE_DENIES, PATIENT},
    process::{PATIENCE, POLL},
    redis::Redis,
    sluicegate::Sluicegate,
    upstream::Upstream,
};

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_while_its_request_is_served_gives_its_slot_back() {
    let scene = Scene::start(&documented(), &[]).await;
    let held = scene.send("/hold", SLOTS);
    scene.wait_for_in_flight(SLOTS).await;
    assert_eq!(scene.passing(SLOTS).await, 0);
    drop(held);
    scene.wait_until_free().await;
}

/// Envoy then makes no second call: the service finds out by itself.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_before_the_answer_gives_its_slot_back() {
    let redis = Redis::start();
    let scene = Scene::start(&documented(), &in_redis(&redis.url())).await;
    scene.wait_until_free().await;
    let scripts = || {
        let stats = redis.cli(&["INFO", "commandstats"]);
        let line = stats
            .lines()
            .find_map(|line| line.strip_prefix("cmdstat_evalsha:calls="));
        let calls = line.and_then(|line| line.split(',').next());
        calls.expect("a script has run").parse::<usize>().expect("a number")
    };
    tokio::time::sleep(Duration::from_millis(500)).await;
    let before = scripts();
    redis.process.signal("STOP");
    let leaving = scene.send("/hold", SLOTS);
    scene.envoy.wait_for_stat("http.front.downstream_rq_active", 3).await;
    // The call is on its way to Redis by now, or at the latest when Redis goes on.
    tokio::time::sleep(Duration::from_millis(300)).await;
    drop(leaving);
    scene.envoy.wait_for_stat("http.front.downstream_rq_active", 0).await;
    redis.process.signal("CONT");
    scene.wait_until_free().await;
    assert!(scripts() > before + 1, "the slots were never taken");
    assert_eq!(scene.upstream.in_flight(), 0);
}

/// What passes because the service did not answer holds nothing, so it must not give anything back.
#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_passed_without_an_answer_gives_nothing_back() {
    let scene = Scene::start_with(&documented(), &[], &[(" timeout: 0.2s", " timeout: 3s")]).await;
    let held = scene.send("/hold", SLOTS);
    scene.wait_for_in_flight(SLOTS).await;
    scene.wait_for_decisions([SLOTS, 0]).await;
    scene.service.process.signal("STOP");
    let passed = scene.send("/", 1).join_all().await;
    scene.service.process.signal("CONT");
    assert_eq!(passed, [StatusCode::OK], "failure_mode_deny is false");
    for _ in 0..20 {
        assert_eq!(scene.passing(1).await, 0, "it gave back a slot that it did not have");
        tokio::time::sleep(POLL).await;
    }
    assert_eq!(scene.upstream.most(), SLOTS + 1);
    scene.upstream.let_go();
    assert_eq!(passed_of(&held.join_all().await), SLOTS);
    scene.wait_until_free().await;
}

/// While Redis refuses to count, the service counts by itself (`local`), by what it knew, and tells Redis later: slots
/// that were taken on one side of the change and given back on the other are neither lost nor there twice.
#[tokio::test(flavor = "multi_thread")]
async fn slots_outlast_an_outage_of_redis() {
    let redis = Redis::start();
    let local = ["--redis-url", &redis.url(), "--store-timeout", "5s"];
    let scene = Scene::start(&documented(), &local).await;
    scene.wait_for_mode(0).await;
    for round in 1..=3 {
        let mut held = scene.send("/hold", 2);
        scene.wait_for_in_flight(2).await;
        // A replica takes no writes.
        assert_eq!(redis.cli(&["REPLICAOF", "127.0.0.1", "1"]), "OK");
        scene.wait_for_mode(1).await;
        let client = scene.envoy.client();
        held.spawn(async move { client.get("/hold", &[]).await.status });
        scene.wait_for_in_flight(SLOTS).await;
        assert_eq!(scene.passing(4).await, 0, "round {round}, by itself");
        if round == 2 {
            scene.let_go(&mut held).await;
            scene.wait_until_free().await;
        }
        assert_eq!(redis.cli(&["REPLICAOF", "NO", "ONE"]), "OK");
        scene.wait_for_mode(0).await;
        if round != 2 {
            assert_eq!(scene.passing(4).await, 0, "round {round}, by Redis");
            scene.let_go(&mut held).await;
        }
        scene.wait_until_free().await;
    }
    assert_eq!(scene.upstream.most(), SLOTS);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_slots_of_an_envoy_that_crashed_free_themselves() {
    let service = Sluicegate::start(&rules("20s"), &[]);
    let upstream = Upstream::start().await;
    let start = || front(&service, &upstream, &documented(), &[PATIENT, FAILURE_DENIES]);
    let crashing = start();
    let mut lost = JoinSet::new();
    for _ in 0..SLOTS {
        let client = crashing.client();
        lost.spawn(async move { client.get("/hold", &[]).await.status });
    }
    let envoy = start();
    let client = envoy.client();
    let start = Instant::now();
    // The slots are taken once somebody else is denied.
    while client.get("/", &[]).await.status == 200 {
        assert!(start.elapsed() < PATIENCE, "the slots were never taken");
    }
    // Its clients stay until then: it must not see them leave.
    crashing.process.signal("KILL");
    lost.abort_all();
    while client.get("/", &[]).await.status != 200 {
        assert!(start.elapsed() < 2 * PATIENCE, "the slots were never freed");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}
