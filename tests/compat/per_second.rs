//! `REDIS_PERSECOND`: two servers, one decision.

use std::{fs, time::Duration};

use crate::support::{http::Answer, http::Client, ratelimit::Ratelimit, redis::Redis};

const RULES: &str = "
domain: d
descriptors:
  - {key: fast, rate_limit: {unit: second, requests_per_unit: 1000}}
  - {key: slow, rate_limit: {unit: hour, requests_per_unit: 2}}
";

async fn ask(http: &Client) -> Answer {
    let entry = |key: &str| format!(r#"{{"entries":[{{"key":"{key}","value":"v"}}]}}"#);
    let body = format!(
        r#"{{"domain":"d","hitsAddend":1,"descriptors":[{},{}]}}"#,
        entry("fast"),
        entry("slow")
    );
    http.post("/json", &[], &body).await
}

#[tokio::test]
async fn each_limit_on_its_server_and_all_or_nothing_over_both() {
    let [main, seconds] = [Redis::start(), Redis::start()];
    let root = tempfile::tempdir().expect("a directory");
    fs::create_dir(root.path().join("config")).expect("a directory");
    fs::write(root.path().join("config/r.yaml"), RULES).expect("a file");
    let root = root.path().display().to_string();
    let (main_url, seconds_url) = (
        format!("127.0.0.1:{}", main.port),
        format!("127.0.0.1:{}", seconds.port),
    );
    let mut process = Ratelimit::start(&[
        ("RUNTIME_ROOT", &root),
        ("LOG_LEVEL", "info"),
        ("REDIS_URL", &main_url),
        ("REDIS_PERSECOND", "true"),
        ("REDIS_PERSECOND_URL", &seconds_url),
        ("REDIS_HEALTH_CHECK_ACTIVE_CONNECTION", "true"),
        ("ON_STORE_ERROR", "allow"),
        ("STORE_TIMEOUT", "2s"),
        // Each answer from its server.
        ("LEASE", "off"),
        ("DENY_CACHE", "off"),
    ]);
    process.wait_for_redis(2);
    let http = process.http();
    // Connected is not yet asked: until a probe of each has been answered, the failure mode lets all pass.
    let start = std::time::Instant::now();
    while http.get("/healthcheck", &[]).await.status != 200 {
        assert!(start.elapsed() < Duration::from_secs(30), "both servers are there");
    }
    for _ in 0..2 {
        assert_eq!(ask(&http).await.status, 200);
    }
    for _ in 0..3 {
        let denied = ask(&http).await;
        assert_eq!(denied.status, 429, "{}", denied.body);
        let status = &denied.json()["statuses"][0];
        assert_eq!(status["code"], "OK", "only the slow limit is passed: {status}");
    }
    let keys = |redis: &Redis| {
        let keys = redis.cli(&["KEYS", "*"]);
        let rules = keys.lines().filter(|key| !key.contains("probe"));
        rules.map(str::to_owned).collect::<Vec<_>>()
    };
    let (of_main, of_seconds) = (keys(&main), keys(&seconds));
    assert!(of_main.len() == 1 && of_main[0].contains("slow"), "{of_main:?}");
    assert!(
        of_seconds.len() == 1 && of_seconds[0].contains("fast"),
        "{of_seconds:?}"
    );

    // The one for seconds dies: the failure mode answers for it, the other goes on counting.
    seconds.process.signal("KILL");
    process
        .process
        .wait_until("noticing", |process| process.log().contains("cannot connect to Redis"));
    let without = ask(&http).await;
    assert!([200, 429].contains(&without.status.as_u16()), "{}", without.body);
    let start = std::time::Instant::now();
    while http.get("/healthcheck", &[]).await.status != 500 {
        assert!(
            start.elapsed() < Duration::from_secs(30),
            "it must not be healthy without one of its servers"
        );
        let _ = ask(&http).await;
    }
    assert!(
        process
            .debug()
            .get("/metrics", &[])
            .await
            .body
            .contains("sluicegate_failure_mode{store=\"redis_per_second\"} 1")
    );
}
