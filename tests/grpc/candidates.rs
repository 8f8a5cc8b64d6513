//! Candidate limits: decided beside the limit in force, on counters of their own, never in force.

use std::collections::BTreeMap;

use sluicegate::config::settings::{RedisSettings, Settings, StoreKind};
use sluicegate::proto::envoy::service::ratelimit::v3 as wire;

use crate::server::{Server, request};
use crate::support::http::Client;
use crate::support::process::{PATIENCE, POLL};
use crate::support::redis::Redis;

const RULES: &str = "
domain: edge
descriptors:
  - key: tighter
    candidate: {unit: hour, requests_per_unit: 3}
    rate_limit: {unit: hour, requests_per_unit: 5}
  - key: looser
    candidate: {unit: hour, requests_per_unit: 4, algorithm: token_bucket}
    rate_limit: {unit: hour, requests_per_unit: 2}
  - key: none
    rate_limit: {unlimited: true}
    candidate: {unit: hour, requests_per_unit: 2}
  - key: plain
    rate_limit: {unit: hour, requests_per_unit: 2}
";

async fn passes(server: &Server, keys: &[&str]) -> bool {
    let entries: Vec<_> = keys.iter().map(|key| [(*key, "x")]).collect();
    let entries: Vec<&[(&str, &str)]> = entries.iter().map(<[_; 1]>::as_slice).collect();
    let mut client = server.client().await;
    let answer = client.should_rate_limit(request("edge", &entries)).await;
    answer.expect("answered").into_inner().overall_code == i32::from(wire::rate_limit_response::Code::Ok)
}

/// `sluicegate_candidate_decisions_total` by rule and outcome; zeros are left out.
async fn decided(server: &Server) -> BTreeMap<String, u64> {
    let page = Client::new(server.addresses.admin.port())
        .get("/metrics", &[])
        .await
        .body;
    let line = |line: &str| {
        let rest = line.strip_prefix("sluicegate_candidate_decisions_total{")?;
        let label = |name: &str| {
            let (_, value) = rest.split_once(&format!("{name}=\""))?;
            Some(value.split_once('"')?.0.to_owned())
        };
        let count: f64 = rest.rsplit_once(' ')?.1.parse().ok()?;
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a small count")]
        let count = count as u64;
        Some((format!("{} {}", label("rule")?, label("outcome")?), count)).filter(|(_, count)| *count > 0)
    };
    page.lines().filter_map(line).collect()
}

fn expected(counts: &[(&str, u64)]) -> BTreeMap<String, u64> {
    counts
        .iter()
        .map(|(name, count)| ((*name).to_owned(), *count))
        .collect()
}

/// A few requests of each kind; the answers are those of the limits in force.
async fn ask_all(server: &Server) {
    for (key, admitted) in [("tighter", 5), ("looser", 2), ("none", 6), ("plain", 2)] {
        for n in 0..6 {
            assert_eq!(passes(server, &[key]).await, n < admitted, "{key} {n}");
        }
    }
}

const ALL: [(&str, u64); 8] = [
    ("tighter both_allow", 3),
    ("tighter would_deny", 2),
    ("tighter both_deny", 1),
    ("looser both_allow", 2),
    ("looser would_allow", 2),
    ("looser both_deny", 2),
    ("none both_allow", 2),
    ("none would_deny", 4),
];

#[tokio::test]
async fn what_a_candidate_would_change_is_counted_and_nothing_changes() {
    let server = Server::start(RULES).await;
    ask_all(&server).await;
    assert_eq!(decided(&server).await, expected(&ALL));
    server.stop().await;
}

/// Each candidate is decided by itself, whatever another limit of the request says.
#[tokio::test]
async fn a_request_that_another_limit_denies_still_counts_for_the_candidate() {
    let server = Server::start(RULES).await;
    for n in 0..5 {
        assert_eq!(passes(&server, &["plain", "none"]).await, n < 2);
    }
    let counts = expected(&[("none both_allow", 2), ("none would_deny", 3)]);
    assert_eq!(decided(&server).await, counts);
    server.stop().await;
}

#[tokio::test]
async fn in_redis_too_and_in_the_same_call() {
    let redis = Redis::start();
    let store = |settings: &mut Settings| {
        settings.store.kind = StoreKind::Redis;
        settings.store.redis = Some(RedisSettings::from_url(&redis.url()).expect("an address"));
        settings.store.timeout = std::time::Duration::from_secs(5);
        settings.store.lease = false;
        settings.store.deny_cache = false;
    };
    let server = Server::start_with(RULES, store).await;
    // Calls of scripts since it was asked before.
    let calls = || {
        let stats = redis.cli(&["INFO", "commandstats"]);
        redis.cli(&["CONFIG", "RESETSTAT"]);
        let calls = stats
            .split_once("cmdstat_evalsha:calls=")
            .and_then(|(_, rest)| rest.split_once(','));
        calls.map_or(0, |(calls, _)| calls.parse::<u32>().expect("a number"))
    };
    // Until there are connections and the circuit is closed, local counters decide. Once a second the server calls by itself.
    let decides = async {
        while calls() < 4 {
            tokio::time::sleep(POLL).await;
            calls();
            for _ in 0..4 {
                passes(&server, &["plain"]).await;
            }
        }
    };
    tokio::time::timeout(PATIENCE, decides).await.expect("Redis decides");
    for _ in 0..3 {
        passes(&server, &["tighter"]).await;
    }
    let calls = calls();
    assert!(
        (3..6).contains(&calls),
        "{calls}, where candidates of their own would make 6"
    );
    assert_eq!(decided(&server).await, expected(&[("tighter both_allow", 3)]));
    server.stop().await;
}
