//! Switches of a rule through a real Envoy: several limits on one descriptor, limits that clients are not told of, soft
//! limits that mark, and headers for the upstream.

use std::collections::BTreeMap;

use axum::{Router, http::HeaderMap};
use http::StatusCode;
use tokio::net::TcpListener;

use crate::support::{
    envoy::{Envoy, FAILURE_DENIES, PATIENT},
    http::{Answer, Client},
    sluicegate::Sluicegate,
};

/// An upstream that answers with the headers of its request; the port.
async fn mirror() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("its address").port();
    let answer = |headers: HeaderMap| async move {
        let pairs = headers.iter().map(|(name, value)| {
            let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
            (name.as_str().to_owned(), value)
        });
        serde_json::json!(pairs.collect::<BTreeMap<_, _>>()).to_string()
    };
    let router = Router::new().fallback(answer);
    tokio::spawn(async move { axum::serve(listener, router).await });
    port
}

/// Envoy's own upstream cluster leads to the mirror.
async fn started(rules: &str, arguments: &[&str]) -> (Sluicegate, Envoy) {
    let service = Sluicegate::start(rules, arguments);
    let (from, to) = (UPSTREAM_CLUSTER, format!("port_value: {}", mirror().await));
    let config = crate::support::envoy::project_file("envoy.yaml");
    let config = replace_last(&config, from, &to);
    let envoy = Envoy::start_from(&config, service.grpc_port, &[PATIENT, FAILURE_DENIES]);
    (service, envoy)
}

const UPSTREAM_CLUSTER: &str = "port_value: 10001";

/// The listener of the built-in upstream comes first, the cluster's endpoint last.
fn replace_last(text: &str, from: &str, to: &str) -> String {
    let at = text.rfind(from).expect("the upstream's port");
    assert!(text[..at].contains(from), "the listener has it, too");
    [&text[..at], to, &text[at + from.len()..]].concat()
}

async fn get(client: &Client) -> Answer {
    client.get("/", &[]).await
}

fn upstream_saw(answer: &Answer, header: &str) -> Option<String> {
    answer.json()[header].as_str().map(str::to_owned)
}

#[tokio::test(flavor = "multi_thread")]
async fn several_limits_hold_together_and_envoy_shows_the_one_that_answers() {
    const RULES: &str = "
domain: demo
descriptors:
  - key: remote_address
    rate_limits:
      - { name: burst, requests_per_unit: 3, unit: hour }
      - { name: daily, requests_per_unit: 100, unit: day }
";
    let (_service, envoy) = started(RULES, &[]).await;
    let client = envoy.client();
    for left in ["2", "1", "0"] {
        let answer = get(&client).await;
        assert_eq!(answer.status, StatusCode::OK);
        assert_eq!(answer.header("x-ratelimit-limit"), Some("3, 3;w=3600;name=\"burst\""));
        assert_eq!(answer.header("x-ratelimit-remaining"), Some(left));
    }
    let denied = get(&client).await;
    assert_eq!(denied.status, StatusCode::TOO_MANY_REQUESTS);
    assert!(
        denied.body.contains("burst") && !denied.body.contains("daily"),
        "{}",
        denied.body
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_learns_nothing_of_a_hidden_limit() {
    const RULES: &str = "
domain: demo
descriptors:
  - key: remote_address
    rate_limit: { name: trap, requests_per_unit: 1, unit: hour, headers: false, body: false }
";
    let (_service, mut envoy) = started(RULES, &["--ietf-headers", "true", "--limit-headers", "true"]).await;
    let client = envoy.client();
    let (passed, denied) = (get(&client).await, get(&client).await);
    assert_eq!(
        (passed.status, denied.status),
        (StatusCode::OK, StatusCode::TOO_MANY_REQUESTS)
    );
    for answer in [&passed, &denied] {
        for header in [
            "x-ratelimit-limit",
            "x-ratelimit-remaining",
            "ratelimit",
            "ratelimit-policy",
            "ratelimit-limit",
            "retry-after",
        ] {
            assert_eq!(answer.header(header), None, "{header}: {answer:?}");
        }
    }
    assert!(!denied.body.contains("trap"), "{}", denied.body);
    // The operator sees it.
    envoy.wait_for_access(&["status=429", "\"rule\":\"trap\""]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_soft_limit_marks_for_the_upstream_by_both_services() {
    const RULES: &str = "
domain: demo
ext_authz:
  default: true
  rate_limits: [{ actions: [{ remote_address: {} }] }]
descriptors:
  - key: remote_address
    rate_limit: { name: soft, requests_per_unit: 1, unit: hour, on_limit: mark }
";
    let (_service, envoy) = started(RULES, &["--request-limit-headers", "true"]).await;
    let client = envoy.client();
    let (within, over) = (get(&client).await, get(&client).await);
    assert_eq!((within.status, over.status), (StatusCode::OK, StatusCode::OK));
    assert_eq!(upstream_saw(&within, "x-ratelimit-over"), None);
    assert_eq!(upstream_saw(&within, "ratelimit-remaining").as_deref(), Some("0"));
    assert_eq!(upstream_saw(&over, "x-ratelimit-over").as_deref(), Some("soft"));
    // By ext_authz the same, and what a client says of itself does not get through.
    let forged = envoy.authz_client().get("/", &[("x-ratelimit-over", "forged")]).await;
    assert_eq!(forged.status, StatusCode::OK);
    assert_eq!(upstream_saw(&forged, "x-ratelimit-over").as_deref(), Some("soft"));
}
