//! Several rate limit filters on one listener, as Envoy Gateway makes them for policies that are shared: each with a domain
//! or a stage of its own, and some that only routes enable.

use serde_json::{Value, json};
use sluicegate::prove::envoy::Routes;
use sluicegate::prove::http::HttpRequest;

use crate::envoy::{cluster, evaluated, recorded};
use crate::support::http::Client;
use crate::support::process::{Process, free_port};
use crate::support::recorder::Recorder;
use crate::{directory, sluicegate, support, text};

const PER_ROUTE: &str = "type.googleapis.com/envoy.extensions.filters.http.ratelimit.v3.RateLimitPerRoute";
const FILTER_CONFIG: &str = "type.googleapis.com/envoy.config.route.v3.FilterConfig";

fn filter(name: &str, domain: &str, stage: u32, disabled: bool) -> Value {
    json!({ "name": name, "disabled": disabled, "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.filters.http.ratelimit.v3.RateLimit",
        "domain": domain, "stage": stage, "timeout": "20s",
        "rate_limit_service": { "transport_api_version": "V3", "grpc_service": { "envoy_grpc": { "cluster_name": "limiter" } } },
    } })
}

fn key(name: &str) -> Value {
    json!([{ "generic_key": { "descriptor_key": name, "descriptor_value": "v" } }])
}

/// Both stages have limits; the third filter is off unless a route says otherwise.
fn routes() -> Value {
    let limits = json!([
        { "actions": key("first") },
        { "stage": 1, "actions": key("second") },
        { "stage": 1, "actions": [{ "request_headers": { "header_name": "x-user", "descriptor_key": "user" } }] },
    ]);
    let route = |path: &str, per_filter: Value| {
        json!({ "match": { "path": path }, "typed_per_filter_config": per_filter,
            "route": { "cluster": "upstream", "rate_limits": limits } })
    };
    let own = json!({ "@type": PER_ROUTE, "rate_limits": [{ "actions": key("own") }] });
    json!([
        route("/both", json!({})),
        route("/enabled", json!({ "shared/c": own })),
        route("/enabled-as-it-is", json!({ "shared/c": { "@type": FILTER_CONFIG, "config": { "@type": PER_ROUTE } } })),
        route("/first-off", json!({ "limiter": { "@type": FILTER_CONFIG, "disabled": true } })),
        route("/another-domain", json!({ "shared/b": { "@type": PER_ROUTE, "domain": "elsewhere" } })),
        route("/own-in-the-second", json!({ "shared/b": own })),
        { "match": { "path": "/nothing" }, "route": { "cluster": "upstream" } },
    ])
}

fn config(port: u16, limiter: u16) -> Value {
    json!({ "static_resources": {
        "listeners": [{
            "name": "front",
            "address": { "socket_address": { "address": "127.0.0.1", "port_value": port } },
            "filter_chains": [{ "filters": [{ "name": "hcm", "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
                "stat_prefix": "hcm",
                "http_filters": [
                    filter("limiter", "a", 0, false), filter("shared/b", "b", 1, false), filter("shared/c", "c", 0, true),
                    { "name": "router", "typed_config": { "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router" } },
                ],
                "route_config": { "name": "routes", "virtual_hosts": [{ "name": "shop", "domains": ["*"], "routes": routes() }] },
            } }] }],
        }],
        "clusters": [cluster("limiter", limiter, true), cluster("upstream", free_port(), false)],
    } })
}

#[tokio::test(flavor = "multi_thread")]
async fn each_filter_asks_as_in_a_real_envoy() {
    let recorder = Recorder::start().await;
    let port = free_port();
    let directory = directory(&[("envoy.json", &config(port, recorder.port).to_string())]);
    let file = directory.path().join("envoy.json");
    let mut command = support::envoy::command(&file, 1);
    let mut envoy = Process::spawn("envoy", command.args(["--log-level", "error"]));
    envoy.wait_for_port(port);
    let client = Client::new(port);
    let ours = Routes::read(&file, None).expect("routes");
    let mut calls = 0;
    for (path, expected) in [
        ("/both", 2),
        ("/enabled", 3),
        ("/enabled-as-it-is", 3),
        ("/first-off", 1),
        ("/another-domain", 2),
        ("/own-in-the-second", 2),
        ("/nothing", 0),
    ] {
        for headers in [vec![], vec![("x-user".to_owned(), "jane".to_owned())]] {
            let request = HttpRequest {
                method: "GET".to_owned(),
                host: "shop".to_owned(),
                path: path.to_owned(),
                headers,
                client: Some([127, 0, 0, 1].into()),
                ..HttpRequest::default()
            };
            let headers = request
                .headers
                .iter()
                .map(|(name, value)| (name.as_str(), value.as_str()));
            client.get(path, &headers.collect::<Vec<_>>()).await;
            let came = recorded(&recorder);
            assert_eq!(came, evaluated(&ours, &request), "{request:?}");
            assert_eq!(came.len(), expected, "{path}: {came:?}");
            calls += came.len();
        }
    }
    assert_eq!(calls, 26);
}

const RULES: [(&str, &str); 2] = [
    (
        "a.yaml",
        "domain: a\ndescriptors:\n  - { key: first, rate_limit: { unit: hour, requests_per_unit: 2 } }\n",
    ),
    (
        "b.yaml",
        "domain: b\ndescriptors:\n  - { key: second, rate_limit: { unit: hour, requests_per_unit: 3 } }\n  \
         - { key: user, rate_limit: { name: user, unit: hour, requests_per_unit: 1 } }\n",
    ),
];

/// What the first filter denies never reaches the second; what the second denies is counted by the first.
#[test]
fn a_request_passes_filter_by_filter_in_rule_tests_and_in_a_replay() {
    let tests = "rules: [a.yaml, b.yaml]\nenvoy: envoy.json\ntests:
  - name: filter by filter
    steps:
      - { request: { http: GET /both, host: x }, expect: { allowed: true, remaining: 1, descriptors: [[first: v], [second: v]] } }
      - { request: { http: GET /both, host: x, headers: { x-user: a } }, expect: { allowed: true, remaining: 0 } }
      - { request: { http: GET /both, host: x }, times: 3, expect: { denied_by: a/first, remaining: 0 } }
      - { request: { http: GET /first-off, host: x }, expect: { allowed: true, remaining: 0, descriptors: [[second: v]] } }
      - { request: { http: GET /first-off, host: x }, expect: { denied_by: second } }
  - name: the second counts what the first let through
    steps:
      - { request: { http: GET /both, host: x, headers: { x-user: a } }, expect: allowed }
      - { request: { http: GET /both, host: x, headers: { x-user: a } }, expect: { denied_by: user } }
      - { request: { http: GET /both, host: x }, expect: { denied_by: a/first } }
      - { request: { http: GET /nothing, host: x }, expect: { allowed: true, descriptors: [] } }
";
    let envoy = config(1, 2).to_string();
    let log = "192.0.2.1 - - [28/Nov/2026:06:00:00 +0000] \"GET /both HTTP/1.1\" 200 1\n".repeat(5);
    let files = [("t.yaml", tests), ("envoy.json", &envoy), ("access.log", &log)];
    let directory = directory(&[&files[..], &RULES[..]].concat());
    let output = sluicegate(directory.path(), &["test", "t.yaml"]);
    assert!(
        output.status.success(),
        "{}{}",
        text(&output.stdout),
        text(&output.stderr)
    );
    let replay = [
        "replay",
        "--json",
        "--rules",
        "a.yaml",
        "--rules",
        "b.yaml",
        "--envoy",
        "envoy.json",
        "access.log",
    ];
    let output = sluicegate(directory.path(), &[&replay[..], &["--host", "x"]].concat());
    assert!(output.status.success(), "{}", text(&output.stderr));
    let report: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!((&report["requests"], &report["denied"]), (&5.into(), &3.into()));
    let asked: Vec<(&Value, &Value)> = report["rules"]
        .as_array()
        .expect("rules")
        .iter()
        .map(|rule| (&rule["requests"], &rule["denied"]))
        .collect();
    assert_eq!(
        asked,
        [(&5.into(), &3.into()), (&2.into(), &0.into()), (&0.into(), &0.into())] as [(&Value, &Value); 3]
    );
}
