//! Bounds beyond which traffic passes uncounted: what happens there is said once, with what to do, and counted.

use tokio::task::block_in_place;
use tonic::transport::Channel;

use sluicegate::proto::envoy::service::ratelimit::v3 as wire;
use wire::rate_limit_service_client::RateLimitServiceClient;

use crate::crowd::{metric, wait_for};
use crate::listeners::{connect, request};
use crate::support::redis::Redis;
use crate::support::sluicegate::Sluicegate;

/// Counters whose denials can be noted, and counters that Redis can be charged for when it is back.
const ROOM: u64 = 100_000;
/// Descriptors of a request at most.
const DESCRIPTORS: u64 = 256;

const RULES: &str = "
domain: chaos
descriptors:
  - key: full
    rate_limit: { algorithm: concurrency, window: 1h, requests_per_unit: 0 }
  - key: away
    rate_limit: { unit: hour, requests_per_unit: 5 }
";

/// Asks for as many counters as there is room for, and some more, once each.
async fn ask_beyond_the_room(client: &mut RateLimitServiceClient<Channel>, key: &str) {
    for first in (0..ROOM + DESCRIPTORS).step_by(DESCRIPTORS as usize) {
        let one = |number: u64| request(key, number.to_string().as_bytes()).descriptors;
        let asked = wire::RateLimitRequest {
            descriptors: (first..first + DESCRIPTORS).flat_map(one).collect(),
            ..request(key, b"")
        };
        let mut asked = tonic::Request::new(asked);
        // As Envoy does; others release only what they have.
        asked
            .metadata_mut()
            .insert("x-envoy-internal", "true".parse().expect("a value"));
        client.should_rate_limit(asked).await.expect("answered");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn denials_that_cannot_be_noted_are_said() {
    let server = Sluicegate::start(RULES, &[]);
    ask_beyond_the_room(&mut connect(&server).await, "full").await;
    assert!(metric(&server, "sluicegate_unnoted_denials_total").await > 0);
    let log = server.process.log();
    let said = log.matches("more concurrency counters deny than can be noted").count();
    assert_eq!(said, 1, "{log}");
    assert!(
        log.contains("let routes release what the answer's metadata says"),
        "{log}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn charges_that_find_no_room_are_said() {
    let mut redis = block_in_place(Redis::start);
    let server = Sluicegate::start(RULES, &["--redis-url", &redis.url()]);
    block_in_place(|| redis.kill());
    let away = async || metric(&server, "sluicegate_failure_mode{store=\"redis\"}").await == 1;
    wait_for("without Redis", away).await;
    ask_beyond_the_room(&mut connect(&server).await, "away").await;
    let dropped = "sluicegate_corrections_total{cause=\"fallback\",result=\"dropped\"}";
    wait_for("dropped", async || metric(&server, dropped).await > 0).await;
    let log = server.process.log();
    let said = log.matches("more hits were admitted while the store was away").count();
    assert_eq!(said, 1, "{log}");
}
