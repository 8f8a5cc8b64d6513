//! What operating costs the path of requests: no call to Redis.

use std::collections::BTreeSet;

use serde_json::json;

use crate::RULES;
use crate::support::http::Client;
use crate::support::process::{PATIENCE, POLL};
use crate::support::redis::Redis;
use crate::support::sluicegate::Sluicegate;

const ASKED: usize = 40;

/// What a Redis was asked by a server about which nobody but we ask: its commands, and how many named one of our counters.
async fn commands(top: &str) -> (BTreeSet<String>, usize) {
    let redis = Redis::start();
    // Everything that is asked stands in the slow log then, as it came.
    for (setting, value) in [("slowlog-log-slower-than", "0"), ("slowlog-max-len", "100000")] {
        assert_eq!(redis.cli(&["CONFIG", "SET", setting, value]), "OK");
    }
    let url = redis.url();
    let plain = ["--deny-cache", "false", "--coalesce", "false", "--lease", "false"];
    let with_redis = [
        "--store",
        "redis",
        "--redis-url",
        &url,
        "--on-store-error",
        "deny",
        "--store-timeout",
        "1s",
    ];
    let server = Sluicegate::start(RULES, &[&with_redis[..], &plain, &["--top", top]].concat());
    let (api, service) = (Client::new(server.admin_port), Client::new(server.http_port));
    let ask = async |user: &str| {
        let body = json!({ "domain": "shop", "descriptors": [{ "entries": [{ "key": "user", "value": user }] }] });
        service.post("/json", &[], &body.to_string()).await.status == 200
    };
    let up = async {
        while !ask("somebody").await {
            tokio::time::sleep(POLL).await
        }
    };
    tokio::time::timeout(PATIENCE, up).await.expect("the store answers");
    redis.cli(&["SLOWLOG", "RESET"]);
    redis.cli(&["CONFIG", "RESETSTAT"]);
    let mut denied = 0;
    for n in 0..ASKED {
        denied += usize::from(!ask(["mallory", "alice"][n % 2]).await);
        for path in [
            "/api/v1/top",
            "/api/v1/top?by=hits&window=1h",
            "/api/v1/status",
            "/api/v1/rules",
            "/metrics",
        ] {
            api.get(path, &[]).await;
        }
    }
    assert_eq!(denied, ASKED - 6, "three for each of the two pass");
    let named = redis.cli(&["SLOWLOG", "GET", "100000"]);
    // One argument a line: the command, the script's hash, how many keys, the key.
    let lines: Vec<&str> = named.lines().collect();
    let calls = lines
        .windows(4)
        .filter(|words| words[0] == "EVALSHA" && words[3].contains("{shop|user="));
    let named = calls.count();
    let stats = redis.cli(&["INFO", "commandstats"]);
    let names = stats
        .lines()
        .filter_map(|line| line.strip_prefix("cmdstat_")?.split(':').next());
    // What this test asks, and the log of resets, which is read twice a second.
    let others = ["slowlog", "config", "info", "zrangebyscore"];
    let ours = |name: &&str| !others.iter().any(|other| name.starts_with(other));
    (names.filter(ours).map(str::to_owned).collect(), named)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_operators_read_asks_redis_nothing() {
    let (with, calls_with) = commands("true").await;
    let (without, calls_without) = commands("false").await;
    assert_eq!(
        (calls_with, calls_without),
        (ASKED, ASKED),
        "one call for each decision"
    );
    assert!(with.contains("evalsha"), "{with:?}");
    let extra: Vec<_> = with.difference(&without).collect();
    assert!(extra.is_empty(), "{extra:?} beside {without:?}");
}
