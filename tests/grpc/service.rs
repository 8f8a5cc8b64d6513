//! The service over a real connection: codes, statuses, headers, body, metadata, bounds.

use std::time::Duration;

use prost::Message as _;
use sluicegate::config::settings::{OnOverload, RedisSettings, StoreKind};
use sluicegate::proto::envoy::extensions::common::ratelimit::v3::rate_limit_descriptor::RateLimitOverride;
use sluicegate::proto::envoy::service::ratelimit::v3 as wire;
use sluicegate::rules::OnStoreError;
use tonic::{Code, Request};
use wire::rate_limit_response::{self as answer, rate_limit::Unit};

use crate::server::{Server, request};
use crate::support::redis::Redis;

const RULES: &str = r#"
domain: edge
descriptors:
  - key: user
    rate_limit: {unit: hour, requests_per_unit: 3, name: per-user}
  - key: tenant
    rate_limit: {unit: hour, requests_per_unit: 100}
  - key: slow
    rate_limit: {window: 30s, requests_per_unit: 2}
  - key: free
    rate_limit: {unlimited: true}
  - key: dark
    shadow_mode: true
    rate_limit: {unit: hour, requests_per_unit: 1}
"#;

fn ok() -> i32 {
    answer::Code::Ok.into()
}

fn over() -> i32 {
    answer::Code::OverLimit.into()
}

async fn ask(server: &Server, request: wire::RateLimitRequest) -> wire::RateLimitResponse {
    server
        .client()
        .await
        .should_rate_limit(request)
        .await
        .expect("answered")
        .into_inner()
}

fn header<'a>(response: &'a wire::RateLimitResponse, name: &str) -> Option<&'a str> {
    response
        .response_headers_to_add
        .iter()
        .find(|header| header.key == name)
        .map(|header| header.value.as_str())
}

#[tokio::test]
async fn three_pass_and_the_fourth_hears_which_limit_and_when() {
    let server = Server::start(RULES).await;
    for left in [2, 1, 0] {
        let response = ask(&server, request("edge", &[&[("user", "alice")]])).await;
        assert_eq!(response.overall_code, ok());
        let status = &response.statuses[0];
        assert_eq!(status.limit_remaining, left);
        let limit = status.current_limit.as_ref().expect("limit");
        assert_eq!(
            (limit.requests_per_unit, limit.unit, limit.name.as_str()),
            (3, Unit::Hour.into(), "per-user")
        );
        assert_eq!(limit.unit_multiplier, None);
        assert!(response.raw_body.is_empty() && response.dynamic_metadata.is_empty());
        assert_eq!(header(&response, "retry-after"), None);
    }
    let response = ask(&server, request("edge", &[&[("user", "alice")]])).await;
    assert_eq!((response.overall_code, response.statuses[0].code), (over(), over()));
    let retry: u64 = header(&response, "retry-after")
        .expect("retry-after")
        .parse()
        .expect("seconds");
    assert!((3600..=3600 + 3600 / 32 + 1).contains(&retry), "{retry}");
    assert_eq!(header(&response, "content-type"), Some("application/problem+json"));
    let body: serde_json::Value = serde_json::from_slice(&response.raw_body).expect("json");
    assert_eq!(body["status"], 429);
    assert_eq!(body["violated-policies"][0]["name"], "per-user");
    assert_eq!(body["violated-policies"][0]["limit"], 3);
    assert_eq!(body["violated-policies"][0]["window-seconds"], 3600);
    assert_eq!(body["retry-after"], retry);
    let metadata = prost_types::Struct::decode(response.dynamic_metadata.as_slice()).expect("metadata");
    assert!(format!("{metadata:?}").contains("per-user"));
    // Somebody else has a counter of their own.
    assert_eq!(
        ask(&server, request("edge", &[&[("user", "bob")]])).await.overall_code,
        ok()
    );
    server.stop().await;
}

#[tokio::test]
async fn a_denied_request_consumes_nothing_of_its_other_descriptors() {
    let server = Server::start(RULES).await;
    let both = || request("edge", &[&[("user", "carol")], &[("tenant", "t")]]);
    for _ in 0..3 {
        assert_eq!(ask(&server, both()).await.overall_code, ok());
    }
    for _ in 0..5 {
        let response = ask(&server, both()).await;
        assert_eq!(response.overall_code, over());
        assert_eq!((response.statuses[0].code, response.statuses[1].code), (over(), ok()));
        assert_eq!(response.statuses[1].limit_remaining, 97);
    }
    server.stop().await;
}

#[tokio::test]
async fn windows_that_are_no_unit_say_unit_times_multiplier() {
    let server = Server::start(RULES).await;
    let response = ask(&server, request("edge", &[&[("slow", "x")]])).await;
    let limit = response.statuses[0].current_limit.clone().expect("limit");
    assert_eq!((limit.unit, limit.unit_multiplier), (Unit::Second.into(), Some(30)));
    server.stop().await;
}

#[tokio::test]
async fn unlimited_unknown_and_shadow() {
    let server = Server::start(RULES).await;
    let free = ask(&server, request("edge", &[&[("free", "x")], &[("nobody", "knows")]])).await;
    assert_eq!(free.overall_code, ok());
    assert_eq!(free.statuses[0].limit_remaining, u32::MAX);
    assert!(free.statuses.iter().all(|status| status.current_limit.is_none()));
    assert_eq!(
        ask(&server, request("elsewhere", &[&[("user", "x")]]))
            .await
            .overall_code,
        ok()
    );
    for _ in 0..3 {
        let dark = ask(&server, request("edge", &[&[("dark", "x")]])).await;
        assert_eq!((dark.overall_code, dark.statuses[0].code), (ok(), ok()));
    }
    server.stop().await;
}

#[tokio::test]
async fn hits_peeks_and_give_backs() {
    let server = Server::start(RULES).await;
    let with = |hits: Option<u64>, negative: bool| {
        let mut request = request("edge", &[&[("user", "dora")]]);
        request.descriptors[0].hits_addend = hits;
        request.descriptors[0].is_negative_hits = negative;
        request
    };
    let remaining = |response: &wire::RateLimitResponse| response.statuses[0].limit_remaining;
    assert_eq!(remaining(&ask(&server, with(Some(0), false)).await), 3);
    assert_eq!(remaining(&ask(&server, with(Some(2), false)).await), 1);
    let denied = ask(&server, with(Some(2), false)).await;
    // As in envoyproxy/ratelimit; the body says what is truly left.
    assert_eq!((denied.overall_code, remaining(&denied)), (over(), 0));
    let body: serde_json::Value = serde_json::from_slice(&denied.raw_body).expect("json");
    assert_eq!(body["violated-policies"][0]["remaining"], 1);
    assert_eq!(remaining(&ask(&server, with(Some(1), true)).await), 2);
    // Never above the full quota.
    assert_eq!(remaining(&ask(&server, with(Some(50), true)).await), 3);
    // More than the limit can ever hold: waiting does not help, and nothing promises that it would.
    let never = ask(&server, with(Some(4), false)).await;
    assert_eq!(never.overall_code, over());
    assert_eq!(header(&never, "retry-after"), None);
    // The request's own hits, where a descriptor has none.
    let mut two = request("edge", &[&[("user", "emil")]]);
    two.hits_addend = 2;
    assert_eq!(remaining(&ask(&server, two).await), 1);
    server.stop().await;
}

#[tokio::test]
async fn bad_requests_are_refused_with_a_text_that_says_which() {
    let server = Server::start(RULES).await;
    let mut client = server.client().await;
    let long = "x".repeat(200_000);
    let mut bad_unit = request("edge", &[&[("user", "x")]]);
    bad_unit.descriptors[0].limit = Some(RateLimitOverride {
        requests_per_unit: 1,
        unit: 99,
        unit_multiplier: None,
    });
    let many: Vec<&[(&str, &str)]> = vec![&[("user", "x")]; 300];
    let cases = [
        (request("", &[&[("user", "x")]]), "domain"),
        (request("edge", &[]), "descriptor"),
        (bad_unit, "descriptors[0].limit.unit is 99"),
        (
            request("edge", &[&[("user", &long)]]),
            "descriptors[0].entries[0].value has 200000 bytes",
        ),
        (request(&long, &[&[("user", "x")]]), "domain has 200000 bytes"),
        (request("edge", &many), "descriptors has 300"),
    ];
    for (request, text) in cases {
        let status = client.should_rate_limit(request).await.expect_err("refused");
        assert_eq!(status.code(), Code::InvalidArgument, "{status}");
        assert!(status.message().contains(text), "{:?} lacks {text:?}", status.message());
    }
    // The connection and the service live on.
    assert!(
        client
            .should_rate_limit(request("edge", &[&[("user", "x")]]))
            .await
            .is_ok()
    );
    server.stop().await;
}

#[tokio::test]
async fn a_limit_of_its_own_is_counted_beside_the_rules() {
    let server = Server::start(RULES).await;
    let mut own = request("edge", &[&[("user", "frank")]]);
    own.descriptors[0].limit = Some(RateLimitOverride {
        requests_per_unit: 1,
        unit: Unit::Second.into(),
        unit_multiplier: Some(30),
    });
    assert_eq!(ask(&server, own.clone()).await.overall_code, ok());
    let denied = ask(&server, own).await;
    assert_eq!(denied.overall_code, over());
    assert_eq!(
        denied.statuses[0]
            .current_limit
            .as_ref()
            .expect("limit")
            .unit_multiplier,
        Some(30)
    );
    assert_eq!(
        ask(&server, request("edge", &[&[("user", "frank")]])).await.statuses[0].limit_remaining,
        2
    );
    server.stop().await;
}

#[tokio::test]
async fn a_drain_flips_health_first_and_finishes_what_is_under_way() {
    use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient};
    let rules = "domain: d\ndescriptors: [{key: k, rate_limit: {unit: second, requests_per_unit: 1, algorithm: leaky_bucket, max_delay: 5s}}]";
    let server = Server::start_with(rules, |settings| {
        settings.limits.drain_delay = Duration::from_millis(300)
    })
    .await;
    let channel = tonic::transport::Endpoint::new(server.url())
        .expect("url")
        .connect()
        .await
        .expect("connected");
    let mut health = HealthClient::new(channel);
    for service in ["", "ratelimit", "envoy.service.ratelimit.v3.RateLimitService"] {
        let answer = health
            .check(HealthCheckRequest {
                service: service.into(),
            })
            .await
            .expect("known")
            .into_inner();
        assert_eq!(answer.status(), ServingStatus::Serving, "{service}");
    }
    let mut client = server.client().await;
    client
        .should_rate_limit(request("d", &[&[("k", "x")]]))
        .await
        .expect("first");
    let mut waiting = client.clone();
    // Held back for about a second: it is under way when the drain begins, and ends after it.
    let held = tokio::spawn(async move {
        let mut request = Request::new(request("d", &[&[("k", "x")]]));
        request.set_timeout(Duration::from_secs(5));
        waiting.should_rate_limit(request).await
    });
    tokio::time::sleep(Duration::from_millis(100)).await;
    let stopping = tokio::spawn(server.stop());
    tokio::time::sleep(Duration::from_millis(100)).await;
    let answer = health
        .check(HealthCheckRequest {
            service: "ratelimit".into(),
        })
        .await
        .expect("known")
        .into_inner();
    assert_eq!(answer.status(), ServingStatus::NotServing);
    assert_eq!(
        held.await
            .expect("no panic")
            .expect("answered")
            .into_inner()
            .overall_code,
        ok()
    );
    stopping.await.expect("no panic");
}

/// Two requests while only one may be worked on, and the store answers none of them.
async fn one_too_many(on_overload: OnOverload) -> Result<wire::RateLimitResponse, tonic::Status> {
    let rules = "domain: d\ndescriptors: [{key: k, rate_limit: {unit: hour, requests_per_unit: 100000}}]";
    let redis = Redis::start();
    let server = Server::start_with(rules, |settings| {
        settings.limits.max_concurrent = 1;
        settings.limits.on_overload = on_overload;
        settings.store.kind = StoreKind::Redis;
        settings.store.redis = Some(RedisSettings::from_url(&redis.url()).expect("a good URL"));
        settings.store.timeout = Duration::from_secs(30);
        settings.store.on_store_error = OnStoreError::Deny;
    })
    .await;
    let ask = |value: &'static str| {
        let client = server.client();
        async move {
            let request = request("d", &[&[("k", value)], &[("k", "z")]]);
            let answer = client.await.should_rate_limit(request).await;
            answer.map(tonic::Response::into_inner)
        }
    };
    // Until the store decides: nothing else lets it pass.
    while ask("warm").await.expect("answered").overall_code != ok() {}
    redis.process.signal("STOP");
    let (one, two) = (std::pin::pin!(ask("one")), std::pin::pin!(ask("two")));
    let (at_once, waits) = match futures::future::select(one, two).await {
        futures::future::Either::Left((answer, other)) => (answer, other),
        futures::future::Either::Right((answer, other)) => (answer, other),
    };
    redis.process.signal("CONT");
    assert_eq!(waits.await.expect("answered").overall_code, ok());
    at_once
}

#[tokio::test]
async fn overload_is_answered_at_once_as_configured() {
    let refused = one_too_many(OnOverload::Unavailable).await.expect_err("refused");
    assert_eq!(refused.code(), Code::Unavailable);
    let passed = one_too_many(OnOverload::Allow).await.expect("passed");
    assert_eq!((passed.overall_code, passed.statuses.len()), (ok(), 2));
}

#[tokio::test]
async fn an_answer_that_waits_for_its_turn_keeps_nobody_out() {
    let rules = "domain: d\ndescriptors: [{key: k, rate_limit: {unit: second, requests_per_unit: 1, algorithm: leaky_bucket, max_delay: 5s}}]";
    let server = Server::start_with(rules, |settings| settings.limits.max_concurrent = 1).await;
    let mut client = server.client().await;
    let ask = |value| request("d", &[&[("k", value)]]);
    client.should_rate_limit(ask("x")).await.expect("at once");
    let mut waiting = client.clone();
    let held = waiting.should_rate_limit(ask("x"));
    let held = std::pin::pin!(held);
    let others = async {
        for _ in 0..20 {
            client.should_rate_limit(ask("y")).await.expect("answered");
            tokio::task::yield_now().await;
        }
    };
    let (held, ()) = tokio::join!(held, async {
        tokio::time::timeout(Duration::from_secs(60), others)
            .await
            .expect("answered")
    });
    assert_eq!(held.expect("answered").into_inner().overall_code, ok());
    server.stop().await;
}

#[tokio::test]
async fn connections_above_the_bound_are_closed_at_once() {
    let server = Server::start_with(RULES, |settings| settings.limits.max_connections = 1).await;
    let mut first = server.client().await;
    let ask = || request("edge", &[&[("tenant", "t")]]);
    first.should_rate_limit(ask()).await.expect("the first is served");
    // The second's handshake is answered by the kernel; what it asks fails without waiting.
    let mut second = server.client().await;
    let refused = tokio::time::timeout(Duration::from_secs(20), second.should_rate_limit(ask())).await;
    refused.expect("it hears of it").expect_err("no place");
    first.should_rate_limit(ask()).await.expect("the first is still served");
    drop(first);
    let start = std::time::Instant::now();
    while let Err(error) = second.should_rate_limit(ask()).await {
        assert!(start.elapsed() < Duration::from_secs(20), "{error}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    server.stop().await;
}

/// Envoy copies a header's bytes into a descriptor whatever they are, and sends a descriptor without entries where all
/// of its actions skip theirs: if such a request were refused, Envoy would let it pass uncounted.
#[tokio::test]
async fn what_envoy_sends_for_odd_requests_is_counted() {
    let server = Server::start(RULES).await;
    let bytes = |value: &[u8]| {
        let mut request = request("edge", &[&[("user", "")]]);
        request.descriptors[0].entries[0].value = value.to_vec();
        request
    };
    for left in [2, 1, 0] {
        let response = ask(&server, bytes(b"\xff\x00")).await;
        assert_eq!(response.statuses[0].limit_remaining, left);
    }
    assert_eq!(ask(&server, bytes(b"\xff\x00")).await.overall_code, over());
    assert_eq!(
        ask(&server, bytes(b"\xfe\x00")).await.overall_code,
        ok(),
        "another value, another counter"
    );

    let response = ask(&server, request("edge", &[&[], &[("user", "bob")]])).await;
    assert_eq!((response.overall_code, response.statuses.len()), (ok(), 2));
    assert!(response.statuses[0].current_limit.is_none());
    assert_eq!(response.statuses[1].limit_remaining, 2);
}

#[tokio::test]
async fn reflection_names_what_is_served_and_nothing_else() {
    use tonic_reflection::pb::v1::{
        ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
        server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
    };
    let server = Server::start(RULES).await;
    let endpoint = tonic::transport::Endpoint::from_shared(server.url()).unwrap();
    let mut client = ServerReflectionClient::new(endpoint.connect().await.unwrap());
    let list = ServerReflectionRequest {
        message_request: Some(MessageRequest::ListServices(String::new())),
        ..Default::default()
    };
    let answers = client.server_reflection_info(tokio_stream::once(list)).await.unwrap();
    let answer = answers.into_inner().message().await.unwrap().unwrap();
    let Some(MessageResponse::ListServicesResponse(services)) = answer.message_response else {
        panic!("{answer:?}")
    };
    let mut names: Vec<_> = services.service.into_iter().map(|service| service.name).collect();
    names.sort();
    let expected = [
        "envoy.service.auth.v3.Authorization",
        "envoy.service.ratelimit.v3.RateLimitService",
        "grpc.health.v1.Health",
        "grpc.reflection.v1.ServerReflection",
    ];
    assert_eq!(names, expected);
}
