//! Replay agrees with the live server: what a real Envoy logged of requests that it had decided is decided the same again.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::support::envoy::{Envoy, FAILURE_DENIES, PATIENT, project_file, project_path};
use crate::support::sluicegate::Sluicegate;
use crate::{directory, sluicegate, text};

/// Requests for each key.
const REQUESTS: usize = 12;
/// Not `concurrency`: whether and when its slots come back is for the live Envoy's configuration, while replay frees them
/// when the logged request ended.
const ALGORITHMS: [&str; 5] = [
    "sliding_window",
    "sliding_log",
    "token_bucket",
    "leaky_bucket",
    "fixed_window",
];

/// A key for each algorithm, five requests in a day.
fn rules() -> String {
    let rule = |algorithm: &str| {
        format!(
            "  - {{ key: api_key, value: {algorithm}, rate_limit: {{ algorithm: {algorithm}, window: 1d, requests_per_unit: 5 }} }}\n"
        )
    };
    format!("domain: demo\ndescriptors:\n{}", ALGORITHMS.map(rule).concat())
}

/// The format string of the first listener's access log.
fn format() -> String {
    let config: Value = serde_yaml::from_str(&project_file("envoy.yaml")).expect("YAML");
    let manager = &config["static_resources"]["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"];
    let source = &manager["access_log"][0]["typed_config"]["log_format"]["text_format_source"];
    source["inline_string"].as_str().expect("a format").to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_envoy_logged_is_decided_as_it_was_decided_live() {
    let rules = rules();
    let service = Sluicegate::start(&rules, &[]);
    let mut envoy = Envoy::start(service.grpc_port, &[PATIENT, FAILURE_DENIES]);
    let client = envoy.client();
    let mut live: BTreeMap<String, u64> = BTreeMap::new();
    for _ in 0..REQUESTS {
        for key in ALGORITHMS {
            let status = client.get("/some/path?q=1", &[("x-api-key", key)]).await.status;
            assert!(matches!(status.as_u16(), 200 | 429), "{status}");
            *live.entry(key.to_owned()).or_default() += u64::from(status == 429);
        }
    }
    assert_eq!(live["sliding_window"], 7, "{live:?}");
    let lines = |log: &str| log.lines().filter(|line| line.contains(" status=")).count();
    envoy.process.wait_until("all lines of the access log", |envoy| {
        lines(&envoy.log()) == REQUESTS * ALGORITHMS.len()
    });
    let log: String = envoy
        .process
        .log()
        .lines()
        .filter(|line| line.contains(" status="))
        .map(|line| format!("{line}\n"))
        .collect();

    let directory = directory(&[("rules.yaml", &rules), ("access.log", &log)]);
    let (config, format) = (project_path("envoy.yaml"), format());
    let args = [
        "replay",
        "--json",
        "--rules",
        "rules.yaml",
        "--envoy",
        config.to_str().expect("a path"),
        "--format",
        &format,
        "access.log",
    ];
    let output = sluicegate(directory.path(), &args);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let report: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(report["unreadable"], serde_json::json!({}), "{log}");
    let rules = report["rules"].as_array().expect("rules").iter();
    let replayed: BTreeMap<String, u64> = rules
        .map(|rule| {
            let name = rule["rule"]
                .as_str()
                .expect("a name")
                .trim_start_matches("demo / api_key_");
            assert_eq!(rule["requests"], REQUESTS, "{name}");
            (name.to_owned(), rule["denied"].as_u64().expect("a count"))
        })
        .collect();
    assert_eq!(replayed, live, "{log}");
}
