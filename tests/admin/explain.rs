//! Why a request passes or not, and how a counter stands; nothing of it counts.

use serde_json::{Value, json};

use crate::support::http::Client;
use crate::support::process::{PATIENCE, POLL};
use crate::support::redis::Redis;
use crate::support::sluicegate::Sluicegate;
use crate::{Admin, TOKEN};

const JSON: [(&str, &str); 1] = [("content-type", "application/json")];

const TREE: &str = r#"
domain: tree
ext_authz:
  rate_limits:
    - actions:
        - request_headers: { header_name: x-user, descriptor_key: user }
descriptors:
  - key: user
    value: alice
    rate_limit: { unit: hour, requests_per_unit: 2, name: alice }
  - key: user
    value: al*
    rate_limit: { unit: hour, requests_per_unit: 9 }
  - key: user
    value: b*
    rate_limit: { unit: hour, requests_per_unit: 9 }
  - { key: of, value_in: [a, b], rate_limit: { unit: hour, requests_per_unit: 9 } }
  - { key: of, value_cidr: [10.0.0.0/8], share_threshold: true, rate_limit: { unit: hour, requests_per_unit: 9 } }
  - { key: of, value_cidr: [10.1.0.0/16], rate_limit: { unit: hour, requests_per_unit: 9 } }
  - { key: of, value_regex: "[0-9.]+", rate_limit: { unit: hour, requests_per_unit: 9 } }
  - key: user
    rate_limit: { unit: hour, requests_per_unit: 100, replaces: [{ name: alice }] }
"#;

async fn explain(api: &Client, question: &Value) -> Value {
    let answer = api.post("/api/v1/explain", &JSON, &question.to_string()).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    answer.json()
}

fn users(domain: &str, values: &[&str]) -> Value {
    let descriptors = values
        .iter()
        .map(|value| json!({ "entries": [{ "key": "user", "value": value }] }));
    json!({ "domain": domain, "descriptors": descriptors.collect::<Vec<_>>() })
}

#[tokio::test]
async fn the_way_through_the_tree_is_told_with_what_did_not_match() {
    let server = Sluicegate::start(TREE, &[]);
    let api = Client::new(server.admin_port);
    let explained = explain(&api, &users("tree", &["alice"])).await;
    let descriptor = &explained["descriptors"][0];
    assert_eq!(descriptor["outcome"], "counted");
    assert_eq!(descriptor["rule"]["path"], "user_alice");
    let step = &descriptor["steps"][0];
    assert_eq!(step["matched"], "value");
    let others = [
        ("", "less_specific"),
        ("al*", "less_specific"),
        ("b*", "pattern_does_not_fit"),
    ];
    let others = others.map(|(text, why)| json!({ "text": text, "why": why }));
    assert_eq!(step["others"], json!(others));
    let pattern = explain(&api, &users("tree", &["alfred"])).await;
    assert_eq!(pattern["descriptors"][0]["steps"][0]["pattern"], "al*");
    let key = explain(&api, &users("tree", &["carol"])).await;
    assert_eq!(key["descriptors"][0]["steps"][0]["matched"], "key");
    // A rule of the same request replaces another.
    let both = explain(&api, &users("tree", &["alice", "carol"])).await;
    assert_eq!(
        (&both["descriptors"][0]["outcome"], &both["descriptors"][1]["outcome"]),
        (&json!("replaced"), &json!("counted"))
    );
    let unknown = json!({ "domain": "tree", "descriptors": [{ "entries": [{ "key": "usr", "value": "alice" }] }] });
    let unknown = explain(&api, &unknown).await;
    assert_eq!(unknown["descriptors"][0]["outcome"], "no_rule");
    assert_eq!(
        unknown["descriptors"][0]["steps"][0]["others"],
        json!([{ "text": "of", "why": "other_key" }, { "text": "user", "why": "other_key" }])
    );
    for (value, matched, pattern) in [
        ("a", "list", "in(a,b)"),
        ("10.0.0.1", "network", "cidr(10.0.0.0/8)"),
        ("7", "regex", "regex([0-9.]+)"),
    ] {
        let of = json!({ "domain": "tree", "descriptors": [{ "entries": [{ "key": "of", "value": value }] }] });
        let step = explain(&api, &of).await["descriptors"][0]["steps"][0].clone();
        assert_eq!((&step["matched"], &step["pattern"]), (&json!(matched), &json!(pattern)));
        let fits = |why: &str| {
            step["others"]
                .as_array()
                .expect("a list")
                .iter()
                .filter(|other| other["why"] == why)
                .count()
        };
        let less_specific = usize::from(matched == "network");
        assert_eq!(
            (fits("less_specific"), fits("pattern_does_not_fit")),
            (less_specific, 3 - less_specific),
            "{step}"
        );
    }
    assert_eq!(
        explain(&api, &users("nowhere", &["alice"])).await["domain_known"],
        false
    );
}

#[tokio::test]
async fn an_http_request_is_explained_through_the_ext_authz_section() {
    let server = Sluicegate::start(TREE, &[]);
    let api = Client::new(server.admin_port);
    let question = json!({ "http": { "method": "GET", "path": "/", "headers": { "X-User": "alice" } } });
    let explained = explain(&api, &question).await;
    assert_eq!(explained["domain"], "tree");
    assert_eq!(explained["descriptors"][0]["rule"]["path"], "user_alice");
    let said = |headers: &[&str]| {
        let url = format!("http://127.0.0.1:{}", server.admin_port);
        let arguments = ["explain", "--admin", &url, "--http", "GET", "/"];
        let headers = headers.iter().flat_map(|header| ["-H", *header]);
        let arguments: Vec<&str> = arguments.into_iter().chain(headers).collect();
        let output = crate::support::sluicegate::run(std::path::Path::new("."), &arguments);
        String::from_utf8([output.stdout, output.stderr].concat()).expect("UTF-8")
    };
    // Values of one name are one header's, whatever its case.
    let twice = said(&["x-user: alice", "X-User: bob"]);
    assert!(twice.contains("user=alice,bob: counted by rule user_al*"), "{twice}");
    let wrong = said(&["x-user alice"]);
    assert!(wrong.contains("a header is NAME: VALUE"), "{wrong}");
    let without = explain(&api, &json!({ "http": { "method": "GET", "path": "/" } })).await;
    assert_eq!(
        (&without["descriptors"], &without["would_pass"]),
        (&json!([]), &json!(true))
    );
    let other = json!({ "http": { "method": "GET", "path": "/" }, "domain": "nowhere" });
    assert_eq!(api.post("/api/v1/explain", &JSON, &other.to_string()).await.status, 404);
}

#[tokio::test]
async fn a_counter_is_looked_at_and_not_counted() {
    let admin = Admin::start(false, &[]);
    admin.ask("user", "a|b=%", 2).await;
    let question = users("shop", &["a|b=%"]);
    for _ in 0..5 {
        let explained = explain(&admin.api, &question).await;
        let counter = &explained["descriptors"][0]["counter"];
        assert_eq!(
            (&counter["used"], &counter["remaining"]),
            (&2.into(), &1.into()),
            "{counter}"
        );
        assert_eq!(
            (&counter["would_pass"], &counter["read_from"]),
            (&true.into(), &"memory".into())
        );
    }
    let path = "/api/v1/counters?domain=shop&descriptor=user%3Da%257Cb%253D%2525";
    assert_eq!(admin.api.get(path, &[]).await.json()["used"], 2);
    admin.ask("user", "a|b=%", 1).await;
    let full = explain(&admin.api, &question).await;
    assert_eq!(full["would_pass"], false);
    let retry_ms = full["descriptors"][0]["counter"]["retry_in_ms"]
        .as_u64()
        .expect("a time");
    assert!(retry_ms > 0 && retry_ms <= 2 * 3_600_000, "{retry_ms}");
    // A cost that does not fit does not pass, though a hit would.
    let mut costly = users("shop", &["new"]);
    costly["hits_addend"] = 4.into();
    assert_eq!(explain(&admin.api, &costly).await["would_pass"], false);
    // Looks are no decisions.
    let top = admin.top("by=hits", 3).await;
    assert_eq!(top["counters"].as_array().map(Vec::len), Some(1));
    assert_eq!(
        admin
            .api
            .get("/api/v1/counters?domain=shop&descriptor=nothing", &[])
            .await
            .status,
        404
    );
}

#[tokio::test]
async fn bodies_that_are_no_question_are_refused() {
    let admin = Admin::start(false, &[]);
    let status = async |headers: &[(&str, &str)], body: &str| {
        admin.api.post("/api/v1/explain", headers, body).await.status.as_u16()
    };
    // What a form of another site can send is never JSON.
    assert_eq!(status(&[("content-type", "text/plain")], "{}").await, 415);
    assert_eq!(status(&[], "{}").await, 415);
    assert_eq!(status(&JSON, "{}").await, 400);
    assert_eq!(status(&JSON, r#"{"domain":"shop","descriptors":[]}"#).await, 400);
    assert_eq!(
        status(&JSON, r#"{"domain":"","descriptors":[{"entries":[{"key":"k"}]}]}"#).await,
        400
    );
    let deep = "[".repeat(10_000);
    assert_eq!(status(&JSON, &deep).await, 400);
    assert_eq!(status(&JSON, &"x".repeat(70_000)).await, 413);
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_said_where_a_counter_was_read() {
    let mut redis = Redis::start();
    // No call is late, however busy the machine.
    let url = redis.url();
    let admin = Admin::start(
        false,
        &["--store", "redis", "--redis-url", &url, "--store-timeout", "1s"],
    );
    let path = "/api/v1/counters?domain=shop&descriptor=user=mallory";
    let read_from = async |wanted: &str| {
        let read = async {
            loop {
                let state = admin.api.get(path, &[]).await.json();
                if state["read_from"] == wanted {
                    return state;
                }
                tokio::time::sleep(POLL).await;
            }
        };
        tokio::time::timeout(PATIENCE, read).await.expect("read from there")
    };
    read_from("redis").await;
    admin.ask("user", "mallory", 2).await;
    let state = read_from("redis").await;
    assert_eq!((&state["used"], &state["limit"]), (&2.into(), &3.into()), "{state}");
    let question = json!({ "domain": "shop", "descriptors": [{ "entries": [{ "key": "user", "value": "mallory" }] }] });
    let headers = [("content-type", "application/json")];
    let explain = async || {
        let answer = admin.api.post("/api/v1/explain", &headers, &question.to_string()).await;
        answer.json()["descriptors"][0]["counter"].clone()
    };
    let counter = explain().await;
    assert_eq!((&counter["read_from"], &counter["used"]), (&"redis".into(), &2.into()));
    // Nothing was counted by all that.
    assert_eq!(read_from("redis").await["used"], 2);
    redis.kill();
    assert_eq!(read_from("fallback").await["used"], 2, "they mirror what Redis counted");
    assert_eq!(explain().await["read_from"], "fallback");
}

/// As a reset does, whose dry run is such a question.
#[tokio::test(flavor = "multi_thread")]
async fn a_question_waits_for_redis_for_longer_than_a_decision_does() {
    let redis = Redis::start();
    let url = redis.url();
    let admin = Admin::start(
        true,
        &["--store", "redis", "--redis-url", &url, "--store-timeout", "15ms"],
    );
    let path = "/api/v1/counters?domain=shop&descriptor=user=mallory";
    let is_connected = async {
        while admin.api.get(path, &[]).await.json()["read_from"] != "redis" {
            tokio::time::sleep(POLL).await;
        }
    };
    tokio::time::timeout(PATIENCE, is_connected)
        .await
        .expect("it is connected");
    let pause = || assert_eq!(redis.cli(&["CLIENT", "PAUSE", "150", "ALL"]), "OK");
    pause();
    assert_eq!(admin.api.get(path, &[]).await.json()["read_from"], "redis");
    pause();
    let bearer = format!("Bearer {TOKEN}");
    let headers = [("content-type", "application/json"), ("authorization", &*bearer)];
    let dry_run = json!({ "domain": "shop", "entries": [{ "key": "user", "value": "mallory" }] });
    let answer = admin
        .api
        .post("/api/v1/counters/reset", &headers, &dry_run.to_string())
        .await;
    assert_eq!(answer.status, 200, "{}", answer.body);
}

/// What open holds keep is neither used nor there to be taken, by an id or by a mean cost.
#[tokio::test]
async fn holds_are_told_apart_from_what_is_used() {
    let rules = "domain: d
descriptors:
  - key: user
    rate_limit: { unit: hour, requests_per_unit: 100, hold: {} }
  - key: mean
    rate_limit: { unit: hour, requests_per_unit: 100, hold: { adaptive: { first: 30 } } }
";
    let server = Sluicegate::start(rules, &[]);
    let (api, http) = (Client::new(server.admin_port), Client::new(server.http_port));
    for (key, hits) in [("user", 30), ("mean", 0), ("mean", 7)] {
        let descriptor = json!({ "entries": [{ "key": key, "value": "x" }], "hitsAddend": hits });
        let body = json!({ "domain": "d", "descriptors": [descriptor] });
        assert_eq!(http.post("/json", &JSON, &body.to_string()).await.status, 200);
    }
    let mean =
        json!({ "domain": "d", "descriptors": [{ "entries": [{ "key": "mean", "value": "x" }], "hitsAddend": 0 }] });
    assert_eq!(http.post("/json", &JSON, &mean.to_string()).await.status, 200);
    for (key, expected) in [("user", [0, 30, 70]), ("mean", [7, 7, 86])] {
        let path = format!("/api/v1/counters?domain=d&descriptor={key}=x");
        let counter = api.get(&path, &[]).await.json();
        let found = ["used", "held", "remaining"].map(|name| counter[name].as_u64());
        assert_eq!(found, expected.map(Some), "{counter}");
    }
    // How long to wait for so many hits: holds in the way may be settled at any time, and no waiting makes a limit larger. What
    // settles a hold has no key to be matched.
    for (hits, settles, expected) in [
        (70, None, json!(0)),
        (80, None, json!(1000)),
        (101, None, json!(1000)),
        (101, Some("none"), Value::Null),
        (70, Some("none"), json!(0)),
    ] {
        let user = json!({ "key": "user", "value": "x" });
        let hold = settles.map(|id| json!({ "key": "sluicegate_hold", "value": id }));
        let entries: Vec<_> = [user].into_iter().chain(hold).collect();
        let asked = json!({ "domain": "d", "descriptors": [{ "entries": entries, "hits_addend": hits }] });
        let answer = explain(&api, &asked).await;
        let counter = &answer["descriptors"][0]["counter"];
        assert_eq!(counter["retry_in_ms"], expected, "{hits} {settles:?}: {answer}");
    }
}

#[tokio::test]
async fn several_limits_of_a_descriptor_are_explained_each() {
    let rules = "domain: d\ndescriptors:\n  - key: user\n    rate_limits:\n      - { unit: hour, requests_per_unit: 1 }\n      - { unit: day, requests_per_unit: 9 }\n";
    let server = Sluicegate::start(rules, &[]);
    let api = Client::new(server.admin_port);
    let json = Client::new(server.http_port);
    let body = json!({ "domain": "d", "descriptors": [{ "entries": [{ "key": "user", "value": "a" }] }] });
    json.post("/json", &[], &body.to_string()).await;
    let explained = explain(&api, &users("d", &["a"])).await;
    let descriptor = &explained["descriptors"][0];
    assert_eq!(explained["would_pass"], false);
    // The one that denies first.
    let told = |of: &Value| {
        (
            of["rule"]["path"].clone(),
            of["counter"]["used"].clone(),
            of["counter"]["limit"].clone(),
        )
    };
    assert_eq!(told(descriptor), (json!("user#3600s"), json!(1), json!(1)));
    assert_eq!(told(&descriptor["others"][0]), (json!("user"), json!(1), json!(9)));
    let counters = api
        .get("/api/v1/counters?domain=d&descriptor=user%3Da", &[])
        .await
        .json();
    assert_eq!(
        (&counters["limit"], &counters["others"][0]["limit"]),
        (&json!(1), &json!(9))
    );
    let words = crate::support::sluicegate::run(
        std::path::Path::new("."),
        &[
            "explain",
            "--admin",
            &format!("http://127.0.0.1:{}", server.admin_port),
            "--domain",
            "d",
            "user=a",
        ],
    );
    let words = String::from_utf8_lossy(&words.stdout).into_owned();
    assert!(
        words.contains("counted by rule user#3600s") && words.contains("also counted by rule user ("),
        "{words}"
    );
    let metrics = Client::new(server.admin_port).get("/metrics", &[]).await.body;
    for line in [
        r#"sluicegate_decisions_total{domain="d",rule="user#3600s",outcome="allowed"} 1"#,
        r#"sluicegate_decisions_total{domain="d",rule="user",outcome="allowed"} 1"#,
        r#"ratelimit_service_rate_limit_total_hits{domain="d",key1="user#3600s"} 1"#,
    ] {
        assert!(metrics.contains(line), "{line}\n{metrics}");
    }
}
