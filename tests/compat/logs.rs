//! Log lines as pipelines made for envoyproxy/ratelimit read them.

use std::fs;

use serde_json::Value;
use sluicegate::proto::envoy::{
    extensions::common::ratelimit::v3::{RateLimitDescriptor, rate_limit_descriptor::Entry},
    service::ratelimit::v3::{RateLimitRequest, rate_limit_service_client::RateLimitServiceClient},
};
use tempfile::TempDir;

use crate::support::{ratelimit::Ratelimit, redis::cluster::Cluster};

/// Starts with these rules, and the directory that holds them.
fn start(rules: &str, variables: &[(&str, &str)]) -> (Ratelimit, TempDir) {
    let dir = tempfile::tempdir().expect("a directory");
    fs::create_dir(dir.path().join("config")).expect("a directory");
    fs::write(dir.path().join("config/rules.yaml"), rules).expect("a file");
    let root = dir.path().display().to_string();
    let server = Ratelimit::start(&[&[("RUNTIME_ROOT", root.as_str())], variables].concat());
    (server, dir)
}

#[test]
fn json_lines_have_their_names() {
    let variables = [
        ("LOG_LEVEL", "info"),
        ("LOG_FORMAT", "json"),
        // Has no effect: a warning says so.
        ("REDIS_PIPELINE_WINDOW", "150us"),
    ];
    let (mut server, _dir) = start("domain: d\ndescriptors: []", &variables);
    server
        .process
        .wait_until("a line", |process| process.log().contains("rules in force"));
    let lines: Vec<Value> = server
        .process
        .log()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{line}: {error}")))
        .collect();
    for line in &lines {
        let text = |name: &str| line[name].as_str().unwrap_or_else(|| panic!("no {name} in {line}"));
        assert!(!text("@message").is_empty(), "{line}");
        assert!(
            text("@timestamp").starts_with("20") && text("@timestamp").ends_with('Z'),
            "{line}"
        );
        assert!(["warning", "info"].contains(&text("level")), "{line}");
    }
    let rules = lines.iter().find(|line| line["@message"] == "rules in force");
    assert_eq!(
        rules.map(|line| (&line["level"], &line["domains"])),
        Some((&"info".into(), &1.into()))
    );
    assert!(lines.iter().any(|line| line["level"] == "warning"), "{lines:?}");
}

/// What the manifests of Istio and others set, to see what Envoy's actions make of a request.
#[tokio::test]
async fn debug_says_what_is_asked_and_what_applies() {
    let rules = "domain: d\ndescriptors:\n  - key: a\n    descriptors: [{key: b, rate_limit: {unit: day, requests_per_unit: 7}}]\n  - {key: free, rate_limit: {unlimited: true}}";
    let (mut server, _dir) = start(rules, &[("LOG_LEVEL", "debug")]);
    let address = format!("http://127.0.0.1:{}", server.grpc_port);
    let mut client = RateLimitServiceClient::connect(address).await.expect("a connection");
    let long = "x".repeat(100_000);
    let asked: [&[(&str, &str)]; 4] = [
        &[("a", "one\n2026 ERROR forged"), ("b", "two")],
        &[("nobody", "asked")],
        &[("free", "yes")],
        &[("a", &long), ("b", &long)],
    ];
    let descriptor = |entries: &&[(&str, &str)]| {
        let entry = |(key, value): &(&str, &str)| Entry {
            key: (*key).into(),
            value: (*value).into(),
        };
        RateLimitDescriptor {
            entries: entries.iter().map(entry).collect(),
            ..Default::default()
        }
    };
    let request = RateLimitRequest {
        domain: "d".into(),
        descriptors: asked.iter().map(descriptor).collect(),
        hits_addend: 0,
    };
    client.should_rate_limit(request).await.expect("an answer");
    server
        .process
        .wait_until("the last line", |process| process.log().contains("xxx"));
    let log = server.process.log();
    let line = |text: &str| {
        log.lines()
            .find(|line| line.contains(text))
            .unwrap_or_else(|| panic!("no {text}: {log}"))
    };
    let applies = line("forged");
    for part in [
        "DEBUG",
        "(a=one",
        "(b=two)",
        "a.b",
        "requests_per_unit=7",
        "remaining=6",
        "\"OK\"",
    ] {
        assert!(applies.contains(part), "{part} in {applies}");
    }
    assert!(line("(nobody=asked)").contains("no limit"));
    assert!(line("(free=yes)").contains("unlimited"));
    assert!(line("xxx").len() < 2000);
    let others: Vec<&str> = log.lines().filter(|line| line.contains("frame")).collect();
    assert!(others.is_empty(), "{others:?}");
}

/// It refuses the keys of other nodes, whose requests the failure mode would decide in silence.
#[tokio::test]
async fn a_node_of_a_cluster_is_told_from_a_single_redis() {
    let cluster = Cluster::start(3, false);
    let url = format!("127.0.0.1:{}", cluster.masters[0].port);
    let rules = "domain: d\ndescriptors:\n  - {key: user, rate_limit: {unit: day, requests_per_unit: 7}}";
    let variables = [("REDIS_URL", url.as_str()), ("STORE_TIMEOUT", "10s")];
    let (mut server, _dir) = start(rules, &variables);
    let address = format!("http://127.0.0.1:{}", server.grpc_port);
    let mut client = RateLimitServiceClient::connect(address).await.expect("a connection");
    for user in 0..32 {
        let entry = Entry {
            key: "user".into(),
            value: format!("u{user}").into(),
        };
        let descriptor = RateLimitDescriptor {
            entries: vec![entry],
            ..Default::default()
        };
        let request = RateLimitRequest {
            domain: "d".into(),
            descriptors: vec![descriptor],
            hits_addend: 0,
        };
        client.should_rate_limit(request).await.expect("an answer");
    }
    let cure = "set REDIS_TYPE=CLUSTER";
    server
        .process
        .wait_until("the cure", |process| process.log().contains(cure));
    assert_eq!(server.process.log().matches(cure).count(), 1);
}
