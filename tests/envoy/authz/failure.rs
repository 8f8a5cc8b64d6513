//! When nothing can be decided: no service, no store, no such domain.

use super::{rules, start};
use crate::support::{
    envoy::{AUTHZ_FAILURE_DENIES, Envoy},
    redis::Redis,
    sluicegate::Sluicegate,
};

const SECTION: &str = "  rate_limits: [{ actions: [{ remote_address: {} }] }]";
const DESCRIPTORS: &str = "  - key: remote_address
    rate_limit: { name: per-address, requests_per_unit: 3, unit: hour }";

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_service_is_answered_for_by_envoy() {
    let service = Sluicegate::start(&rules(SECTION, DESCRIPTORS), &[]);
    let open = Envoy::start(service.grpc_port, &[]);
    let closed = Envoy::start(service.grpc_port, &[AUTHZ_FAILURE_DENIES]);
    service.process.signal("STOP");
    assert_eq!(open.authz_client().get("/", &[]).await.status, 200);
    assert_eq!(closed.authz_client().get("/", &[]).await.status, 503);
    service.process.signal("CONT");
}

/// With a store that hangs the service's own failure mode answers within Envoy's timeout.
#[tokio::test(flavor = "multi_thread")]
async fn a_hanging_store_is_answered_for_by_the_service() {
    for (mode, expected) in [("allow", 200), ("deny", 429)] {
        let redis = Redis::start();
        let arguments = ["--redis-url", &redis.url(), "--on-store-error", mode];
        let service = Sluicegate::start(&rules(SECTION, DESCRIPTORS), &arguments);
        // Envoy's own timeout of 0.2 s, and closed: a 503 would be Envoy's answer.
        let mut envoy = Envoy::start(service.grpc_port, &[AUTHZ_FAILURE_DENIES]);
        let client = envoy.authz_client();
        redis.process.signal("STOP");
        let mut statuses = Vec::new();
        for _ in 0..5 {
            statuses.push(client.get("/", &[]).await.status.as_u16());
        }
        assert_eq!(statuses, [expected; 5], "{mode}");
        let line = envoy.wait_for_access(&[&format!("status={expected}")]);
        if mode == "deny" {
            assert!(line.contains(r#""failure_mode":"deny""#), "{line}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_domain_is_answered_by_the_failure_mode() {
    const ELSEWHERE: (&str, &str) = (
        "context_extensions: { domain: demo }",
        "context_extensions: { domain: elsewhere }",
    );
    for (mode, expected) in [("allow", 200), ("deny", 503)] {
        let (service, mut envoy) = start(&rules(SECTION, DESCRIPTORS), &["--on-store-error", mode], &[ELSEWHERE]);
        for _ in 0..5 {
            let answer = envoy.authz_client().get("/", &[]).await;
            assert_eq!(answer.status, expected, "{mode}");
            if expected == 503 {
                assert_eq!(answer.header("content-type"), Some("application/problem+json"));
                assert_eq!(answer.json()["status"], 503);
            }
        }
        let line = envoy.wait_for_access(&[&format!("status={expected}")]);
        assert!(line.contains(r#""reason":"unknown_domain""#), "{line}");
        let log = service.process.log();
        assert_eq!(
            log.matches("an ext_authz request cannot be decided").count(),
            1,
            "throttled: {log}"
        );
        assert!(log.contains("elsewhere"), "{log}");
        let metrics = crate::support::http::Client::new(service.admin_port)
            .get("/metrics", &[])
            .await
            .body;
        for line in [
            r#"sluicegate_bad_requests_total{reason="unknown_domain"} 5"#,
            r#"sluicegate_requests_total{code="error",service="authz"} 5"#,
        ] {
            assert!(metrics.contains(line), "no {line} in:\n{metrics}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mapping_changes_with_its_file() {
    let (service, envoy) = start(&rules(SECTION, DESCRIPTORS), &[], &[]);
    let client = envoy.authz_client();
    assert_eq!(client.get("/", &[]).await.header("x-ratelimit-limit"), Some("3"));
    let changed = rules(
        "  answers: { headers: [ratelimit] }\n  rate_limits: [{ actions: [{ method: { descriptor_key: remote_address } }] }]",
        DESCRIPTORS,
    );
    std::fs::write(&service.rules, changed).expect("rewritten");
    let start = std::time::Instant::now();
    loop {
        let answer = client.get("/", &[]).await;
        if answer.header("x-ratelimit-limit").is_none() {
            assert!(
                answer.header("ratelimit").expect("ratelimit").contains("r=2;"),
                "another counter"
            );
            break;
        }
        assert!(
            start.elapsed() < crate::support::process::PATIENCE,
            "the new rules are not in force"
        );
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
}
