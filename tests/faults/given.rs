//! Slots, and what becomes of them when Redis hesitates or its connection breaks.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use sluicegate::proto::envoy::service::ratelimit::v3 as wire;
use tokio::task::{JoinSet, block_in_place};
use tokio::time::sleep;

use crate::crowd::{metric, wait_for};
use crate::listeners::{ask, connect, request};
use crate::proxy::{Network, Proxy};
use crate::support::redis::Redis;
use crate::support::sluicegate::Sluicegate;

const RULES: &str = "
domain: chaos
descriptors:
  - key: local
    rate_limit: {algorithm: concurrency, window: 1h, requests_per_unit: 3}
";
const OPEN: &str = "sluicegate_failure_mode{store=\"redis\"}";
/// Of the limit above.
const SLOTS: u32 = 3;
const OK: i32 = 1;
const OVER_LIMIT: i32 = 2;

/// Gives one slot back.
fn give() -> wire::RateLimitRequest {
    let mut give = request("local", b"x");
    give.descriptors[0].is_negative_hits = true;
    give
}

/// Redis has done it and its answer is lost: were it told once more, somebody else's slot would be free.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_redis_heard_before_the_connection_broke_is_not_told_again() {
    let redis = block_in_place(Redis::start);
    let proxy = Proxy::start(redis.port).await;
    let patient = ["--store-timeout", "30s"];
    let through_proxy = format!("redis://127.0.0.1:{}", proxy.port);
    let server = Sluicegate::start(RULES, &[&["--redis-url", &*through_proxy], &patient[..]].concat());
    let direct = Sluicegate::start(RULES, &[&["--redis-url", &*redis.url()], &patient[..]].concat());
    let mut client = connect(&server).await;
    let mut beside = connect(&direct).await;
    for expected in [OK, OK, OK, OVER_LIMIT] {
        assert_eq!(ask(&mut client, b"x").await.expect("answered"), expected);
    }

    proxy.set(Network::Slow(Duration::from_hours(1)));
    let mut giving = client.clone();
    let giving = tokio::spawn(async move { giving.should_rate_limit(give()).await });
    // It has arrived when the slot can be taken again.
    wait_for("given back", async || {
        ask(&mut beside, b"x").await.expect("answered") == OK
    })
    .await;
    proxy.set(Network::Cut);
    giving.await.expect("no panic").expect("answered");

    wait_for("away", async || metric(&server, OPEN).await == 1).await;
    proxy.set(Network::Whole);
    wait_for("back", async || metric(&server, OPEN).await == 0).await;
    for client in [&mut client, &mut beside] {
        assert_eq!(ask(client, b"x").await.expect("answered"), OVER_LIMIT);
    }
}

/// With the store's timeout as it is by default, and Redis stopped for longer than that again and again: some calls are
/// answered late, some by the failure mode, some are never made. In the end no slot may be missing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_hesitates_keeps_no_slot() {
    let redis = block_in_place(Redis::start);
    let server = Sluicegate::start(RULES, &["--redis-url", &redis.url()]);
    wait_for("Redis", async || metric(&server, OPEN).await == 0).await;
    let mut client = connect(&server).await;
    let stop = Arc::<AtomicBool>::default();
    let mut callers = JoinSet::new();
    for _ in 0..SLOTS {
        let (mut client, stop) = (client.clone(), Arc::clone(&stop));
        callers.spawn(async move {
            while !stop.load(Relaxed) {
                if ask(&mut client, b"x").await.expect("answered") == OK {
                    sleep(Duration::from_millis(2)).await;
                    client.should_rate_limit(give()).await.expect("answered");
                }
            }
        });
    }
    for _ in 0..15 {
        sleep(Duration::from_millis(80)).await;
        block_in_place(|| redis.process.signal("STOP"));
        sleep(Duration::from_millis(25)).await;
        block_in_place(|| redis.process.signal("CONT"));
    }
    stop.store(true, Relaxed);
    callers.join_all().await;
    let timeouts = "sluicegate_store_errors_total{kind=\"timeout\",store=\"redis\"}";
    assert!(metric(&server, timeouts).await > 0, "Redis was never too slow");

    let mut peek = request("local", b"x");
    peek.descriptors[0].hits_addend = Some(0);
    wait_for("all slots are free", async || {
        let answer = client.should_rate_limit(peek.clone()).await.expect("answered");
        let left = answer.into_inner().statuses[0].limit_remaining;
        metric(&server, OPEN).await == 0 && left == SLOTS
    })
    .await;
}
