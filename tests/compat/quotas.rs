//! Quotas of several models in one request, as Envoy AI Gateway's QuotaPolicy sends them: OR within a model, AND across.

use serde_json::{Value, json};

use super::silence::Server;
use crate::support::{http::Client, redis::Redis};

const RULES: &str = "
domain: d
descriptors:
  - key: backend
    value: b
    quota_mode: true
    rate_limit: { unit: hour, requests_per_unit: 4, name: b }
    descriptors:
      - key: model
        value: m1
        quota_mode: true
        rate_limit: { unit: hour, requests_per_unit: 10, name: m1 }
        descriptors:
          - { key: tenant, quota_mode: true, rate_limit: { unit: hour, requests_per_unit: 3, name: m1-tenant } }
          - { key: plan, quota_mode: true, rate_limit: { unit: hour, requests_per_unit: 5, name: m1-plan } }
      - key: model
        value: m2
        quota_mode: true
        rate_limit: { unit: hour, requests_per_unit: 6, name: m2 }
  - { key: ordinary, rate_limit: { unit: hour, requests_per_unit: 1000 } }
";

type Entries = &'static [(&'static str, &'static str)];

const B: Entries = &[("backend", "b")];
const M1: Entries = &[("backend", "b"), ("model", "m1")];
const TENANT: Entries = &[("backend", "b"), ("model", "m1"), ("tenant", "t")];
const PLAN: Entries = &[("backend", "b"), ("model", "m1"), ("plan", "p")];
const M2: Entries = &[("backend", "b"), ("model", "m2")];
const ORDINARY: Entries = &[("ordinary", "x")];

/// Whether it passed, and what the metadata says is used up.
async fn ask(http: &Client, descriptors: &[Entries]) -> (bool, Value) {
    let entry = |(key, value): &(&str, &str)| json!({ "key": key, "value": value });
    let descriptors: Vec<Value> = descriptors
        .iter()
        .map(|entries| json!({ "entries": entries.iter().map(entry).collect::<Vec<_>>() }))
        .collect();
    let body = json!({ "domain": "d", "descriptors": descriptors });
    let answer = http.post("/json", &[], &body.to_string()).await;
    let metadata = answer.json()["dynamicMetadata"]["sluicegate"]["exhausted"].clone();
    (answer.status.is_success(), metadata)
}

async fn passing(http: &Client, descriptors: &[Entries]) -> (usize, Value) {
    for passed in 0..100 {
        if let (false, exhausted) = ask(http, descriptors).await {
            return (passed, exhausted);
        }
    }
    panic!("100 passed");
}

async fn quotas_hold_within_a_model_and_leave_the_others(variables: &[(&str, &str)], redis: Option<&Redis>) {
    // (descriptors of a request, how many pass, what is used up then)
    let cases: [(&[Entries], usize, Value); 9] = [
        (&[M1, TENANT], 3, json!(["m1-tenant"])),
        (&[TENANT, M1], 3, json!(["m1-tenant"])),
        (&[PLAN, ORDINARY, TENANT], 3, json!(["m1-tenant"])),
        (&[M1, M2], 10, json!(["m1", "m2"])),
        // m1's own quota is not asked for here; its plan's ends first.
        (&[PLAN, M2], 6, json!(["m1-plan", "m2"])),
        (&[M1, M2, TENANT], 6, json!(["m2", "m1-tenant"])),
        // The backend's own quota is part of both models' scopes, wherever it stands.
        (&[B, M1], 4, json!(["b"])),
        (&[B, M1, M2], 4, Value::Null),
        (&[M1, M2, B], 4, Value::Null),
    ];
    for (descriptors, passes, exhausted) in cases {
        if let Some(redis) = redis {
            redis.cli(&["FLUSHALL"]);
        }
        let mut server = Server::start(RULES, variables);
        if redis.is_some() {
            server.process.wait_for_redis(1);
        }
        let http = server.process.http();
        assert_eq!(
            passing(&http, descriptors).await,
            (passes, exhausted),
            "{descriptors:?} {variables:?}"
        );
    }
}

#[tokio::test]
async fn in_memory() {
    quotas_hold_within_a_model_and_leave_the_others(&[("BACKEND_TYPE", "memory")], None).await;
}

#[tokio::test]
async fn in_redis() {
    let redis = Redis::start();
    let url = format!("127.0.0.1:{}", redis.port);
    let variables = [
        ("REDIS_URL", url.as_str()),
        ("LOG_LEVEL", "info"),
        ("STORE_TIMEOUT", "10s"),
        ("ON_STORE_ERROR", "deny"),
    ];
    quotas_hold_within_a_model_and_leave_the_others(&variables, Some(&redis)).await;
}

#[tokio::test]
async fn what_is_used_up_is_named_while_another_model_serves() {
    let server = Server::start(RULES, &[("BACKEND_TYPE", "memory")]);
    let http = server.process.http();
    for _ in 0..6 {
        assert_eq!(ask(&http, &[M1, M2]).await, (true, Value::Null));
    }
    assert_eq!(ask(&http, &[M1, M2]).await, (true, json!(["m2"])));
}
