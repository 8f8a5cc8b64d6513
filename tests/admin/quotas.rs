//! Counters that let more or less pass at once than their limit's number, and such that holds stand on.

use serde_json::{Value, json};

use crate::TOKEN;
use crate::support::http::Client;
use crate::support::redis::Redis;
use crate::support::sluicegate::Sluicegate;

/// The first lets 100 pass at once, the second two (one of them a minute late), the third 50.
const RULES: &str = r"
domain: shop
descriptors:
  - key: token
    rate_limit: { unit: day, requests_per_unit: 10, algorithm: token_bucket, burst: 100 }
  - key: leaky
    rate_limit: { unit: hour, requests_per_unit: 60, algorithm: leaky_bucket, max_delay: 60s }
  - key: held
    rate_limit: { unit: day, requests_per_unit: 50, hold: { ttl: 10m } }
";

#[tokio::test]
async fn what_is_used_is_told_of_the_quota_and_is_what_a_reset_gives_back() {
    quotas_are_told_and_reset(&[]).await;
}

#[tokio::test]
async fn the_same_in_redis() {
    let redis = Redis::start();
    let url = redis.url();
    let patient = ["--store-timeout", "1s", "--on-store-error", "deny", "--lease", "false"];
    quotas_are_told_and_reset(&[&["--store", "redis", "--redis-url", &url][..], &patient].concat()).await;
}

async fn quotas_are_told_and_reset(arguments: &[&str]) {
    let token_file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(token_file.path(), TOKEN).expect("the token");
    let path = token_file.path().to_str().expect("a path");
    let server = Sluicegate::start(RULES, &[arguments, &["--admin-token-file", path]].concat());
    let (api, json) = (Client::new(server.admin_port), Client::new(server.http_port));
    let bearer = format!("Bearer {TOKEN}");
    let headers = [("authorization", bearer.as_str()), ("content-type", "application/json")];
    let reset = async |question: &Value| {
        let question = question.to_string();
        api.post("/api/v1/counters/reset", &headers, &question).await.json()
    };
    for (key, quota, hits, held) in [("token", 100, 10, 0), ("leaky", 2, 1, 0), ("held", 50, 0, 20)] {
        let assert_stands = async |used: u64, held: u64| {
            let path = format!("/api/v1/counters?domain=shop&descriptor={key}");
            let state = api.get(&path, &[]).await.json();
            let said = ["quota", "used", "held", "remaining"].map(|name| state[name].as_u64());
            let expected = [quota, used, held, quota - used - held].map(Some);
            assert_eq!(said, expected, "{state}");
        };
        let entries = json!([{ "key": key }]);
        let question = json!({ "domain": "shop", "entries": entries });
        assert_stands(0, 0).await;
        assert_eq!(reset(&question).await["used"], 0, "{key}");
        let hit = json!({ "domain": "shop", "descriptors": [{ "entries": entries, "hitsAddend": hits + held }] });
        let answer = json.post("/json", &[], &hit.to_string()).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        assert_stands(hits, held).await;
        let selection = reset(&question).await;
        assert_eq!(selection["used"], hits, "{selection}");
        let done = reset(&json!({ "token": selection["token"] })).await;
        assert_eq!(done["hits"], hits, "{done}");
        // What is held stays until it is settled.
        assert_stands(0, held).await;
    }
}
