//! `concurrency`: Envoy takes a slot with the request and gives it back when the stream is done.

use http::StatusCode;
use tokio::task::JoinSet;

use crate::support::{
    envoy::{Envoy, FAILURE_DENIES, PATIENT},
    sluicegate::Sluicegate,
};

const SLOTS: usize = 3;
/// The line of `envoy.yaml` above its rate limits.
const ABOVE: &str =
    "                      # Each entry makes one descriptor; all of a request's descriptors must pass.\n";
/// A second entry makes the call that gives the slot back. Envoy minds `hits_addend` in the filter's own
/// configuration of a route only, not in `rate_limits` beside the route.
const RELEASES: (&str, &str) = (
    ABOVE,
    "                      typed_per_filter_config:
                        envoy.filters.http.ratelimit:
                          \"@type\": type.googleapis.com/envoy.extensions.filters.http.ratelimit.v3.RateLimitPerRoute
                          rate_limits:
                            - actions: [{ remote_address: {} }]
                            - actions: [{ remote_address: {} }]
                              apply_on_stream_done: true
                              hits_addend: { number: 1, is_negative_hits: true }
",
);

fn rules(slot_life: &str) -> String {
    format!(
        "domain: demo
descriptors:
  - key: remote_address
    rate_limit: {{ name: in-flight, algorithm: concurrency, requests_per_unit: {SLOTS}, window: {slot_life} }}
"
    )
}

/// An Envoy whose upstream answers after this long.
fn slow(service: &Sluicegate, delay: &str) -> Envoy {
    let filters = format!(
        "stat_prefix: upstream
                http_filters:
                  - name: envoy.filters.http.fault
                    typed_config:
                      \"@type\": type.googleapis.com/envoy.extensions.filters.http.fault.v3.HTTPFault
                      delay: {{ fixed_delay: {delay}, percentage: {{ numerator: 100 }} }}"
    );
    let delayed = ("stat_prefix: upstream\n                http_filters:", filters.as_str());
    Envoy::start(service.grpc_port, &[PATIENT, FAILURE_DENIES, RELEASES, delayed])
}

/// So many requests at once; how many pass. The others must be told that they are too many.
async fn passed_of(envoy: &Envoy, count: usize) -> usize {
    let mut requests = JoinSet::new();
    for _ in 0..count {
        let client = envoy.client();
        requests.spawn(async move { client.get("/", &[]).await.status });
    }
    let statuses = requests.join_all().await;
    let passed = statuses.iter().filter(|status| **status == StatusCode::OK).count();
    let denied = statuses
        .iter()
        .filter(|status| **status == StatusCode::TOO_MANY_REQUESTS)
        .count();
    assert_eq!(passed + denied, count, "{statuses:?}");
    passed
}

/// Nobody is denied here: Envoy makes the second call for denied requests, too, and so gives back slots that they never
/// had (see the algorithm's docs).
#[tokio::test(flavor = "multi_thread")]
async fn slots_come_back_when_streams_are_done() {
    let service = Sluicegate::start(&rules("10m"), &[]);
    let envoy = slow(&service, "1s");
    // Slots live for ten minutes, so only the releases can make room again; Envoy sends them behind the answers.
    for _ in 0..4 {
        assert_eq!(passed_of(&envoy, SLOTS).await, SLOTS);
        tokio::time::sleep(std::time::Duration::from_millis(500)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_slots_of_a_caller_that_crashed_free_themselves() {
    let service = Sluicegate::start(&rules("20s"), &[]);
    let crashed = slow(&service, "60s");
    let mut lost = JoinSet::new();
    for _ in 0..SLOTS {
        let client = crashed.client();
        lost.spawn(async move { client.get("/", &[]).await.status });
    }
    let start = tokio::time::Instant::now();
    let envoy = slow(&service, "0.01s");
    // The slots are taken once somebody else is denied.
    while passed_of(&envoy, 1).await == 1 {
        assert!(start.elapsed().as_secs() < 15, "the slots were never taken");
    }
    lost.abort_all();
    drop(crashed);
    while passed_of(&envoy, 1).await == 0 {
        assert!(start.elapsed().as_secs() < 60, "the slots were never freed");
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    }
}
