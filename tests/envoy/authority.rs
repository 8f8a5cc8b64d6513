//! An `:authority` that the HTTP/2 layer refuses: as Istio's clusters are called, and Envoy sends it unless told otherwise.

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
const NAME: &str = "outbound|8081||ratelimit.default.svc.cluster.local";

async fn protocol_errors(service: &Sluicegate) -> u64 {
    let page = Client::new(service.admin_port).get("/metrics", &[]).await.body;
    let line = page
        .lines()
        .find_map(|line| line.strip_prefix("sluicegate_http2_protocol_errors_total "));
    line.expect("the counter").parse().expect("a number")
}

#[tokio::test(flavor = "multi_thread")]
async fn an_authority_that_is_refused_is_said_and_the_cure_helps() {
    let mut service = Sluicegate::start(RULES, &[]);
    let cluster = format!("- name: \"{NAME}\"\n      type: STATIC\n      connect_timeout: 1s\n      # gRPC");
    let (named, loads) = (
        format!("{{ cluster_name: \"{NAME}\" }}"),
        format!("cluster_name: \"{NAME}\"\n        endpoints"),
    );
    let changes = [
        PATIENT,
        ("{ cluster_name: sluicegate }", named.as_str()),
        (
            "- name: sluicegate\n      type: STATIC\n      connect_timeout: 1s\n      # gRPC",
            cluster.as_str(),
        ),
        ("cluster_name: sluicegate\n        endpoints", loads.as_str()),
    ];
    let envoy = Envoy::start(service.grpc_port, &changes);
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
    let cured = format!("{{ cluster_name: \"{NAME}\", authority: ratelimit }}");
    let changes = [
        changes[0],
        ("{ cluster_name: sluicegate }", cured.as_str()),
        changes[2],
        changes[3],
    ];
    let envoy = Envoy::start(service.grpc_port, &changes);
    assert_eq!(envoy.client().get("/", &[]).await.status, StatusCode::OK);
    assert_eq!(envoy.client().get("/", &[]).await.status, StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(protocol_errors(&service).await, 3);
}
