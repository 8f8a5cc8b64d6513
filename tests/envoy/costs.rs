//! What a request costs is known when its response is done: a quota of tokens, as gateways for language models have it.

use std::time::Duration;

use http::StatusCode;

use crate::support::{
    envoy::{Envoy, FAILURE_DENIES, PATIENT},
    redis::Redis,
    sluicegate::Sluicegate,
};

const RULES: &str = "
domain: demo
descriptors:
  - key: remote_address
    rate_limit: { name: tokens, requests_per_unit: 100, unit: hour }
";

/// Every response of the upstream costs 60 tokens.
const COSTS: (&str, &str) = (
    "                          direct_response:\n                            status: 200\n",
    "                          response_headers_to_add: [{ header: { key: x-tokens, value: \"60\" } }]
                          direct_response:\n                            status: 200\n",
);
const CHARGES: (&str, &str) = (
    "                      # Each entry makes one descriptor; all of a request's descriptors must pass.\n",
    "                      typed_per_filter_config:
                        envoy.filters.http.ratelimit:
                          \"@type\": type.googleapis.com/envoy.extensions.filters.http.ratelimit.v3.RateLimitPerRoute
                          rate_limits:
                            - actions: [{ remote_address: {} }]
                              hits_addend: { number: 0 }
                            - actions: [{ remote_address: {} }]
                              apply_on_stream_done: true
                              hits_addend: { format: \"%RESP(x-tokens)%\" }
",
);

async fn the_second_response_uses_the_quota_up(arguments: &[&str]) {
    let service = Sluicegate::start(RULES, &[&["--charge-after-peek"], arguments].concat());
    let envoy = Envoy::start(service.grpc_port, &[PATIENT, FAILURE_DENIES, COSTS, CHARGES]);
    let mut statuses = Vec::new();
    for _ in 0..5 {
        statuses.push(envoy.client().get("/", &[]).await.status);
        // The cost comes behind the response.
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    let (ok, over) = (StatusCode::OK, StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(statuses, [ok, ok, over, over, over]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quota_of_tokens_runs_out_in_memory() {
    the_second_response_uses_the_quota_up(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quota_of_tokens_runs_out_in_redis() {
    let redis = tokio::task::block_in_place(Redis::start);
    the_second_response_uses_the_quota_up(&["--redis-url", &redis.url(), "--store-timeout", "5s"]).await;
}
