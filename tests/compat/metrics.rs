//! What dashboards are drawn from: hits split as envoyproxy/ratelimit splits them, each counted in one series.

use std::{
    collections::HashMap,
    fs,
    sync::{Arc, atomic::Ordering},
};

use sluicegate::{
    config::{Text, load},
    proto::envoy::{
        extensions::common::ratelimit::v3::{RateLimitDescriptor, rate_limit_descriptor::Entry},
        service::ratelimit::v3::{RateLimitRequest, rate_limit_service_client::RateLimitServiceClient},
    },
    rules::Defaults,
    telemetry::RuleStatsRegistry,
};

use crate::support::{ratelimit::Ratelimit, redis::Redis};

const ALGORITHMS: [&str; 4] = ["sliding_window", "sliding_log", "token_bucket", "fixed_window"];

/// As [`metrics_in`] of `domain: d`.
async fn metrics_after(
    rules: &str,
    variables: &[(&str, &str)],
    asked: &[(&[(&str, &str)], u64)],
) -> HashMap<String, f64> {
    metrics_in("d", rules, variables, asked).await
}

/// Asks each (entries, hits) of the domain in turn, and returns what `/metrics` and `/stats` show then: series and value.
async fn metrics_in(
    domain: &str,
    rules: &str,
    variables: &[(&str, &str)],
    asked: &[(&[(&str, &str)], u64)],
) -> HashMap<String, f64> {
    let dir = tempfile::tempdir().expect("a directory");
    fs::create_dir(dir.path().join("config")).expect("a directory");
    fs::write(dir.path().join("config/rules.yaml"), rules).expect("a file");
    let root = dir.path().display().to_string();
    let mut process = Ratelimit::start(&[&[("RUNTIME_ROOT", root.as_str())], variables].concat());
    if variables.iter().any(|(name, _)| *name == "REDIS_URL") {
        process.wait_for_redis(1);
    }
    let address = format!("http://127.0.0.1:{}", process.grpc_port);
    let mut client = RateLimitServiceClient::connect(address).await.expect("a connection");
    for (entries, hits) in asked {
        let entry = |(key, value): &(&str, &str)| Entry {
            key: (*key).into(),
            value: (*value).into(),
        };
        let request = RateLimitRequest {
            domain: domain.into(),
            descriptors: vec![RateLimitDescriptor {
                entries: entries.iter().map(entry).collect(),
                hits_addend: Some(*hits),
                ..Default::default()
            }],
            hits_addend: 0,
        };
        client.should_rate_limit(request).await.expect("an answer");
    }
    let stats = process.debug().get("/stats", &[]).await.body;
    assert!(stats.lines().all(|line| line.contains(": ")), "{stats}");
    let text = process.debug().get("/metrics", &[]).await.body;
    let mut series: HashMap<String, f64> = stats
        .lines()
        .filter_map(|line| line.rsplit_once(": "))
        .filter(|(name, _)| name.starts_with("ratelimit.") || name.starts_with("ratelimit_server."))
        .map(|(name, value)| (name.to_owned(), value.parse().expect("a number")))
        .collect();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let (name, value) = line.rsplit_once(' ').expect("a name and a value");
        let before = series.insert(name.to_owned(), value.parse().expect("a number"));
        assert_eq!(before, None, "twice in one exposition: {name}");
    }
    series
}

/// [total, over, near, within] of what is counted under these keys.
fn hits(series: &HashMap<String, f64>, keys: &str) -> Option<[f64; 4]> {
    let of = |kind| series.get(&format!("ratelimit_service_rate_limit_{kind}{{domain=\"d\",{keys}}}"));
    let [total, over, near, within] = ["total_hits", "over_limit", "near_limit", "within_limit"].map(of);
    Some([*total?, *over?, *near?, *within?])
}

#[tokio::test]
async fn hits_that_are_charged_are_split_by_where_they_lie() {
    let redis = Redis::start();
    let url = format!("127.0.0.1:{}", redis.port);
    let in_redis = [
        ("REDIS_URL", url.as_str()),
        ("LOG_LEVEL", "info"),
        ("STORE_TIMEOUT", "10s"),
        ("ON_STORE_ERROR", "deny"),
    ];
    for store in [[].as_slice(), &in_redis] {
        for algorithm in ALGORITHMS {
            let variables = [&[("DEFAULT_ALGORITHM", algorithm), ("COUNT_DENIED", "true")], store].concat();
            let rules = "domain: d\ndescriptors: [{key: k, rate_limit: {unit: day, requests_per_unit: 20}}]";
            let found = metrics_after(
                rules,
                &variables,
                &[
                    (&[("k", "a")], 15),
                    // 15 + 7 = 22: two over, and four of the five that had room lie above 16.
                    (&[("k", "a")], 7),
                    // Nothing had room.
                    (&[("k", "a")], 3),
                ],
            )
            .await;
            let found = hits(&found, "key1=\"k\"");
            assert_eq!(found, Some([25.0, 5.0, 4.0, 15.0]), "{algorithm} {store:?}");
        }
    }
}

const DETAILED: &str = r#"
domain: d
descriptors:
  - {key: plain, rate_limit: {unit: day, requests_per_unit: 9}}
  - {key: exact, value: one, detailed_metric: true, rate_limit: {unit: day, requests_per_unit: 9}}
  - {key: any, detailed_metric: true, rate_limit: {unit: day, requests_per_unit: 9}}
  - {key: own, value: "x*", value_to_metric: true, rate_limit: {unit: day, requests_per_unit: 9}}
  - {key: same, value: "x*", value_to_metric: true, share_threshold: true, rate_limit: {unit: day, requests_per_unit: 9}}
  - key: top
    value: "x*"
    share_threshold: true
    descriptors: [{key: low, detailed_metric: true, rate_limit: {unit: day, requests_per_unit: 9}}]
  - {key: override, rate_limit: {unit: day, requests_per_unit: 9}}
"#;

/// As there: a value that enters the name takes the place of the rule's own series, or sums would count twice; values
/// that share a counter share a series.
#[tokio::test]
async fn every_hit_is_in_one_series() {
    let found = metrics_after(
        DETAILED,
        &[],
        &[
            (&[("plain", "a")], 1),
            (&[("exact", "one")], 1),
            (&[("any", "a")], 1),
            (&[("any", "b\"\n.c")], 2),
            (&[("own", "x1")], 1),
            (&[("same", "x1")], 1),
            (&[("same", "x2")], 1),
            (&[("top", "x1"), ("low", "b")], 1),
            (&[("override", "a")], 1),
        ],
    )
    .await;
    let total = |keys| hits(&found, keys).map(|[total, ..]| total);
    for (keys, expected) in [
        (r#"key1="plain""#, 1.0),
        (r#"key1="exact_one""#, 1.0),
        (r#"key1="any""#, 0.0),
        (r#"key1="any_a""#, 1.0),
        (r#"key1="any_b\"\n.c""#, 2.0),
        (r#"key1="own_x*""#, 0.0),
        (r#"key1="own_x1""#, 1.0),
        (r#"key1="same_x*""#, 2.0),
        (r#"key1="top_x*",key2="low_b""#, 1.0),
        (r#"key1="override""#, 1.0),
    ] {
        assert_eq!(total(keys), Some(expected), "{keys}");
    }
    let of_all = found
        .iter()
        .filter(|(name, _)| name.starts_with("ratelimit_service_rate_limit_total_hits{"))
        .map(|(_, value)| value);
    assert_eq!(of_all.sum::<f64>(), 10.0);
}

/// What Envoy Gateway's own tests and dashboards look for, and names as long as it makes them: each series once.
#[tokio::test]
async fn labels_are_written_as_there_and_stay_apart() {
    let route = format!(
        "httproute/{}/{}/rule/0/match/0/www_{}_com",
        "n".repeat(60),
        "r".repeat(250),
        "h".repeat(250)
    );
    let rules = format!(
        r#"
domain: "a:b/http"
descriptors:
  - {{key: masked_remote_address, value: 0.0.0.0/0, rate_limit: {{unit: day, requests_per_unit: 9}}}}
  - {{key: masked_remote_address, value: "invert:192.0.2.0/24", rate_limit: {{unit: day, requests_per_unit: 9}}}}
  - {{key: same, value: "x:y", rate_limit: {{unit: day, requests_per_unit: 9}}}}
  - {{key: same, value: x|y, rate_limit: {{unit: day, requests_per_unit: 9}}}}
  - {{key: any, detailed_metric: true, rate_limit: {{unit: day, requests_per_unit: 9}}}}
  - key: {route}
    value: {route}
    descriptors:
      - {{key: rule-0-match-0, value: rule-0-match-0, rate_limit: {{unit: day, requests_per_unit: 9}}}}
      - {{key: rule-1-match-0, value: rule-1-match-0, rate_limit: {{unit: day, requests_per_unit: 9}}}}
"#
    );
    let long = "v".repeat(60_000);
    let (one, other) = (format!("{long}1"), format!("{long}2"));
    let asked: [(&[(&str, &str)], u64); 8] = [
        (&[("masked_remote_address", "0.0.0.0/0")], 1),
        (&[("masked_remote_address", "invert:192.0.2.0/24")], 2),
        (&[("same", "x:y")], 3),
        (&[("same", "x|y")], 4),
        (&[("any", &one)], 5),
        (&[("any", &other)], 6),
        (&[(&route, &route), ("rule-0-match-0", "rule-0-match-0")], 7),
        (&[(&route, &route), ("rule-1-match-0", "rule-1-match-0")], 8),
    ];
    let found = metrics_in("a:b/http", &rules, &[], &asked).await;
    let total = "ratelimit_service_rate_limit_total_hits";
    for (keys, expected) in [
        (r#"key1="masked_remote_address_0_0_0_0/0""#, 1.0),
        (r#"key1="masked_remote_address_invert_192_0_2_0/24""#, 2.0),
        (r#"key1="same_x_y""#, 7.0),
    ] {
        let name = format!(r#"{total}{{domain="a_b/http",{keys}}}"#);
        assert_eq!(found.get(&name), Some(&expected), "{name} in {found:#?}");
    }
    for (family, name, expected) in [(total, "any_v", [5.0, 6.0]), (total, "httproute/", [7.0, 8.0])]
        .into_iter()
        .chain([("sluicegate_decisions_total", "httproute/", [1.0, 1.0])])
    {
        let mut counts: Vec<f64> = found
            .iter()
            .filter(|(series, value)| series.starts_with(family) && series.contains(name) && **value > 0.0)
            .map(|(series, value)| {
                assert!(series.len() < 3000, "{series}");
                *value
            })
            .collect();
        counts.sort_by(f64::total_cmp);
        assert_eq!(counts, expected, "{family} {name}");
    }
}

/// By the names that statsd gets, which is how envoyproxy/ratelimit calls them.
#[tokio::test]
async fn stats_have_their_names() {
    let rules = r#"
domain: d
descriptors:
  - key: k
    descriptors: [{key: path, value: /a.b, shadow_mode: true, rate_limit: {unit: day, requests_per_unit: 2}}]
"#;
    let asked: [(&[(&str, &str)], u64); 1] = [(&[("k", "v"), ("path", "/a.b")], 3)];
    let found = metrics_after(rules, &[("EXTRA_TAGS", "env:prod")], &asked).await;
    for (name, expected) in [
        ("ratelimit.service.rate_limit.d.k.path_/a.b.total_hits.__env=prod", 3.0),
        ("ratelimit.service.rate_limit.d.k.path_/a.b.over_limit.__env=prod", 1.0),
        ("ratelimit.service.rate_limit.d.k.path_/a.b.near_limit.__env=prod", 1.0),
        (
            "ratelimit.service.rate_limit.d.k.path_/a.b.within_limit.__env=prod",
            0.0,
        ),
        ("ratelimit.service.rate_limit.d.k.path_/a.b.shadow_mode.__env=prod", 1.0),
        ("ratelimit.service.config_load_success.__env=prod", 1.0),
        ("ratelimit_server.ShouldRateLimit.total_requests.__env=prod", 1.0),
    ] {
        assert_eq!(found.get(name), Some(&expected), "{name}");
    }
}

/// Tags that others have on everything they run, some of which our own metrics use as labels.
#[tokio::test]
async fn tags_may_be_called_as_our_own_labels_are() {
    let rules = "domain: d\ndescriptors: [{key: k, rate_limit: {unit: day, requests_per_unit: 2}}]";
    let tags = [("EXTRA_TAGS", "service:gateway,version:7,domain2:x")];
    let found = metrics_after(rules, &tags, &[(&[("k", "a")], 1)]).await;
    for (name, expected) in [
        (
            r#"ratelimit_service_rate_limit_total_hits{domain="d",key1="k",domain2="x",service="gateway",version="7"}"#,
            1.0,
        ),
        (
            r#"sluicegate_requests_total{code="ok",service="rls",domain2="x",version="7"}"#,
            1.0,
        ),
    ] {
        assert_eq!(found.get(name), Some(&expected), "{name} in {found:#?}");
    }
}

/// Whatever changes beside it: what is counted is told once and for all.
#[test]
fn series_live_as_long_as_their_rule() {
    let registry = RuleStatsRegistry::new().expect("fixed names");
    let load = |keys: &[&str]| {
        let rule = |key: &&str| format!("{{key: {key}, detailed_metric: true, rate_limit: {{unit: day}}}}");
        let text = Text {
            name: "r.yaml".into(),
            text: format!(
                "domain: d\ndescriptors: [{}]",
                keys.iter().map(rule).collect::<Vec<_>>().join(", ")
            )
            .into(),
        };
        load(&[text], &Defaults::default()).expect("good rules")
    };
    let hits = |rule: Option<&str>, key: &str| {
        let rule: Option<Arc<str>> = rule.map(Into::into);
        let stats = registry.detailed(&"d".into(), rule.as_ref(), vec![key.to_owned()]);
        stats.expect("room").total_hits.fetch_add(1, Ordering::Relaxed)
    };
    registry.activate(&load(&["a", "b"]));
    for (rule, key) in [(Some("a"), "a_1"), (Some("b"), "b_1"), (None, "override")] {
        assert_eq!(hits(rule, key), 0);
    }
    registry.activate(&load(&["a", "c"]));
    assert_eq!([hits(Some("a"), "a_1"), hits(None, "override")], [1, 1]);
    registry.activate(&load(&["a", "b"]));
    assert_eq!(hits(Some("b"), "b_1"), 0, "its rule was gone");
    // A rule by that name now: one series.
    let of_rules = registry.activate(&load(&["a", "a_1"]));
    assert_eq!(hits(Some("a"), "a_1"), 0);
    assert_eq!(of_rules[1].total_hits.load(Ordering::Relaxed), 1);
}
