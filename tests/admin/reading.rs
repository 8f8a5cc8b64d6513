//! What is told of rules, heavy hitters and the replica; and that the OpenAPI document tells the truth of it.

use serde_json::Value;

use crate::{Admin, RULES};

/// A counter of a list by the first value of its descriptor.
fn by_value<'a>(list: &'a Value, value: &str) -> &'a Value {
    let counters = list["counters"].as_array().expect("a list");
    let found = counters
        .iter()
        .find(|counter| counter["descriptor"][0]["value"] == value);
    found.unwrap_or_else(|| panic!("{value} is not in {list}"))
}

/// Such a name keeps its beginning alone, which does not say which rule counts it.
#[tokio::test]
async fn a_key_with_a_long_value_is_listed_with_its_rule() {
    let admin = Admin::start(false, &[]);
    let long = "v".repeat(300);
    admin.ask("user", &long, 5).await;
    for query in ["by=hits&rule=user", "by=denied&rule=user&domain=shop"] {
        let top = admin.top(query, 5).await;
        let counter = &top["counters"][0];
        assert_eq!(
            (&counter["rule"], &counter["shortened"]),
            (&"user".into(), &true.into()),
            "{top}"
        );
        assert_eq!((&counter["hits"], &counter["denied"]), (&5.into(), &2.into()), "{top}");
        let path = format!("/api/v1/history?id={}", counter["id"].as_str().expect("an id"));
        let history = admin.api.get(&path, &[]).await.json();
        assert_eq!(history["counter"]["rule"], "user", "{history}");
        assert_eq!(
            history["slices"].as_array().expect("slices").last().expect("one")["denied"],
            2
        );
    }
    let other = admin.top("by=hits&rule=seen", 5).await;
    assert_eq!(other["counters"], serde_json::json!([]));
}

#[tokio::test]
async fn top_lists_who_is_denied_with_rule_share_and_error() {
    let admin = Admin::start(false, &[]);
    admin.ask("user", "mallory", 13).await;
    admin.ask("user", "alice", 4).await;
    admin.ask("user", "bob", 1).await;
    let hostile = "</td><script>alert(1)</script>|=%{}#\u{202e}\n";
    admin.ask("user", hostile, 5).await;
    let top = admin.top("by=denied&window=1m", 23).await;
    assert_eq!(top["denied"], 13);
    let first = &top["counters"][0];
    assert_eq!(first["descriptor"][0]["value"], "mallory");
    assert_eq!((&first["rule"], &first["domain"]), (&"user".into(), &"shop".into()));
    assert_eq!((&first["hits"], &first["denied"]), (&13.into(), &10.into()));
    assert!((first["share"].as_f64().expect("a share") - 10.0 / 13.0).abs() < 1e-9);
    // Values come back as they were sent, whatever is in them.
    assert_eq!(by_value(&top, hostile)["denied"], 2);
    let id = first["id"].as_str().expect("an id");
    let history = admin.api.get(&format!("/api/v1/history?id={id}"), &[]).await.json();
    let denied: u64 = history["slices"]
        .as_array()
        .expect("slices")
        .iter()
        .filter_map(|s| s["denied"].as_u64())
        .sum();
    assert_eq!(denied, 10);
    let none = admin.api.get("/api/v1/top?rule=path_/free", &[]).await.json();
    assert_eq!(none["counters"], serde_json::json!([]));
}

#[tokio::test]
async fn values_are_masked_and_heavy_hitters_can_be_off() {
    for (mode, shown) in [("truncate", "mall…"), ("hash", "#")] {
        let admin = Admin::start(false, &["--mask-values", mode]);
        admin.ask("user", "mallory", 5).await;
        let top = admin.top("by=hits", 5).await;
        assert!(!top.to_string().contains("mallory"), "{top}");
        let value = &top["counters"][0]["descriptor"][0]["value"];
        assert!(value.as_str().is_some_and(|value| value.starts_with(shown)), "{value}");
    }
    let admin = Admin::start(false, &["--top", "off"]);
    admin.ask("user", "mallory", 5).await;
    assert_eq!(admin.api.get("/api/v1/top", &[]).await.status, 404);
    assert_eq!(admin.api.get("/api/v1/status", &[]).await.json()["top"], false);
}

#[tokio::test]
async fn rules_say_where_they_stand_and_what_they_decided() {
    let admin = Admin::start(false, &[]);
    admin.ask("user", "alice", 5).await;
    admin.ask("seen", "x", 3).await;
    let list = admin.api.get("/api/v1/rules", &[]).await.json();
    assert_eq!(list["total"], 4);
    let rule = |path: &str| {
        let rules = list["rules"].as_array().expect("rules");
        rules
            .iter()
            .find(|rule| rule["path"] == path)
            .expect("the rule")
            .clone()
    };
    let user = rule("user");
    assert!(
        user["source"]
            .as_str()
            .is_some_and(|source| source.ends_with("rules.yaml:5")),
        "{user}"
    );
    assert_eq!(
        user["decisions"],
        serde_json::json!({ "allowed": 3, "denied": 2, "shadow_denied": 0 })
    );
    assert_eq!(
        (&user["limit"], &user["window"], &user["algorithm"]),
        (&3.into(), &"hour".into(), &"sliding_window".into())
    );
    assert_eq!(rule("seen")["decisions"]["shadow_denied"], 2);
    assert_eq!(rule("path_/free")["unlimited"], true);
    let page = admin
        .api
        .get("/api/v1/rules?offset=1&limit=1&filter=se", &[])
        .await
        .json();
    assert_eq!((&page["total"], &page["rules"][0]["path"]), (&2.into(), &"seen".into()));
    let first = async |query: &str| {
        let page = admin.api.get(&format!("/api/v1/rules?{query}"), &[]).await.json();
        (page["total"].clone(), page["rules"][0]["path"].clone())
    };
    // By the domain's name, too; and those first that deny, of which shadow rules are none.
    assert_eq!(first("filter=shop").await, (4.into(), "user".into()));
    assert_eq!(first("filter=shopp").await, (0.into(), Value::Null));
    assert_eq!(first("filter=e&order=denied").await, (4.into(), "user".into()));
    admin.ask("tried", "x", 9).await;
    assert_eq!(first("order=denied").await, (4.into(), "tried".into()));
    for bad in ["limit=0", "limit=1001", "offset=-1", "order=x", "unknown=1"] {
        assert_eq!(
            admin.api.get(&format!("/api/v1/rules?{bad}"), &[]).await.status,
            400,
            "{bad}"
        );
    }
}

#[tokio::test]
async fn what_was_counted_slice_by_slice_is_told_when_it_is_asked_for() {
    let admin = Admin::start(false, &[]);
    admin.ask("user", "mallory", 13).await;
    admin.ask("user", "alice", 4).await;
    let top = admin.top("by=denied&window=1m&slices=true", 17).await;
    let lengths = top["slice_seconds"].as_array().expect("lengths");
    for (at, denied) in [(0, 10), (1, 1)] {
        let slices = top["counters"][at]["slices"].as_array().expect("slices");
        assert_eq!(slices.len(), lengths.len(), "{top}");
        assert_eq!(slices.iter().filter_map(Value::as_u64).sum::<u64>(), denied, "{top}");
    }
    let top = admin.top("by=denied&window=1m", 17).await;
    assert!(
        top.get("slice_seconds").is_none() && top["counters"][0].get("slices").is_none(),
        "{top}"
    );
    // A key that is asked for by its name has the same id, if it is listed.
    let unlisted = admin
        .api
        .get("/api/v1/counters?domain=shop&descriptor=user=zoe", &[])
        .await
        .json();
    assert!(unlisted["used"] == 0 && unlisted.get("id").is_none(), "{unlisted}");
    let state = admin
        .api
        .get("/api/v1/counters?domain=shop&descriptor=user=mallory", &[])
        .await
        .json();
    assert_eq!(state["id"], top["counters"][0]["id"], "{state}");
}

#[tokio::test]
async fn head_is_answered_as_get_without_a_body() {
    let admin = Admin::start(true, &[]);
    let forwarded = ("x-forwarded-for", "10.0.0.1");
    for (path, headers, expected) in [
        ("/api/v1/status", &[][..], 200),
        ("/api/v1/nothing", &[], 404),
        ("/api/v1/top?limit=0", &[], 400),
        ("/api/v1/counters?domain=shop&descriptor=nothing=x", &[], 404),
        ("/api/v1/status", &[forwarded], 401),
        ("/api/v1/explain", &[], 405),
        ("/console/", &[], 200),
        ("/console/nothing", &[], 404),
        ("/metrics", &[], 200),
        ("/healthcheck", &[], 200),
    ] {
        let get = admin.api.get(path, headers).await;
        let head = admin.api.send("HEAD", path, headers, "").await;
        assert_eq!(
            (get.status.as_u16(), head.status.as_u16()),
            (expected, expected),
            "{path}"
        );
        assert_eq!(head.header("content-type"), get.header("content-type"), "{path}");
        assert!(head.body.is_empty() && !get.body.is_empty(), "{path}");
    }
}

#[tokio::test]
async fn every_resource_is_described_and_every_description_is_a_resource() {
    let admin = Admin::start(false, &[]);
    let document = admin.api.get("/api/v1/openapi.json", &[]).await.json();
    assert_eq!(document["openapi"], "3.1.0");
    for (path, operations) in document["paths"].as_object().expect("paths") {
        if operations.get("get").is_some() && path != "/api/v1/events" {
            let status = admin.api.get(path, &[]).await.status;
            assert!(status != 404 && status != 405, "{path}: {status}");
        }
    }
}

#[tokio::test]
async fn what_a_candidate_would_change_is_told_with_its_keys() {
    let admin = Admin::start(false, &[]);
    admin.ask("tried", "mallory", 6).await;
    let list = admin.api.get("/api/v1/rules?filter=tried", &[]).await.json();
    let candidate = &list["rules"][0]["candidate"];
    assert_eq!((&candidate["limit"], &candidate["window"]), (&2.into(), &"hour".into()));
    let expected =
        serde_json::json!({ "both_allow": 2, "would_deny": 3, "would_allow": 0, "both_deny": 1, "error": 0 });
    assert_eq!(candidate["decisions"], expected);
    assert_eq!(candidate["would_deny_share"], 0.5);
    let top = admin.top("candidates=true&by=denied&window=1m", 6).await;
    let first = by_value(&top, "mallory");
    assert_eq!((&first["denied"], &first["rule"]), (&4.into(), &"tried".into()));
    assert_eq!(first["is_candidate"], true);
    let id = first["id"].as_str().expect("an id");
    let history = admin.api.get(&format!("/api/v1/history?id={id}"), &[]).await;
    assert_eq!(history.status, 200);
    // The keys of limits in force are a list of their own.
    let top = admin.top("by=denied&window=1m", 6).await;
    assert_eq!((&top["hits"], &top["denied"]), (&6.into(), &1.into()));
}

#[tokio::test]
async fn limits_in_force_are_a_metric_and_follow_the_rules() {
    let mut admin = Admin::start(false, &[]);
    let metrics = admin.api.get("/metrics", &[]).await.body;
    let limit = r#"sluicegate_limit{domain="shop",rule="user",window="hour"} 3"#;
    assert!(metrics.lines().any(|line| line == limit), "{metrics}");
    let of = |text: &str| {
        text.lines()
            .filter(|line| line.starts_with("sluicegate_limit{"))
            .count()
    };
    assert_eq!(
        of(&metrics),
        RULES.matches("rate_limit: { unit:").count(),
        "unlimited has none"
    );
    // As many as there are rules: not among the numbers of the status.
    admin.ask("user", "alice", 1).await;
    let status = admin.api.get("/api/v1/status", &[]).await.json();
    let numbers = status["metrics"].as_array().expect("numbers");
    assert!(!numbers.is_empty());
    assert!(
        numbers.iter().all(|metric| metric["labels"].get("rule").is_none()),
        "{status}"
    );
    let rules = RULES.replace("unit: hour, requests_per_unit: 3", "unit: minute, requests_per_unit: 5");
    std::fs::write(&admin.server.rules, rules).expect("the rules");
    admin
        .server
        .process
        .wait_until("the new rules", |process| process.log().contains("generation=2"));
    let metrics = admin.api.get("/metrics", &[]).await.body;
    let limit = r#"sluicegate_limit{domain="shop",rule="user",window="minute"} 5"#;
    assert!(metrics.lines().any(|line| line == limit), "{metrics}");
    assert_eq!(of(&metrics), RULES.matches("rate_limit: { unit:").count());
}
