//! An `:authority` that is no URI's. Names of Istio's clusters, which Envoy sends unless told otherwise, are served; what the
//! HTTP/2 layer refuses is counted and said.

use http::StatusCode;

use crate::support::{
    envoy::{Envoy, PATIENT},
    http::Client,
    sluicegate::Sluicegate,
};

const RULES: &str = "
domain: demo
descriptors:
  - { key: remote_address, rate_limit: { requests_per_unit: 1, unit: hour } }
";
/// As Istio calls a cluster.
const NAME: &str = "outbound|8081||ratelimit.default.svc.cluster.local";
/// A name that nothing makes an authority of.
const REFUSED: &str = "rate limits";

async fn protocol_errors(service: &Sluicegate) -> u64 {
    let page = Client::new(service.admin_port).get("/metrics", &[]).await.body;
    let line = page
        .lines()
        .find_map(|line| line.strip_prefix("sluicegate_http2_protocol_errors_total "));
    line.expect("the counter").parse().expect("a number")
}

/// An Envoy whose cluster of the service has this name, and its `envoy_grpc` this text behind that.
fn envoy_of(service: &Sluicegate, name: &str, more: &str) -> Envoy {
    let grpc = format!("{{ cluster_name: \"{name}\"{more} }}");
    let cluster = format!("- name: \"{name}\"\n      type: STATIC\n      connect_timeout: 1s\n      # gRPC");
    let loads = format!("cluster_name: \"{name}\"\n        endpoints");
    let changes = [
        PATIENT,
        ("{ cluster_name: sluicegate }", grpc.as_str()),
        (
            "- name: sluicegate\n      type: STATIC\n      connect_timeout: 1s\n      # gRPC",
            cluster.as_str(),
        ),
        ("cluster_name: sluicegate\n        endpoints", loads.as_str()),
    ];
    Envoy::start(service.grpc_port, &changes)
}

/// On each connection the name comes once and is referred to from then on.
#[tokio::test(flavor = "multi_thread")]
async fn the_name_of_an_istio_cluster_is_served() {
    let service = Sluicegate::start(RULES, &[]);
    let envoy = envoy_of(&service, NAME, "");
    assert_eq!(envoy.client().get("/", &[]).await.status, StatusCode::OK);
    for _ in 0..5 {
        assert_eq!(envoy.client().get("/", &[]).await.status, StatusCode::TOO_MANY_REQUESTS);
    }
    assert_eq!(protocol_errors(&service).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_authority_that_is_refused_is_said_and_the_cure_helps() {
    let mut service = Sluicegate::start(RULES, &[]);
    let envoy = envoy_of(&service, REFUSED, "");
    for _ in 0..3 {
        assert_eq!(
            envoy.client().get("/", &[]).await.status,
            StatusCode::OK,
            "Envoy lets it pass"
        );
    }
    assert_eq!(protocol_errors(&service).await, 3);
    let said = |log: &str| log.lines().filter(|line| line.contains("authority: ratelimit")).count();
    service
        .process
        .wait_until("the cure in the log", |process| said(&process.log()) > 0);
    assert_eq!(said(&service.process.log()), 1);

    // What the log says helps.
    let envoy = envoy_of(&service, REFUSED, ", authority: ratelimit");
    assert_eq!(envoy.client().get("/", &[]).await.status, StatusCode::OK);
    assert_eq!(envoy.client().get("/", &[]).await.status, StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(protocol_errors(&service).await, 3);
}
