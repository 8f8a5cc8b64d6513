//! What decides otherwise than configured says so: in a metric, and once in the log with the cure.

use std::fs;

use sluicegate::proto::envoy::{
    config::core::v3::{Address, SocketAddress, address},
    extensions::common::ratelimit::v3::{RateLimitDescriptor, rate_limit_descriptor::Entry},
    service::auth::v3::{
        AttributeContext, CheckRequest,
        attribute_context::{HttpRequest, Peer, Request},
        authorization_client::AuthorizationClient,
    },
    service::ratelimit::v3::{RateLimitRequest, rate_limit_service_client::RateLimitServiceClient},
};
use tempfile::TempDir;

use crate::support::{http::Client, ratelimit::Ratelimit};

pub(crate) struct Server {
    pub process: Ratelimit,
    _dir: TempDir,
}

impl Server {
    pub fn start(rules: &str, variables: &[(&str, &str)]) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        fs::create_dir(dir.path().join("config")).expect("a directory");
        fs::write(dir.path().join("config/rules.yaml"), rules).expect("a file");
        let root = dir.path().display().to_string();
        Self {
            process: Ratelimit::start(&[&[("RUNTIME_ROOT", root.as_str())], variables].concat()),
            _dir: dir,
        }
    }

    /// A sample of `/metrics`, by its whole name.
    pub async fn metric(&self, series: &str) -> Option<f64> {
        let page = self.process.debug().get("/metrics", &[]).await.body;
        let line = page.lines().find(|line| line.starts_with(&format!("{series} ")))?;
        line.rsplit(' ').next()?.parse().ok()
    }
}

async fn ask(http: &Client, entries: &[(&str, &str)], hits: u64) -> u16 {
    let entries: Vec<_> = entries
        .iter()
        .map(|(key, value)| serde_json::json!({ "key": key, "value": value }))
        .collect();
    let body = serde_json::json!({
        "domain": "d", "descriptors": [{ "entries": entries, "hitsAddend": hits.to_string() }]
    });
    http.post("/json", &[], &body.to_string()).await.status.as_u16()
}

/// Without a store nothing is decided under `allow` and `deny`; `local` decides by counters of its own.
#[tokio::test]
async fn decisions_that_no_counter_made_are_told_apart() {
    const RULES: &str = "
domain: d
descriptors:
  - { key: passes, on_store_error: allow, rate_limit: { unit: hour, requests_per_unit: 1 } }
  - { key: fails, on_store_error: deny, rate_limit: { unit: hour, requests_per_unit: 1 } }
  - { key: counts, on_store_error: local, rate_limit: { unit: hour, requests_per_unit: 1 } }
";
    let server = Server::start(RULES, &[("REDIS_URL", "127.0.0.1:1"), ("REDIS_SOCKET_TYPE", "tcp")]);
    let http = server.process.http();
    for (key, statuses) in [("passes", [200, 200]), ("fails", [429, 429]), ("counts", [200, 429])] {
        for status in statuses {
            assert_eq!(ask(&http, &[(key, "x")], 1).await, status, "{key}");
        }
    }
    for (rule, outcomes) in [
        ("passes", [0.0, 0.0, 2.0]),
        ("fails", [0.0, 0.0, 2.0]),
        ("counts", [1.0, 1.0, 0.0]),
    ] {
        for (outcome, count) in ["allowed", "denied", "error"].into_iter().zip(outcomes) {
            let series = format!(r#"sluicegate_decisions_total{{domain="d",rule="{rule}",outcome="{outcome}"}}"#);
            assert_eq!(server.metric(&series).await, Some(count), "{series}");
        }
    }
}

/// What Envoy sends for a GET with this header.
fn check(forwarded_for: &str) -> CheckRequest {
    let socket = SocketAddress {
        address: "10.0.0.7".into(),
        ..Default::default()
    };
    let http = HttpRequest {
        method: "GET".into(),
        path: "/".into(),
        host: "shop.example".into(),
        headers: [("x-forwarded-for".to_owned(), forwarded_for.to_owned())].into(),
        ..Default::default()
    };
    CheckRequest {
        attributes: Some(AttributeContext {
            source: Some(Peer {
                address: Some(Address {
                    address: Some(address::Address::SocketAddress(socket)),
                }),
                ..Default::default()
            }),
            request: Some(Request {
                time: None,
                http: Some(http),
            }),
            ..Default::default()
        }),
    }
}

#[tokio::test]
async fn a_client_that_no_header_names_is_said_once_and_counted() {
    const RULES: &str = "
domain: d
ext_authz:
  client_address: { xff_num_trusted_hops: 1 }
  rate_limits: [{ actions: [{ remote_address: {} }] }]
descriptors:
  - { key: remote_address, rate_limit: { unit: hour, requests_per_unit: 100, name: per-client } }
";
    let mut server = Server::start(RULES, &[("LOG_LEVEL", "debug")]);
    let address = format!("http://127.0.0.1:{}", server.process.grpc_port);
    let mut client = AuthorizationClient::connect(address).await.expect("a connection");
    for header in ["203.0.113.7:51234, 10.0.0.7", "a\u{1b}[31m, 10.0.0.7", "b, 10.0.0.7"] {
        client.check(check(header)).await.expect("an answer");
    }
    let series = r#"sluicegate_client_address_fallbacks_total{reason="no_address"}"#;
    assert_eq!(server.metric(series).await, Some(2.0));
    server.process.process.wait_until("the last explanation", |process| {
        process.log().matches("a limit applies to a descriptor").count() == 3
    });
    let log = server.process.process.log();
    // What was asked and which rule applied is explained for ext_authz as for the other service.
    assert!(log.contains("(remote_address=203.0.113.7)"), "{log}");
    assert!(log.contains("remaining=98"), "{log}");
    let said: Vec<_> = log.lines().filter(|line| line.contains("is no address")).collect();
    assert_eq!(said.len(), 1, "{log}");
    assert!(said[0].contains("WARN") && said[0].contains("client_address"), "{log}");
    assert!(!log.contains('\u{1b}'), "{log}");
}

/// Rules of Envoy Gateway have no names; their paths name routes, namespaces and backends.
#[tokio::test]
async fn clients_hear_no_paths_of_rules_without_a_name() {
    const RULES: &str = "
domain: d
descriptors:
  - key: httproute/default/backend/rule/0
    value: httproute/default/backend/rule/0
    descriptors:
      - { key: rule-0-match-0, value: rule-0-match-0, rate_limit: { unit: hour, requests_per_unit: 1 } }
";
    let server = Server::start(RULES, &[("IETF_HEADERS", "true")]);
    let http = server.process.http();
    let rule = "httproute/default/backend/rule/0";
    let entries = [(rule, rule), ("rule-0-match-0", "rule-0-match-0")];
    assert_eq!(ask(&http, &entries, 1).await, 200);
    let address = format!("http://127.0.0.1:{}", server.process.grpc_port);
    let mut client = RateLimitServiceClient::connect(address).await.expect("a connection");
    let entry = |(key, value): (&str, &str)| Entry {
        key: key.into(),
        value: value.into(),
    };
    let request = RateLimitRequest {
        domain: "d".into(),
        descriptors: vec![RateLimitDescriptor {
            entries: entries.map(entry).into(),
            ..Default::default()
        }],
        hits_addend: 0,
    };
    let denied = client.should_rate_limit(request).await.expect("an answer").into_inner();
    let body = String::from_utf8_lossy(&denied.raw_body);
    let told = format!("{:?} {body}", denied.response_headers_to_add);
    assert!(!told.contains("httproute") && !told.contains("rule-0"), "{told}");
    assert!(
        told.contains("limit-1") && told.contains("Over a rate limit."),
        "{told}"
    );
    assert!(
        denied
            .response_headers_to_add
            .iter()
            .any(|header| header.key == "ratelimit")
    );
    // Operators do.
    let metadata = String::from_utf8_lossy(&denied.dynamic_metadata);
    assert!(metadata.contains("rule-0-match-0"), "{metadata}");
}

/// The example of the README, against somebody who varies what stands behind the path.
#[tokio::test]
async fn the_login_example_holds_against_its_attacker() {
    let readme = crate::support::envoy::project_file("README.md");
    let rules = readme.split("```yaml").nth(1).and_then(|rest| rest.split("```").next());
    let rules = rules.expect("the first example").replace("domain: shop", "domain: d");
    let server = Server::start(&rules, &[]);
    let http = server.process.http();
    let mut passed = 0;
    for attempt in 0..20 {
        let path = format!("/login?u={attempt}");
        passed += u32::from(ask(&http, &[("path", &path), ("remote_address", "192.0.2.1")], 1).await == 200);
    }
    assert_eq!(passed, 5);
    let other = [("path", "/login?u=1"), ("remote_address", "192.0.2.2")];
    assert_eq!(ask(&http, &other, 1).await, 200, "another client has its own");
}

/// Peek, then charge more than is left: by default it counts as started here; where that is off, it is said once a rule.
#[tokio::test]
async fn a_charge_that_is_forgotten_is_said_once_for_a_rule() {
    const RULES: &str = "
domain: d
descriptors:
  - { key: tokens, rate_limit: { unit: hour, requests_per_unit: 100 } }
  - { key: bytes, rate_limit: { unit: hour, requests_per_unit: 100 } }
";
    for (variables, passed, forgotten) in [(&[][..], 2, 0.0), (&[("CHARGE_AFTER_PEEK", "false")], 20, 38.0)] {
        let mut server = Server::start(RULES, variables);
        let http = server.process.http();
        for key in ["tokens", "bytes"] {
            let mut passes = 0;
            for _ in 0..20 {
                if ask(&http, &[(key, "x")], 0).await == 200 {
                    passes += 1;
                    ask(&http, &[(key, "x")], 60).await;
                }
            }
            assert_eq!(passes, passed, "{key} {variables:?}");
        }
        let found = server.metric("sluicegate_forgotten_charges_total").await;
        assert_eq!(found, Some(forgotten), "{variables:?}");
        let lines = |log: &str| {
            log.lines()
                .filter(|line| line.contains("are not counted, so that their quota"))
                .count()
        };
        let said = if forgotten > 0.0 { 2 } else { 0 };
        server
            .process
            .process
            .wait_until("its warnings", |process| lines(&process.log()) >= said);
        let log = server.process.process.log();
        assert_eq!(lines(&log), said, "{log}");
    }
}
