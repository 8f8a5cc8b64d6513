//! The service over a real connection: codes, statuses, headers, body, metadata.

mod bounds;

use prost::Message as _;
use sluicegate::proto::envoy::extensions::common::ratelimit::v3::rate_limit_descriptor::RateLimitOverride;
use sluicegate::proto::envoy::service::ratelimit::v3 as wire;
use tonic::Code;
use wire::rate_limit_response::{self as answer, rate_limit::Unit};

use crate::server::{Server, request};

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
        "envoy.service.rate_limit_quota.v3.RateLimitQuotaService",
        "envoy.service.ratelimit.v3.RateLimitService",
        "grpc.health.v1.Health",
        "grpc.reflection.v1.ServerReflection",
    ];
    assert_eq!(names, expected);
}
