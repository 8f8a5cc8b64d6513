//! A service that does not answer: Envoy's own timeout decides.

use http::StatusCode;

use crate::support::{
    envoy::{DEFAULT_TIMEOUT, Envoy, FAILURE_DENIES},
    sluicegate::Sluicegate,
};

const RULES: &str = "
domain: demo
descriptors:
  - key: remote_address
    rate_limit: { name: per-address, requests_per_unit: 10, unit: hour }
";
/// Far more requests than the limit: some of them may meet a timeout on a busy machine and pass uncounted.
const MANY: usize = 500;

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_service_lets_requests_pass_after_the_default_20_ms() {
    let service = Sluicegate::start(RULES, &[]);
    let envoy = Envoy::start(service.grpc_port, &[DEFAULT_TIMEOUT]);
    let client = envoy.client();

    service.process.signal("STOP");
    let answer = client.get("/", &[]).await;
    assert_eq!(answer.status, StatusCode::OK);
    envoy.wait_for_stat("cluster.upstream.ratelimit.error", 1).await;
    envoy
        .wait_for_stat("cluster.upstream.ratelimit.failure_mode_allowed", 1)
        .await;

    service.process.signal("CONT");
    let mut denied = false;
    for _ in 0..MANY {
        denied = client.get("/", &[]).await.status == StatusCode::TOO_MANY_REQUESTS;
        if denied {
            break;
        }
    }
    assert!(denied, "limits hold again once the service is back");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_service_answers_500_with_failure_mode_deny() {
    let service = Sluicegate::start(RULES, &[]);
    let envoy = Envoy::start(service.grpc_port, &[DEFAULT_TIMEOUT, FAILURE_DENIES]);

    service.process.signal("STOP");
    let answer = envoy.client().get("/", &[]).await;
    assert_eq!(answer.status, StatusCode::INTERNAL_SERVER_ERROR);
    envoy.wait_for_stat("cluster.upstream.ratelimit.error", 1).await;
}
