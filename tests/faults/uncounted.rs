//! Bounds beyond which traffic passes uncounted: what happens there is said once, with what to do, and counted.

use tokio::task::block_in_place;
use tonic::transport::Channel;

use sluicegate::proto::envoy::service::ratelimit::v3 as wire;
use wire::rate_limit_service_client::RateLimitServiceClient;

use crate::crowd::{metric, wait_for};
use crate::listeners::{connect, request};
use crate::support::http::Client;
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

#[tokio::test(flavor = "multi_thread")]
async fn calls_that_are_not_served_are_said() {
    let mut server = Sluicegate::start(RULES, &[]);
    let channel = Channel::from_shared(format!("http://127.0.0.1:{}", server.grpc_port)).expect("an address");
    let mut client = tonic::client::Grpc::new(channel.connect().await.expect("connected"));
    let mut call = async |path: &'static str, codec: tonic_prost::ProstCodec<Vec<u8>, ()>| {
        client.ready().await.expect("ready");
        let answer = client
            .unary(tonic::Request::new(vec![0xff]), path.parse().expect("a path"), codec)
            .await;
        answer.expect_err("not served").code()
    };
    let v2 = call(
        "/envoy.service.ratelimit.v2.RateLimitService/ShouldRateLimit",
        tonic_prost::ProstCodec::default(),
    )
    .await;
    assert_eq!(v2, tonic::Code::Unimplemented);
    assert_eq!(
        metric(&server, "sluicegate_unserved_calls_total{code=\"unimplemented\"}").await,
        1
    );
    let v3 = call(
        "/envoy.service.ratelimit.v3.RateLimitService/ShouldRateLimit",
        tonic_prost::ProstCodec::default(),
    )
    .await;
    assert_eq!(v3, tonic::Code::Internal);
    assert_eq!(
        metric(&server, "sluicegate_unserved_calls_total{code=\"internal\"}").await,
        1
    );
    let said = |log: &str| log.matches("a gRPC call is not served").count();
    server
        .process
        .wait_until("its warning", |process| said(&process.log()) == 1);
    let health = Client::new(server.admin_port).get("/healthcheck?details", &[]).await;
    assert_eq!(
        (health.status.as_u16(), health.json()["uncounted"].clone()),
        (200, serde_json::json!(["sluicegate_unserved_calls_total"]))
    );
}
