//! What variables do to answers: metadata, headers, shadow mode, statistics.

mod hits;

use std::fs;

use prost::Message;
use prost_types::{Struct, Value, value::Kind};
use serde_json::{Value as Json, json};
use sluicegate::proto::envoy::{
    extensions::common::ratelimit::v3::{
        RateLimitDescriptor,
        rate_limit_descriptor::{Entry, RateLimitOverride},
    },
    service::ratelimit::v3::{
        RateLimitRequest, RateLimitResponse, rate_limit_response::Code,
        rate_limit_service_client::RateLimitServiceClient,
    },
    r#type::v3::RateLimitUnit,
};
use tempfile::TempDir;
use tonic::transport::Channel;

use crate::support::{ratelimit::Ratelimit, redis::Redis};

/// The published example of a service that is chosen by what is left of its quota, with detailed metrics, beside which
/// metadata got lost.
const RULES: &str = r#"
domain: rl
descriptors:
  - key: service
    value: service_1
    quota_mode: true
    detailed_metric: true
    rate_limit: {unit: hour, requests_per_unit: 1}
    metadata: {service_with_quota: {name: service_1, zone: a}, tags: [x]}
  - key: service
    value: service_2
    quota_mode: true
    detailed_metric: true
    rate_limit: {unit: hour, requests_per_unit: 2}
    metadata: {service_with_quota: {name: service_2, tier: 2}}
  - key: user
    rate_limit: {unit: hour, requests_per_unit: 2, name: per-user}
    metadata: {team: a}
"#;

struct Server {
    process: Ratelimit,
    client: RateLimitServiceClient<Channel>,
    _dir: TempDir,
}

impl Server {
    async fn start(variables: &[(&str, &str)]) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        fs::create_dir(dir.path().join("config")).expect("a directory");
        fs::write(dir.path().join("config/rules.yaml"), RULES).expect("a file");
        let root = dir.path().display().to_string();
        let process = Ratelimit::start(&[&[("RUNTIME_ROOT", root.as_str())], variables].concat());
        let client = RateLimitServiceClient::connect(format!("http://127.0.0.1:{}", process.grpc_port)).await;
        Self {
            process,
            client: client.expect("a connection"),
            _dir: dir,
        }
    }

    async fn ask(&mut self, descriptors: &[(&str, &str)], hits: Option<u64>) -> RateLimitResponse {
        self.client
            .should_rate_limit(request(descriptors, hits))
            .await
            .expect("an answer")
            .into_inner()
    }
}

fn request(descriptors: &[(&str, &str)], hits: Option<u64>) -> RateLimitRequest {
    let descriptor = |(key, value): &(&str, &str)| RateLimitDescriptor {
        entries: vec![Entry {
            key: (*key).into(),
            value: (*value).into(),
        }],
        hits_addend: hits,
        ..Default::default()
    };
    RateLimitRequest {
        domain: "rl".into(),
        descriptors: descriptors.iter().map(descriptor).collect(),
        hits_addend: 0,
    }
}

fn metadata(response: &RateLimitResponse) -> Json {
    let fields = Struct::decode(response.dynamic_metadata.as_slice()).expect("a Struct");
    json_of(Value {
        kind: Some(Kind::StructValue(fields)),
    })
}

fn json_of(value: Value) -> Json {
    match value.kind.expect("a kind") {
        Kind::NullValue(_) => Json::Null,
        Kind::NumberValue(number) => json!(number),
        Kind::StringValue(text) => Json::String(text),
        Kind::BoolValue(truth) => Json::Bool(truth),
        Kind::ListValue(list) => list.values.into_iter().map(json_of).collect(),
        Kind::StructValue(value) => value
            .fields
            .into_iter()
            .map(|(key, value)| (key, json_of(value)))
            .collect(),
    }
}

fn headers(response: &RateLimitResponse) -> Vec<(&str, &str)> {
    response
        .response_headers_to_add
        .iter()
        .map(|header| (header.key.as_str(), header.value.as_str()))
        .collect()
}

#[tokio::test]
async fn metadata_names_the_services_that_have_quota_left() {
    let mut server = Server::start(&[("RESPONSE_DYNAMIC_METADATA", "true")]).await;
    let both = [("service", "service_1"), ("service", "service_2")];
    // As the example does it: a look before, the charge for whoever served it after.
    for (left, charged) in [
        ("service_1", "service_1"),
        ("service_2", "service_2"),
        ("service_2", "service_2"),
    ] {
        let response = server.ask(&both, Some(0)).await;
        assert_eq!(response.overall_code(), Code::Ok);
        assert_eq!(
            metadata(&response)["metadata"]["service_with_quota"]["name"],
            left,
            "{:?}",
            metadata(&response)
        );
        server.ask(&[("service", charged)], Some(1)).await;
    }
    let response = server.ask(&both, Some(0)).await;
    assert_eq!(response.overall_code(), Code::OverLimit, "all quotas are used up");
    let metadata = metadata(&response);
    assert_eq!(metadata.get("metadata"), None, "of those that passed: {metadata}");
    assert_eq!(
        metadata["sluicegate"]["violated"],
        json!(["service_service_1", "service_service_2"])
    );
    assert_eq!(metadata["sluicegate"]["metadata"]["service_with_quota"]["zone"], "a");
}

#[tokio::test]
async fn metadata_echoes_the_request_and_merges() {
    let mut server = Server::start(&[("RESPONSE_DYNAMIC_METADATA", "true")]).await;
    let response = server
        .ask(
            &[("service", "service_1"), ("service", "service_2"), ("nobody", "x")],
            Some(0),
        )
        .await;
    let found = metadata(&response);
    assert_eq!(found["domain"], "rl");
    assert_eq!(
        found["descriptors"][0],
        json!({"entries": ["service=service_1"], "hitsAddend": 0.0})
    );
    assert_eq!(found["descriptors"][2]["entries"], json!(["nobody=x"]));
    let merged = json!({"service_with_quota": {"name": "service_1", "zone": "a", "tier": 2.0}, "tags": ["x"]});
    assert_eq!(found["metadata"], merged);

    let mut own = request(&[("nobody", "x")], None);
    own.descriptors[0].limit = Some(RateLimitOverride {
        requests_per_unit: 42,
        unit: RateLimitUnit::Hour.into(),
        ..Default::default()
    });
    let response = server.client.should_rate_limit(own).await.expect("an answer");
    let found = metadata(response.get_ref());
    assert_eq!(found["descriptors"][0]["limit"], "requests_per_unit:42 unit:HOUR");
}

#[tokio::test]
async fn without_asking_only_denials_carry_metadata_and_they_name_the_rule() {
    let mut server = Server::start(&[]).await;
    for _ in 0..2 {
        assert!(server.ask(&[("user", "u")], None).await.dynamic_metadata.is_empty());
    }
    let found = metadata(&server.ask(&[("user", "u")], None).await);
    let keys: Vec<_> = found.as_object().expect("an object").keys().collect();
    assert_eq!(keys, ["sluicegate"]);
    let ours = &found["sluicegate"];
    assert_eq!(
        [&ours["rule"], &ours["domain"], &ours["code"]],
        ["per-user", "rl", "OVER_LIMIT"]
    );
    assert_eq!(ours["metadata"], json!({"team": "a"}));
}

#[tokio::test]
async fn headers_by_the_names_that_are_set() {
    let mut server = Server::start(&[
        ("LIMIT_RESPONSE_HEADERS_ENABLED", "true"),
        ("LIMIT_LIMIT_HEADER", "X-Limit"),
        ("LIMIT_RESET_HEADER", "X-Reset"),
    ])
    .await;
    let response = server.ask(&[("user", "u")], None).await;
    let found = headers(&response);
    assert_eq!(found[..2], [("X-Limit", "2"), ("RateLimit-Remaining", "1")]);
    let ("X-Reset", reset) = found[2] else {
        panic!("{found:?}")
    };
    assert!(
        (3600..3800).contains(&reset.parse::<u32>().expect("seconds")),
        "{found:?}"
    );
    // Nothing applies: nothing is said.
    assert_eq!(headers(&server.ask(&[("nobody", "x")], None).await), []);
}

#[tokio::test]
async fn the_upstream_is_told_by_request_headers() {
    let mut server = Server::start(&[
        ("LIMIT_REQUEST_HEADERS_ENABLED", "true"),
        ("LIMIT_REQUEST_REMAINING_HEADER", "x-left"),
    ])
    .await;
    let response = server.ask(&[("user", "u")], None).await;
    let told: Vec<(&str, &str)> = response
        .request_headers_to_add
        .iter()
        .map(|header| (header.key.as_str(), header.value.as_str()))
        .collect();
    assert_eq!(told[..2], [("RateLimit-Limit", "2"), ("x-left", "1")]);
    assert_eq!(told[2].0, "RateLimit-Reset");
    assert!(!headers(&response).iter().any(|(name, _)| name.starts_with("RateLimit")));
}

#[tokio::test]
async fn shadow_mode_denies_nobody_and_tells_in_the_status() {
    let mut server = Server::start(&[("SHADOW_MODE", "true")]).await;
    for expected in [Code::Ok, Code::Ok, Code::OverLimit] {
        let response = server.ask(&[("user", "u")], None).await;
        assert_eq!(
            (response.overall_code(), response.statuses[0].code()),
            (Code::Ok, expected)
        );
    }
    // Quotas: one of them is enough.
    for (services, denied) in [(["service_1", "service_2"], 1), (["service_1", "service_1"], 2)] {
        server.ask(&services.map(|name| ("service", name)), Some(1)).await;
        let stats = server.process.debug().get("/stats", &[]).await.body;
        let counted = stats
            .lines()
            .find_map(|line| line.strip_prefix("ratelimit.service.global_shadow_mode: "));
        assert_eq!(counted, Some(denied.to_string().as_str()), "{services:?}: {stats}");
    }
}

#[tokio::test]
async fn requests_for_unknown_domains_are_counted() {
    let mut server = Server::start(&[]).await;
    server.ask(&[("nobody", "x")], None).await;
    let mut elsewhere = request(&[("user", "u")], None);
    elsewhere.domain = "elsewhere".into();
    let response = server.client.should_rate_limit(elsewhere).await.expect("an answer");
    assert_eq!(response.get_ref().overall_code(), Code::Ok);
    let stats = server.process.debug().get("/stats", &[]).await.body;
    assert!(stats.contains("sluicegate_unknown_domain_total: 1\n"), "{stats}");
}

#[tokio::test]
async fn grpc_on_a_unix_socket() {
    let socket = tempfile::tempdir().expect("a directory");
    let path = socket.path().join("rl.sock");
    let root = tempfile::tempdir().expect("a directory");
    fs::create_dir(root.path().join("config")).expect("a directory");
    fs::write(root.path().join("config/rules.yaml"), RULES).expect("a file");
    let (root, uds) = (root.path().display().to_string(), path.display().to_string());
    let _process = Ratelimit::start(&[("RUNTIME_ROOT", &root), ("GRPC_UDS", &uds)]);
    let mut client = RateLimitServiceClient::connect(format!("unix://{uds}"))
        .await
        .expect("a connection");
    let answer = client
        .should_rate_limit(RateLimitRequest {
            domain: "rl".into(),
            ..Default::default()
        })
        .await;
    assert_eq!(answer.expect_err("no descriptors").code(), tonic::Code::InvalidArgument);
}

#[tokio::test]
async fn denials_that_need_no_call_to_redis_are_counted_as_such() {
    let redis = Redis::start();
    let url = format!("127.0.0.1:{}", redis.port);
    for (cache, from_cache) in [("on", 3), ("off", 0)] {
        redis.cli(&["FLUSHALL"]);
        let variables = [
            ("REDIS_URL", url.as_str()),
            ("DENY_CACHE", cache),
            ("LEASE", "off"),
            ("LOG_LEVEL", "info"),
            ("STORE_TIMEOUT", "10s"),
            ("ON_STORE_ERROR", "deny"),
        ];
        let mut server = Server::start(&variables).await;
        server.process.wait_for_redis(1);
        for number in 0..6 {
            let code = server.ask(&[("user", "a")], None).await.overall_code;
            assert_eq!(code == i32::from(Code::Ok), number < 2);
        }
        let stats = server.process.debug().get("/stats", &[]).await.body;
        for (name, value) in [("over_limit", 4), ("over_limit_with_local_cache", from_cache)] {
            let line = format!("ratelimit.service.rate_limit.rl.user.{name}: {value}");
            assert!(stats.lines().any(|found| found == line), "no `{line}` in\n{stats}");
        }
        // The gauges of envoyproxy/ratelimit's local cache: six lookups, the first denial becomes an entry.
        let lookups = if cache == "on" { 6 } else { 0 };
        for (name, value) in [
            ("hitCount", from_cache),
            ("missCount", lookups - from_cache),
            ("lookupCount", lookups),
            ("expiredCount", 0),
            ("entryCount", i32::from(cache == "on")),
            ("evacuateCount", 0),
            ("overwriteCount", 0),
        ] {
            let line = format!("ratelimit.localcache.{name}: {value}");
            assert!(stats.lines().any(|found| found == line), "no `{line}` in\n{stats}");
        }
    }
}
