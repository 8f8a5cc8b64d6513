//! Numbers of a rule change while its counters hold hits, by file, by the control plane and by the request itself: what
//! was used stays used, and where that cannot be, the log says so.

use std::fs;

use serde_json::{Value, json};
use sluicegate::proto::ratelimit::config::ratelimit::v3::{
    RateLimitConfig, RateLimitDescriptor, RateLimitPolicy, RateLimitUnit,
};

use crate::support::{ads::ControlPlane, http::Client, ratelimit::Ratelimit, redis::Redis};

const LINE: &str = "counters start anew";

/// Takes hits; what is left then, of how many.
async fn take(http: &Client, hits: u64, limit: Option<(u64, &str)>) -> (u64, u64) {
    let mut descriptor = json!({ "entries": [{ "key": "k", "value": "v" }], "hitsAddend": hits.to_string() });
    if let Some((requests, unit)) = limit {
        descriptor["limit"] = json!({ "requestsPerUnit": requests, "unit": unit });
    }
    let body = json!({ "domain": "d", "descriptors": [descriptor] }).to_string();
    let answer = http.post("/json", &[], &body).await;
    let status = &serde_json::from_str::<Value>(&answer.body).expect("JSON")["statuses"][0];
    let number = |value: &Value| value.as_u64().unwrap_or_default();
    (
        number(&status["limitRemaining"]),
        number(&status["currentLimit"]["requestsPerUnit"]),
    )
}

fn variables(redis: &str) -> Vec<(&str, &str)> {
    vec![
        ("REDIS_URL", redis),
        ("REDIS_SOCKET_TYPE", "tcp"),
        ("LOG_LEVEL", "info"),
        // A busy machine changes nothing; each answer is the server's own.
        ("STORE_TIMEOUT", "5s"),
        ("LEASE", "off"),
    ]
}

async fn by_file(store: Option<&str>) {
    let root = tempfile::tempdir().expect("a directory");
    let file = root.path().join("config/rules.yaml");
    fs::create_dir(root.path().join("config")).expect("a directory");
    let write = |limit: &str| {
        let rules = format!("domain: d\ndescriptors: [{{ key: k, rate_limit: {{ {limit} }} }}]\n");
        fs::write(&file, rules).expect("a file");
    };
    write("requests_per_unit: 10, unit: hour");
    let path = root.path().display().to_string();
    let mut all = store
        .map(variables)
        .unwrap_or_else(|| vec![("LOG_LEVEL", "info"), ("BACKEND_TYPE", "memory")]);
    all.push(("RUNTIME_ROOT", &path));
    let mut server = Ratelimit::start(&all);
    if store.is_some() {
        server.wait_for_redis(1);
    }
    let http = server.http();
    assert_eq!(take(&http, 6, None).await, (4, 10));
    for (generation, limit, left) in [
        (2, "requests_per_unit: 11, unit: hour, precision: 1000", (4, 11)),
        (3, "requests_per_unit: 12, unit: day, precision: 7", (4, 12)),
        (4, "requests_per_unit: 13, unit: minute, unit_multiplier: 90", (4, 13)),
        (
            5,
            "requests_per_unit: 14, unit: hour, algorithm: fixed_window",
            (13, 14),
        ),
        (6, "requests_per_unit: 15, unit: day, algorithm: fixed_window", (13, 15)),
    ] {
        write(limit);
        let generation_is = format!("generation={generation}");
        server.process.wait_until("the new rules", |process| {
            process
                .log()
                .lines()
                .any(|line| line.contains("rules in force") && line.contains(&generation_is))
        });
        assert_eq!(take(&http, 1, None).await, left, "{limit}");
    }
    let log = server.process.log();
    let lines: Vec<_> = log.lines().filter(|line| line.contains(LINE)).collect();
    assert_eq!(lines.len(), 1, "{log}");
    assert!(lines[0].contains("d / k") && lines[0].contains("generation=5"), "{log}");
}

#[tokio::test]
async fn by_file_in_redis() {
    let redis = Redis::start();
    by_file(Some(&format!("127.0.0.1:{}", redis.port))).await;
}

#[tokio::test]
async fn by_file_in_memory() {
    by_file(None).await;
}

#[tokio::test]
async fn by_the_control_plane() {
    let config = |requests_per_unit, unit: RateLimitUnit| RateLimitConfig {
        name: "d".into(),
        domain: "d".into(),
        descriptors: vec![RateLimitDescriptor {
            key: "k".into(),
            rate_limit: Some(RateLimitPolicy {
                unit: unit.into(),
                requests_per_unit,
                ..Default::default()
            }),
            ..Default::default()
        }],
    };
    let redis = Redis::start();
    let mut plane = ControlPlane::new(None);
    plane.publish("1", &[config(10, RateLimitUnit::Hour)]);
    plane.start();
    let (address, url) = (plane.address(), format!("127.0.0.1:{}", redis.port));
    let mut all = variables(&url);
    all.extend([
        ("CONFIG_TYPE", "GRPC_XDS_SOTW"),
        ("CONFIG_GRPC_XDS_SERVER_URL", address.as_str()),
    ]);
    let mut server = Ratelimit::start(&all);
    server.wait_for_redis(1);
    assert_eq!(plane.next_answer().await, Ok("1".into()));
    let http = server.http();
    assert_eq!(take(&http, 6, None).await, (4, 10));
    plane.publish("2", &[config(20, RateLimitUnit::Day)]);
    assert_eq!(plane.next_answer().await, Ok("2".into()));
    assert_eq!(take(&http, 1, None).await, (13, 20));
    plane.publish("3", &[config(5, RateLimitUnit::Week)]);
    assert_eq!(plane.next_answer().await, Ok("3".into()));
    assert_eq!(take(&http, 1, None).await, (0, 5));
    assert!(!server.process.log().contains(LINE));
}

/// Another unit is another limit: a request can bring both for the same entries.
#[tokio::test]
async fn by_the_request() {
    let redis = Redis::start();
    let root = tempfile::tempdir().expect("a directory");
    fs::create_dir(root.path().join("config")).expect("a directory");
    fs::write(root.path().join("config/rules.yaml"), "domain: d\n").expect("a file");
    let (path, url) = (root.path().display().to_string(), format!("127.0.0.1:{}", redis.port));
    let mut all = variables(&url);
    all.push(("RUNTIME_ROOT", &path));
    let mut server = Ratelimit::start(&all);
    server.wait_for_redis(1);
    let http = server.http();
    for (hits, limit, left) in [
        (6, (10, "HOUR"), 4),
        (1, (20, "HOUR"), 13),
        (1, (20, "DAY"), 19),
        (1, (5, "HOUR"), 0),
        (1, (20, "HOUR"), 12),
    ] {
        assert_eq!(take(&http, hits, Some(limit)).await, (left, limit.0), "{limit:?}");
    }
}
