//! What health depends on, and a rules directory that has nothing in it (yet): a configuration without rules, as in
//! envoyproxy/ratelimit.

use std::{fs, path::Path, time::Duration};

use serde_json::json;

use crate::support::{process::free_port, ratelimit::Ratelimit, redis::Redis};

const RULES: &str = "domain: d\ndescriptors: [{key: k, rate_limit: {unit: day, requests_per_unit: 0}}]";

/// Starts on `root`, whose rules directory exists.
fn start(root: &Path, variables: &[(&str, &str)]) -> Ratelimit {
    let root = root.display().to_string();
    Ratelimit::start(&[&[("RUNTIME_ROOT", root.as_str())], variables].concat())
}

async fn becomes(server: &Ratelimit, status: u16) {
    for _ in 0..100 {
        if server.http().get("/healthcheck", &[]).await.status == status {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("/healthcheck does not become {status}: {}", server.process.log());
}

#[tokio::test]
async fn health_follows_whether_there_is_a_domain() {
    let root = tempfile::tempdir().expect("a directory");
    let rules = root.path().join("config");
    fs::create_dir(&rules).expect("a directory");
    let server = start(root.path(), &[("HEALTHY_WITH_AT_LEAST_ONE_CONFIG_LOADED", "true")]);
    becomes(&server, 500).await;
    fs::write(rules.join("rules.yaml"), RULES).expect("a file");
    becomes(&server, 200).await;
    fs::remove_file(rules.join("rules.yaml")).expect("the file");
    becomes(&server, 500).await;
}

#[tokio::test]
async fn nothing_is_limited_until_there_are_rules() {
    let root = tempfile::tempdir().expect("a directory");
    let rules = root.path().join("config");
    fs::create_dir(&rules).expect("a directory");
    let server = start(root.path(), &[]);
    becomes(&server, 200).await;
    let body = json!({"domain": "d", "descriptors": [{"entries": [{"key": "k", "value": "v"}]}]}).to_string();
    let ask = async || server.http().post("/json", &[], &body).await.status;
    assert_eq!(ask().await, 200);
    assert!(server.process.log().contains("nothing is limited"));
    fs::write(rules.join("rules.yaml"), RULES).expect("a file");
    for _ in 0..100 {
        if ask().await == 429 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("the rules never came into force: {}", server.process.log());
}

/// A readiness probe must not find it ready before it has reached Redis once.
#[tokio::test]
async fn with_an_active_connection_asked_for_it_is_healthy_only_while_redis_answers() {
    let root = tempfile::tempdir().expect("a directory");
    fs::create_dir(root.path().join("config")).expect("a directory");
    fs::write(root.path().join("config/rules.yaml"), RULES).expect("a file");
    let asked = ("REDIS_HEALTH_CHECK_ACTIVE_CONNECTION", "true");

    let nobody = format!("127.0.0.1:{}", free_port());
    let alone = start(root.path(), &[("REDIS_URL", &nobody), asked]);
    for _ in 0..20 {
        assert_eq!(alone.http().get("/healthcheck", &[]).await.status, 500);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    // Not asked for, it serves without.
    becomes(&start(root.path(), &[("REDIS_URL", &nobody)]), 200).await;

    let redis = Redis::start();
    let url = format!("127.0.0.1:{}", redis.port);
    let server = start(root.path(), &[("REDIS_URL", &url), asked]);
    becomes(&server, 200).await;
    drop(redis);
    becomes(&server, 500).await;
}
