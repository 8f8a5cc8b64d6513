//! A gRPC client behind Envoy hears RESOURCE_EXHAUSTED, and when to come again.

use std::time::Duration;

use sluicegate::proto::envoy::service::ratelimit::v3::{
    RateLimitRequest, rate_limit_service_client::RateLimitServiceClient,
};
use tonic::Code;
use tonic::transport::Endpoint;

use super::{rules, start};

#[tokio::test(flavor = "multi_thread")]
async fn grpc_callers_hear_resource_exhausted() {
    let section = "  rate_limits: [{ actions: [{ path: { segments: 1, descriptor_key: service } }] }]";
    let descriptors = "  - key: service
    rate_limit: { name: per-service, requests_per_unit: 2, unit: hour }";
    let upstream = ("route: { cluster: upstream }", "route: { cluster: sluicegate }");
    // The upstream is a real gRPC server: the service itself.
    let (_service, envoy) = start(&rules(section, descriptors), &[], &[upstream]);
    let channel = Endpoint::from_shared(format!("http://127.0.0.1:{}", envoy.authz_port))
        .expect("a URL")
        .timeout(Duration::from_secs(30))
        .connect()
        .await
        .expect("connected");
    let mut client = RateLimitServiceClient::new(channel);
    let request = || RateLimitRequest {
        domain: "nobody".into(),
        descriptors: vec![Default::default()],
        hits_addend: 0,
    };
    for _ in 0..2 {
        let answer = client.should_rate_limit(request()).await.expect("passed");
        assert!(answer.metadata().contains_key("x-ratelimit-remaining"));
    }
    let denied = client.should_rate_limit(request()).await.expect_err("denied");
    assert_eq!(denied.code(), Code::ResourceExhausted);
    assert!(
        denied
            .message()
            .starts_with("Over the limit of \"per-service\". Try again in "),
        "{denied:?}"
    );
    let metadata = denied.metadata();
    let pushback = metadata
        .get("grpc-retry-pushback-ms")
        .expect("pushback")
        .to_str()
        .expect("text");
    let pushback: u64 = pushback.parse().expect("milliseconds");
    assert!((3_600_000..3_800_000).contains(&pushback), "{pushback}");
    assert_eq!(metadata.get("x-ratelimit-remaining").expect("remaining"), "0");
    assert!(metadata.contains_key("retry-after"));
}
