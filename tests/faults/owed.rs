//! A long outage over many keys, and what is owed when it ends.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Instant;

use sluicegate::proto::envoy::extensions::common::ratelimit::v3 as common;
use sluicegate::proto::envoy::service::ratelimit::v3 as wire;
use tokio::task::block_in_place;
use tonic::transport::Channel;
use wire::rate_limit_service_client::RateLimitServiceClient;

use crate::crowd::{metric, wait_for};
use crate::listeners::{ask_for, connect, connect_to};
use crate::support::redis::Redis;
use crate::support::sluicegate::Sluicegate;

const RULES: &str = "
domain: chaos
descriptors:
  - key: local
    rate_limit: {unit: day, requests_per_unit: 5}
";
const OPEN: &str = "sluicegate_failure_mode{store=\"redis\"}";
/// As many as can be owed on.
const KEYS: u64 = 100_000;
/// Descriptors of a request.
const AT_ONCE: u64 = 250;

/// One hit for each of `AT_ONCE` keys of this name, from this number on.
async fn ask_many(client: &mut RateLimitServiceClient<Channel>, name: &str, first: u64) -> i32 {
    let descriptor = |key: u64| common::RateLimitDescriptor {
        entries: vec![common::rate_limit_descriptor::Entry {
            key: "local".into(),
            value: format!("{name}{key}").into_bytes(),
        }],
        ..Default::default()
    };
    let request = wire::RateLimitRequest {
        domain: "chaos".into(),
        descriptors: (first..first + AT_ONCE).map(descriptor).collect(),
        ..Default::default()
    };
    let answer = client.should_rate_limit(request).await.expect("answered");
    answer.into_inner().overall_code
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_decides_again_soon_however_much_is_owed() {
    let mut redis = block_in_place(Redis::start);
    let server = Sluicegate::start(RULES, &["--redis-url", &redis.url(), "--store-timeout", "100ms"]);
    let mut client = connect(&server).await;
    block_in_place(|| redis.kill());
    wait_for("away", async || metric(&server, OPEN).await == 1).await;
    for first in (0..KEYS).step_by(AT_ONCE as usize) {
        assert_eq!(ask_many(&mut client, "old", first).await, 1);
    }
    // Keys that nobody has asked for before keep coming: what is owed does not end by itself.
    let (stop, more) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
    let crowd = tokio::spawn({
        let (stop, more, port) = (Arc::clone(&stop), Arc::clone(&more), server.grpc_port);
        async move {
            let mut client = connect_to(port).await;
            while !stop.load(Relaxed) {
                ask_many(&mut client, "new", more.fetch_add(AT_ONCE, Relaxed)).await;
            }
        }
    });
    block_in_place(|| redis.restart());
    let start = Instant::now();
    wait_for("back", async || metric(&server, OPEN).await == 0).await;
    println!(
        "back after {:?}; {} keys came meanwhile",
        start.elapsed(),
        more.load(Relaxed)
    );
    // What is still owed on a key goes before its next request: of its five hits, four are left.
    for key in (0..KEYS).step_by(4999) {
        let mut admitted = 0;
        for _ in 0..6 {
            let code = ask_for(&mut client, "local", format!("old{key}").as_bytes()).await;
            admitted += u64::from(code.expect("answered") == 1);
        }
        assert_eq!(admitted, 4, "key {key}");
    }
    stop.store(true, Relaxed);
    crowd.await.expect("no panic");
    // The rest is told by itself.
    let told = || {
        let count = "return #redis.call('KEYS', '*old*')";
        let keys = block_in_place(|| redis.cli(&["EVAL", count, "0"]));
        keys.parse::<u64>().expect("a number")
    };
    wait_for("told", async || told() == KEYS).await;
    println!("all told after {:?}", start.elapsed());
    assert_eq!(metric(&server, OPEN).await, 0);
}
