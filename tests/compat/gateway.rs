//! As Envoy Gateway deploys it: its variables and its files, its control plane with mutual TLS, its probes, and an
//! Envoy that shows a certificate.

mod start;

use std::{path::PathBuf, time::Duration};

use sluicegate::proto::{
    envoy::{
        extensions::common::ratelimit::v3::{
            RateLimitDescriptor as Asked,
            rate_limit_descriptor::{Entry, RateLimitOverride},
        },
        service::ratelimit::v3::{
            RateLimitRequest, RateLimitResponse, rate_limit_response::Code,
            rate_limit_service_client::RateLimitServiceClient,
        },
        r#type::v3::RateLimitUnit as Unit,
    },
    ratelimit::config::ratelimit::v3::{RateLimitConfig, RateLimitDescriptor, RateLimitPolicy, RateLimitUnit},
};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};

use crate::support::{
    ads::ControlPlane,
    certs::{Ca, Identity, Volume},
    http::Client,
    process::free_port,
    ratelimit::Ratelimit,
    redis::Redis,
};

/// Only reached on failure.
const PATIENCE: Duration = Duration::from_secs(30);
/// Key and value as Envoy Gateway makes them: with what elsewhere would be a wildcard.
const ROUTE: &str = "httproute/default/shop/rule/0/match/0/*";

/// What a gateway's namespace holds.
struct Namespace {
    ca: Ca,
    plane: ControlPlane,
    redis: Redis,
    /// Mounted at `/certs`.
    certs: Volume,
    metrics_port: u16,
}

impl Namespace {
    fn new() -> Self {
        let ca = Ca::new("envoy-gateway");
        let ca_pem = ca.pem();
        let plane = ControlPlane::new(Some((&ca.issue(&["127.0.0.1"]), &ca_pem)));
        let certs = Volume::new(&ca.issue(&["envoy-ratelimit"]).files(&ca_pem));
        Self {
            ca,
            plane,
            redis: Redis::start(),
            certs,
            metrics_port: free_port(),
        }
    }

    /// The variables of its deployment.
    fn deploy(&self) -> Ratelimit {
        let certs = |name: &str| path(self.certs.path(name));
        let (cert, key, ca) = (certs("tls.crt"), certs("tls.key"), certs("ca.crt"));
        let redis = format!("127.0.0.1:{}", self.redis.port);
        let metrics = format!("127.0.0.1:{}", self.metrics_port);
        Ratelimit::start(&[
            ("RUNTIME_ROOT", "/data"),
            ("RUNTIME_SUBDIRECTORY", "ratelimit"),
            ("RUNTIME_IGNOREDOTFILES", "true"),
            ("RUNTIME_WATCH_ROOT", "false"),
            ("LOG_LEVEL", "info"),
            ("USE_STATSD", "false"),
            ("CONFIG_TYPE", "GRPC_XDS_SOTW"),
            ("CONFIG_GRPC_XDS_SERVER_URL", &self.plane.address()),
            ("CONFIG_GRPC_XDS_NODE_ID", "envoy-ratelimit"),
            ("GRPC_SERVER_USE_TLS", "true"),
            ("GRPC_SERVER_TLS_CERT", &cert),
            ("GRPC_SERVER_TLS_KEY", &key),
            ("GRPC_SERVER_TLS_CA_CERT", &ca),
            ("CONFIG_GRPC_XDS_SERVER_USE_TLS", "true"),
            ("CONFIG_GRPC_XDS_CLIENT_TLS_CERT", &cert),
            ("CONFIG_GRPC_XDS_CLIENT_TLS_KEY", &key),
            ("CONFIG_GRPC_XDS_SERVER_TLS_CACERT", &ca),
            ("FORCE_START_WITHOUT_INITIAL_CONFIG", "true"),
            ("REDIS_SOCKET_TYPE", "tcp"),
            ("REDIS_URL", &redis),
            ("USE_PROMETHEUS", "true"),
            ("PROMETHEUS_ADDR", &metrics),
            ("PROMETHEUS_MAPPER_YAML", "/etc/statsd-exporter/conf.yaml"),
            // Not set there. Here: so that a busy machine changes nothing, and the outage is soon over.
            ("STORE_TIMEOUT", "5s"),
            ("XDS_CLIENT_BACKOFF_INITIAL_INTERVAL", "50ms"),
            ("XDS_CLIENT_BACKOFF_MAX_INTERVAL", "200ms"),
        ])
    }

    fn endpoint(&self, port: u16, identity: Option<&Identity>) -> Endpoint {
        let mut tls = ClientTlsConfig::new()
            .ca_certificate(Certificate::from_pem(self.ca.pem()))
            .domain_name("envoy-ratelimit");
        if let Some(identity) = identity {
            tls = tls.identity(identity.tonic());
        }
        Endpoint::from_shared(format!("https://127.0.0.1:{port}"))
            .and_then(|endpoint| endpoint.tls_config(tls))
            .expect("an endpoint")
            .timeout(PATIENCE)
    }

    /// The counter's value on the metrics port.
    async fn metric(&self, start: &str) -> String {
        let text = Client::new(self.metrics_port).get("/metrics", &[]).await.body;
        let line = text.lines().find(|line| line.starts_with(start));
        line.unwrap_or_else(|| panic!("no {start} in:\n{text}"))
            .rsplit(' ')
            .next()
            .expect("a value")
            .to_owned()
    }
}

fn path(path: PathBuf) -> String {
    path.into_os_string().into_string().expect("UTF-8")
}

/// A limit on the route, per hour.
fn config(requests_per_unit: u32) -> RateLimitConfig {
    let policy = RateLimitPolicy {
        unit: RateLimitUnit::Hour.into(),
        requests_per_unit,
        ..Default::default()
    };
    let rule = RateLimitDescriptor {
        key: "rule-0-match-0".into(),
        value: "rule-0-match-0".into(),
        rate_limit: Some(policy),
        ..Default::default()
    };
    let route = RateLimitDescriptor {
        key: ROUTE.into(),
        value: ROUTE.into(),
        descriptors: vec![rule],
        ..Default::default()
    };
    let name = "default/eg/http".to_owned();
    RateLimitConfig {
        domain: name.clone(),
        name,
        descriptors: vec![route],
    }
}

/// As Envoy asks for the route: with hits of the descriptor's own, and a limit from metadata, if its policy says so.
async fn ask_for(
    client: &mut RateLimitServiceClient<Channel>,
    hits_addend: Option<u64>,
    limit: Option<RateLimitOverride>,
) -> Result<RateLimitResponse, tonic::Status> {
    let entry = |key: &str| Entry {
        key: key.into(),
        value: key.into(),
    };
    let request = RateLimitRequest {
        domain: "default/eg/http".into(),
        descriptors: vec![Asked {
            entries: vec![entry(ROUTE), entry("rule-0-match-0")],
            limit,
            hits_addend,
            ..Default::default()
        }],
        hits_addend: 0,
    };
    client.should_rate_limit(request).await.map(tonic::Response::into_inner)
}

async fn ask(client: &mut RateLimitServiceClient<Channel>) -> Result<RateLimitResponse, tonic::Status> {
    ask_for(client, None, None).await
}

/// The limit that the answer names, and whether it was passed.
async fn answer(client: &mut RateLimitServiceClient<Channel>) -> (u32, Code) {
    let response = ask(client).await.expect("an answer");
    let limit = response.statuses[0].current_limit.as_ref().expect("a limit");
    (limit.requests_per_unit, response.overall_code())
}

// Of several threads, so that the client hears the end of the connection while the test waits for the process.
#[tokio::test(flavor = "multi_thread")]
async fn through_good_and_bad_versions_and_an_outage() {
    let mut namespace = Namespace::new();
    let mut process = namespace.deploy();
    process.wait_for_redis(1);
    let http = process.http();

    // The control plane is not there yet: it serves, and says so.
    let probe = http.get("/healthcheck", &[]).await;
    assert_eq!((probe.status.as_u16(), probe.body.as_str()), (200, "OK"));
    let envoy = namespace.ca.issue(&["envoy"]);
    let mut client = RateLimitServiceClient::new(
        namespace
            .endpoint(process.grpc_port, Some(&envoy))
            .connect()
            .await
            .expect("a connection"),
    );
    let status = ask(&mut client).await.expect_err("no rules");
    assert_eq!(status.code(), tonic::Code::Unavailable, "{status}");
    assert!(status.message().contains("configuration"), "{status}");
    let stranger = namespace.endpoint(process.grpc_port, None);
    let stranger = async {
        ask(&mut RateLimitServiceClient::new(stranger.connect().await.ok()?))
            .await
            .ok()
    };
    assert!(stranger.await.is_none(), "a client without a certificate");

    // v1. What is acknowledged is in force.
    namespace.plane.publish("1", &[config(2)]);
    namespace.plane.start();
    assert_eq!(namespace.plane.next_answer().await, Ok("1".into()));
    assert_eq!(answer(&mut client).await, (2, Code::Ok));
    assert_eq!(answer(&mut client).await, (2, Code::Ok));
    assert_eq!(answer(&mut client).await, (2, Code::OverLimit));

    // v2: one more; the counters live on.
    namespace.plane.publish("2", &[config(3)]);
    assert_eq!(namespace.plane.next_answer().await, Ok("2".into()));
    assert_eq!(answer(&mut client).await, (3, Code::Ok));
    assert_eq!(answer(&mut client).await, (3, Code::OverLimit));

    // v3 is bad: v2 stays.
    let mut bad = config(1000);
    bad.descriptors[0].descriptors[0].rate_limit = Some(RateLimitPolicy::default());
    namespace.plane.publish("3", &[bad]);
    let refused = namespace.plane.next_answer().await.expect_err("a NACK");
    assert!(
        refused.contains("rule-0-match-0") && refused.contains("unit"),
        "{refused}"
    );
    assert_eq!(answer(&mut client).await, (3, Code::OverLimit));
    assert_eq!(namespace.metric("ratelimit_service_config_load_error").await, "1");
    assert_eq!(namespace.metric("ratelimit_service_config_load_success").await, "2");
    assert!(
        process.process.log().contains("rule-0-match-0"),
        "the error is in the log"
    );

    // The control plane goes: v2 stays.
    namespace.plane.stop();
    process.process.wait_until("noticing the outage", |process| {
        process.log().contains("no control plane")
    });
    assert_eq!(answer(&mut client).await, (3, Code::OverLimit));
    assert_eq!(http.get("/healthcheck", &[]).await.status, 200);

    // It comes back with v4, while our certificates were renewed.
    let ca_pem = namespace.ca.pem();
    namespace
        .certs
        .replace(&namespace.ca.issue(&["envoy-ratelimit"]).files(&ca_pem));
    namespace.plane.publish("4", &[config(4)]);
    namespace.plane.start();
    assert_eq!(namespace.plane.next_answer().await, Ok("4".into()));
    assert_eq!(answer(&mut client).await, (4, Code::Ok));
    assert_eq!(answer(&mut client).await, (4, Code::OverLimit));

    let hits = format!("ratelimit_service_rate_limit_total_hits{{domain=\"default/eg/http\",key1=\"{ROUTE}_{ROUTE}\"");
    assert_eq!(namespace.metric(&hits).await, "9");
    process.process.signal("TERM");
    assert!(process.process.wait_for_exit().success());
}

/// A policy with `cost.request: 0` and `cost.response` from metadata (tokens), with a limit of its own or one from
/// metadata: what a response has cost counts, also where it is more than what is left, and nobody has set anything.
#[tokio::test]
async fn costs_of_responses_use_a_limit_up() {
    let mut namespace = Namespace::new();
    let mut process = namespace.deploy();
    process.wait_for_redis(1);
    namespace.plane.publish("1", &[config(21)]);
    namespace.plane.start();
    assert_eq!(namespace.plane.next_answer().await, Ok("1".into()));
    let envoy = namespace.ca.issue(&["envoy"]);
    let endpoint = namespace.endpoint(process.grpc_port, Some(&envoy));
    let mut client = RateLimitServiceClient::new(endpoint.connect().await.expect("a connection"));
    let from_metadata = RateLimitOverride {
        requests_per_unit: 21,
        unit: Unit::Hour.into(),
        ..Default::default()
    };
    for limit in [None, Some(from_metadata)] {
        let passed = responses_of_ten(&mut client, Some(0), limit).await;
        assert_eq!(passed, [true, true, true, false], "{limit:?}");
    }

    // Without `cost.request`, and in Envoy AI Gateway's QuotaPolicy, a request takes one hit itself.
    let per = |unit: RateLimitUnit, requests_per_unit: u32| {
        let mut config = config(10);
        config.descriptors[0].descriptors[0].rate_limit = Some(RateLimitPolicy {
            unit: unit.into(),
            requests_per_unit,
            ..Default::default()
        });
        config
    };
    // What was used stays used: thirty of these forty.
    namespace.plane.publish("2", &[per(RateLimitUnit::Day, 40)]);
    assert_eq!(namespace.plane.next_answer().await, Ok("2".into()));
    let passed = responses_of_ten(&mut client, None, None).await;
    assert_eq!(passed, [true, false, false, false]);

    // A response that ends after a new configuration has come: nobody has asked by that yet.
    namespace.plane.publish("3", &[per(RateLimitUnit::Week, 80)]);
    assert_eq!(namespace.plane.next_answer().await, Ok("3".into()));
    ask_for(&mut client, Some(50), None).await.expect("an answer");
    assert_eq!(answer(&mut client).await, (80, Code::OverLimit));
}

/// Which of four requests pass, each of which costs ten when it is done.
async fn responses_of_ten(
    client: &mut RateLimitServiceClient<Channel>,
    before: Option<u64>,
    limit: Option<RateLimitOverride>,
) -> Vec<bool> {
    let mut passed = Vec::new();
    for _ in 0..4 {
        let asked = ask_for(client, before, limit).await.expect("an answer");
        passed.push(asked.overall_code() == Code::Ok);
        if asked.overall_code() == Code::Ok {
            ask_for(client, Some(10), limit).await.expect("an answer");
        }
    }
    passed
}
