//! What a client sees: statuses, headers, body; and what Envoy logs.

use http::StatusCode;

use crate::support::{
    envoy::{Envoy, FAILURE_DENIES, PATIENT},
    http::{Answer, Client},
    redis::Redis,
    sluicegate::Sluicegate,
};

/// Windows so long that no test ends in another one than it began in.
const RULES: &str = "
domain: demo
descriptors:
  - key: remote_address
    rate_limit: { name: per-address, requests_per_unit: 10, unit: hour }
  - key: api_key
    rate_limit: { name: per-key, requests_per_unit: 2, window: 30m }
";
const HOUR_S: u64 = 3600;

/// Sends requests until one is denied; returns how many passed, and the denial.
async fn until_denied(client: &Client, headers: &[(&str, &str)]) -> (u64, Answer) {
    for passed in 0..100 {
        let answer = client.get("/", headers).await;
        if answer.status != StatusCode::OK {
            return (passed, answer);
        }
    }
    panic!("100 requests passed");
}

fn number(answer: &Answer, header: &str) -> u64 {
    let text = answer
        .header(header)
        .unwrap_or_else(|| panic!("no {header}: {answer:?}"));
    text.parse().unwrap_or_else(|_| panic!("{header}: {text}"))
}

fn started(arguments: &[&str]) -> (Sluicegate, Envoy) {
    let service = Sluicegate::start(RULES, arguments);
    let envoy = Envoy::start(service.grpc_port, &[PATIENT, FAILURE_DENIES]);
    (service, envoy)
}

async fn assert_ten_pass_and_the_eleventh_is_told_why(client: &Client) {
    for sent in 1..=10 {
        let answer = client.get("/", &[]).await;
        assert_eq!(answer.status, StatusCode::OK, "request {sent}");
        assert_eq!(answer.body, "hello from the upstream\n");
        assert_eq!(
            answer.header("x-ratelimit-limit"),
            Some("10, 10;w=3600;name=\"per-address\"")
        );
        assert_eq!(number(&answer, "x-ratelimit-remaining"), 10 - sent);
        assert!(number(&answer, "x-ratelimit-reset") <= 2 * HOUR_S);
        assert_eq!(answer.header("retry-after"), None);
    }
    let denied = client.get("/", &[]).await;
    assert_eq!(denied.status, StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(number(&denied, "x-ratelimit-remaining"), 0);
    let retry_after = number(&denied, "retry-after");
    // The whole window and at most one slice more.
    assert!((HOUR_S - 300..=HOUR_S + 300).contains(&retry_after), "{retry_after}");
    assert_eq!(denied.header("content-type"), Some("application/problem+json"));
    let problem = denied.json();
    assert_eq!(
        problem["type"],
        "https://iana.org/assignments/http-problem-types#quota-exceeded"
    );
    assert_eq!(problem["status"], 429);
    let violated = problem["violated-policies"].to_string();
    assert!(violated.contains("per-address"), "{}", denied.body);
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_pass_and_the_eleventh_is_told_why_in_memory() {
    let (_service, envoy) = started(&["--store", "memory"]);
    assert_ten_pass_and_the_eleventh_is_told_why(&envoy.client()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_pass_and_the_eleventh_is_told_why_in_redis() {
    let redis = Redis::start();
    let (_service, envoy) = started(&[
        "--redis-url",
        &redis.url(),
        "--on-store-error",
        "deny",
        "--store-timeout",
        "5s",
    ]);
    assert_ten_pass_and_the_eleventh_is_told_why(&envoy.client()).await;
    assert_ne!(redis.cli(&["DBSIZE"]), "0", "the counters are in Redis");
}

#[tokio::test(flavor = "multi_thread")]
async fn each_header_value_has_a_limit_of_its_own_and_a_denial_takes_nothing() {
    let (_service, envoy) = started(&[]);
    let client = envoy.client();
    for key in ["anna", "bert"] {
        let (passed, denied) = until_denied(&client, &[("x-api-key", key)]).await;
        assert_eq!(passed, 2, "{key}");
        let violated = denied.json()["violated-policies"].to_string();
        assert!(violated.contains("per-key"), "{}", denied.body);
        assert!(!violated.contains("per-address"), "{}", denied.body);
    }
    // Four of the address's ten are gone: the two denials took none.
    let (passed, denied) = until_denied(&client, &[]).await;
    assert_eq!(passed, 6);
    assert!(denied.body.contains("per-address"), "{}", denied.body);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_access_log_shows_what_was_denied() {
    let (_service, mut envoy) = started(&[]);
    let client = envoy.client();
    let (passed, _denied) = until_denied(&client, &[]).await;
    assert_eq!(passed, 10);
    envoy.wait_for_access(&["GET ", " / status=200 flags=- "]);
    envoy.wait_for_access(&["GET ", " / status=429 flags=RL ", "\"rule\":\"per-address\""]);
}

/// Three headers, each a descriptor; a client says by them which limits it wants and in which order. No two limits have
/// one number, so that the number tells which one Envoy shows.
const ORDERED_RULES: &str = "
domain: demo
descriptors:
  - { key: limit, value: short-*, rate_limit: { requests_per_unit: 1, unit: minute } }
  - { key: limit, value: long-*, rate_limit: { requests_per_unit: 2, unit: hour } }
  - { key: limit, value: wide-*, rate_limit: { requests_per_unit: 9, unit: day } }
  - { key: limit, value: brief-*, rate_limit: { requests_per_unit: 1, unit: second } }
";
const ORDERED_ROUTE: (&str, &str) = (
    "                      rate_limits:\n",
    "                      rate_limits:
                        - actions: [{ request_headers: { header_name: x-1, descriptor_key: limit } }]
                        - actions: [{ request_headers: { header_name: x-2, descriptor_key: limit } }]
                        - actions: [{ request_headers: { header_name: x-3, descriptor_key: limit } }]
",
);

fn ordered() -> (Sluicegate, Envoy) {
    let service = Sluicegate::start(ORDERED_RULES, &[]);
    let envoy = Envoy::start(service.grpc_port, &[PATIENT, FAILURE_DENIES, ORDERED_ROUTE]);
    (service, envoy)
}

#[tokio::test(flavor = "multi_thread")]
async fn envoy_shows_the_limit_that_denies_or_is_nearest_to_it_in_every_order() {
    const HOURS: std::ops::RangeInclusive<u64> = 3_500..=3_800;
    const MINUTES: std::ops::RangeInclusive<u64> = 50..=63;
    let (_service, envoy) = ordered();
    let client = envoy.client();
    let orders: [&[&str]; 8] = [
        &["short", "long"],
        &["long", "short"],
        &["short", "long", "wide"],
        &["short", "wide", "long"],
        &["long", "short", "wide"],
        &["long", "wide", "short"],
        &["wide", "short", "long"],
        &["wide", "long", "short"],
    ];
    for (case, order) in orders.iter().enumerate() {
        let values: Vec<String> = order.iter().map(|kind| format!("{kind}-{case}")).collect();
        let names = ["x-1", "x-2", "x-3"];
        let all: Vec<(&str, &str)> = names.into_iter().zip(values.iter().map(String::as_str)).collect();
        let value = format!("long-{case}");
        let long = [("x-1", value.as_str())];
        // (request, status, the limit that is shown, its reset)
        let steps: [(&[(&str, &str)], StatusCode, &str, _); 4] = [
            // None is left of `short`, one of `long`.
            (&all, StatusCode::OK, "1, ", MINUTES),
            // `short` denies, `long` has one left.
            (&all, StatusCode::TOO_MANY_REQUESTS, "1, ", MINUTES),
            (&long, StatusCode::OK, "2, ", HOURS),
            // Both deny: `long` for longer.
            (&all, StatusCode::TOO_MANY_REQUESTS, "2, ", HOURS),
        ];
        for (headers, status, limit, resets) in steps {
            let answer = client.get("/", headers).await;
            assert_eq!(answer.status, status, "{order:?}");
            let shown = answer.header("x-ratelimit-limit").unwrap_or_default();
            assert!(shown.starts_with(limit), "{order:?}: {limit}: {answer:?}");
            assert_eq!(number(&answer, "x-ratelimit-remaining"), 0, "{order:?}: {answer:?}");
            let reset = number(&answer, "x-ratelimit-reset");
            assert!(resets.contains(&reset), "{order:?}: {answer:?}");
            if status != StatusCode::OK {
                assert_eq!(reset, number(&answer, "retry-after"), "{order:?}: {answer:?}");
            }
        }
    }
}

/// Envoy cuts fractions off: a client that waits as long as `x-ratelimit-reset` says must not come too early. It watches
/// the real clock on purpose; a slow machine only waits longer.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_waits_as_long_as_envoy_says_is_admitted() {
    let (_service, envoy) = ordered();
    let client = envoy.client();
    for case in 0..3 {
        let value = format!("brief-{case}");
        let headers = [("x-1", value.as_str())];
        let (_, denied) = until_denied(&client, &headers).await;
        let reset = number(&denied, "x-ratelimit-reset");
        assert!(reset >= 1, "{denied:?}");
        tokio::time::sleep(std::time::Duration::from_secs(reset)).await;
        let later = client.get("/", &headers).await;
        assert_eq!(later.status, StatusCode::OK, "after {reset} s: {later:?}");
    }
}
