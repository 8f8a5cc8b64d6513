//! Slots that are given back just as the connection to Redis breaks.

use std::time::Duration;

use tokio::task::block_in_place;

use crate::crowd::{metric, wait_for};
use crate::doors::{ask, connect, request};
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
const OK: i32 = 1;
const OVER_LIMIT: i32 = 2;

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
    let mut give = request("local", b"x");
    give.descriptors[0].is_negative_hits = true;
    let mut giving = client.clone();
    let giving = tokio::spawn(async move { giving.should_rate_limit(give).await });
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
