//! The cases of `rls.yaml` (for any server with the RLS v3 interface) against the real process, started as
//! envoyproxy/ratelimit is, with either store.

use std::{collections::BTreeMap, fs};

use serde::Deserialize;
use sluicegate::proto::envoy::{
    extensions::common::ratelimit::v3::{
        RateLimitDescriptor,
        rate_limit_descriptor::{Entry, RateLimitOverride},
    },
    service::ratelimit::v3::{
        RateLimitRequest, RateLimitResponse,
        rate_limit_response::{Code, DescriptorStatus, rate_limit::Unit},
        rate_limit_service_client::RateLimitServiceClient,
    },
    r#type::v3::RateLimitUnit,
};
use tonic::transport::Channel;

use crate::support::{ratelimit::Ratelimit, redis::Redis};

const CASES: &str = include_str!("rls.yaml");

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Suite {
    #[allow(dead_code, reason = "holds anchors")]
    rules: serde_json::Value,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    name: String,
    rules: BTreeMap<String, String>,
    #[serde(default)]
    env: BTreeMap<String, String>,
    steps: Vec<Step>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Step {
    request: Request,
    #[serde(default = "once")]
    times: usize,
    at: Option<usize>,
    expect: Expect,
}

const fn once() -> usize {
    1
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Request {
    domain: String,
    #[serde(default)]
    hits: u32,
    descriptors: Vec<Descriptor>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Descriptor {
    Entries(Vec<(String, String)>),
    Whole(Whole),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Whole {
    entries: Vec<(String, String)>,
    hits: Option<u64>,
    limit: Option<(u32, String)>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Expect {
    overall: Option<String>,
    statuses: Option<Vec<Status>>,
    error: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Status {
    code: String,
    limit: Option<(u32, String, String)>,
    remaining: Option<Remaining>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Remaining {
    Number(u32),
    /// `19-{i}`
    Falling(String),
}

impl Remaining {
    fn at(&self, call: usize) -> u32 {
        match self {
            Self::Number(number) => *number,
            Self::Falling(text) => {
                let start = text.strip_suffix("-{i}").expect("`n-{i}`");
                start.parse::<u32>().expect("a number") - u32::try_from(call).expect("few calls")
            }
        }
    }
}

fn wire(request: &Request) -> RateLimitRequest {
    RateLimitRequest {
        domain: request.domain.clone(),
        descriptors: request.descriptors.iter().map(descriptor).collect(),
        hits_addend: request.hits,
    }
}

fn descriptor(descriptor: &Descriptor) -> RateLimitDescriptor {
    let (entries, hits, limit) = match descriptor {
        Descriptor::Entries(entries) => (entries, None, None),
        Descriptor::Whole(whole) => (&whole.entries, whole.hits, whole.limit.as_ref()),
    };
    let entry = |(key, value): &(String, String)| Entry {
        key: key.clone().into(),
        value: value.clone().into(),
    };
    let limit = limit.map(|(requests_per_unit, unit)| RateLimitOverride {
        requests_per_unit: *requests_per_unit,
        unit: RateLimitUnit::from_str_name(unit).expect("a unit").into(),
        ..Default::default()
    });
    RateLimitDescriptor {
        entries: entries.iter().map(entry).collect(),
        limit,
        hits_addend: hits,
        is_negative_hits: false,
    }
}

fn check(expect: &Expect, call: usize, answer: Result<RateLimitResponse, tonic::Status>) {
    match (&expect.error, answer) {
        (Some(code), Err(status)) => {
            let found = format!("{:?}", status.code()).to_ascii_uppercase();
            assert_eq!(found, code.replace('_', ""), "{status}");
            assert!(!status.message().is_empty(), "an error has a text");
        }
        (None, Ok(response)) => check_response(expect, call, &response),
        (wanted, found) => panic!("wanted error {wanted:?}, got {found:?}"),
    }
}

fn check_response(expect: &Expect, call: usize, response: &RateLimitResponse) {
    if let Some(overall) = &expect.overall {
        assert_eq!(response.overall_code().as_str_name(), overall, "{response:?}");
    }
    let Some(statuses) = &expect.statuses else { return };
    assert_eq!(response.statuses.len(), statuses.len(), "{response:?}");
    for (found, wanted) in response.statuses.iter().zip(statuses) {
        check_status(wanted, call, found);
    }
}

fn check_status(wanted: &Status, call: usize, found: &DescriptorStatus) {
    assert_eq!(found.code().as_str_name(), wanted.code, "call {call}: {found:?}");
    if let Some(remaining) = &wanted.remaining {
        assert_eq!(found.limit_remaining, remaining.at(call), "call {call}: {found:?}");
    }
    match (&wanted.limit, &found.current_limit) {
        (None, None) => assert!(found.duration_until_reset.is_none(), "{found:?}"),
        (Some((requests, unit, name)), Some(limit)) => {
            let found_limit = (limit.requests_per_unit, limit.unit(), limit.name.as_str());
            let unit = Unit::from_str_name(unit).expect("a unit");
            assert_eq!(found_limit, (*requests, unit, name.as_str()));
            assert!(
                found.duration_until_reset.is_some() || found.code() == Code::Ok,
                "{found:?}"
            );
        }
        (wanted, found) => panic!("call {call}: wanted limit {wanted:?}, found {found:?}"),
    }
}

async fn run(case: &Case, number: usize, store: &[(&str, &str)]) {
    let in_redis = store.iter().any(|(name, _)| *name == "REDIS_URL");
    eprintln!("case: {}", case.name);
    let root = tempfile::tempdir().expect("a directory");
    let config = root.path().join("config");
    fs::create_dir(&config).expect("a directory");
    for (name, text) in &case.rules {
        fs::write(config.join(name), text).expect("a file");
    }
    // Empty counters for each case.
    let prefix = format!("case{number}:");
    let root = root.path().display().to_string();
    let own = case.env.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    let variables: Vec<_> = [
        ("RUNTIME_ROOT", root.as_str()),
        ("CACHE_KEY_PREFIX", &prefix),
        ("LOG_LEVEL", "info"),
    ]
    .into_iter()
    .chain(store.iter().copied())
    .chain(own)
    .collect();
    let mut server = Ratelimit::start(&variables);
    if in_redis {
        server.wait_for_redis(1);
    }
    let mut client = connect(server.grpc_port).await;
    for step in &case.steps {
        for call in 0..step.times {
            let answer = client
                .should_rate_limit(wire(&step.request))
                .await
                .map(tonic::Response::into_inner);
            if step.at.is_none_or(|at| at == call) {
                check(&step.expect, call, answer);
            }
        }
    }
}

async fn connect(port: u16) -> RateLimitServiceClient<Channel> {
    RateLimitServiceClient::connect(format!("http://127.0.0.1:{port}"))
        .await
        .expect("a connection")
}

async fn run_all(store: &[(&str, &str)]) {
    // `y` is text.
    let options = serde_yaml::options! { strict_booleans: true };
    let suite: Suite = serde_yaml::from_str_with_options(CASES, options).expect("the cases");
    assert!(suite.cases.len() >= 12, "the file was cut");
    for (number, case) in suite.cases.iter().enumerate() {
        run(case, number, store).await;
    }
}

#[tokio::test]
async fn every_case_in_memory() {
    run_all(&[("BACKEND_TYPE", "memory")]).await;
}

#[tokio::test]
async fn every_case_in_redis() {
    let redis = Redis::start();
    let url = format!("127.0.0.1:{}", redis.port);
    // Long enough for a busy machine: here it is counted, not timed.
    run_all(&[
        ("REDIS_SOCKET_TYPE", "tcp"),
        ("REDIS_URL", &url),
        ("STORE_TIMEOUT", "5s"),
        ("ON_STORE_ERROR", "deny"),
    ])
    .await;
}
