//! Letting keys through again.

use serde_json::{Value, json};

use crate::support::http::{Answer, Client};
use crate::support::process::{PATIENCE, POLL};
use crate::support::redis::Redis;
use crate::support::redis::sentinel::Sentinel;
use crate::support::sluicegate::Sluicegate;
use crate::{Admin, RULES, TOKEN};

const RESET: &str = "/api/v1/counters/reset";

fn mallory() -> Value {
    json!({ "domain": "shop", "entries": [{ "key": "user", "value": "mallory" }] })
}

/// Asks with the token.
async fn ask(api: &Client, question: &Value) -> Answer {
    let bearer = format!("Bearer {TOKEN}");
    let headers = [("authorization", bearer.as_str()), ("content-type", "application/json")];
    api.post(RESET, &headers, &question.to_string()).await
}

/// Selects and confirms; what was reset.
async fn reset(api: &Client, question: &Value) -> Value {
    let selection = ask(api, question).await;
    assert_eq!(selection.status, 200, "{}", selection.body);
    let done = ask(api, &json!({ "token": selection.json()["token"] })).await;
    assert_eq!(done.status, 200, "{}", done.body);
    done.json()
}

/// Whether a hit of this user passes.
async fn passes(json: &Client, user: &str) -> bool {
    let body = json!({ "domain": "shop", "descriptors": [{ "entries": [{ "key": "user", "value": user }] }] });
    json.post("/json", &[], &body.to_string()).await.status == 200
}

/// Hits until one is denied.
async fn exhaust(json: &Client, user: &str) {
    let denied = async { while passes(json, user).await {} };
    tokio::time::timeout(PATIENCE, denied).await.expect("it is denied");
}

#[tokio::test]
async fn a_dry_run_changes_nothing_and_its_token_resets_exactly_that_once() {
    let mut admin = Admin::start(true, &[]);
    exhaust(&admin.json, "mallory").await;
    exhaust(&admin.json, "alice").await;
    let selection = ask(&admin.api, &mallory()).await.json();
    assert_eq!(
        (&selection["counters"], &selection["used"], &selection["complete"]),
        (&1.into(), &3.into(), &true.into())
    );
    assert_eq!(selection["sample"][0]["descriptor"][0]["value"], "mallory");
    assert!(!passes(&admin.json, "mallory").await, "a dry run");
    let confirm = json!({ "token": selection["token"] });
    let done = ask(&admin.api, &confirm).await;
    assert_eq!(done.json(), json!({ "counters": 1, "hits": 3, "replicas_told": true }));
    assert!(passes(&admin.json, "mallory").await);
    assert!(!passes(&admin.json, "alice").await, "another key");
    assert_eq!(ask(&admin.api, &confirm).await.status, 409, "once");
    assert_eq!(ask(&admin.api, &json!({ "token": "0".repeat(32) })).await.status, 409);
    admin.server.process.wait_until("it is in the log", |process| {
        let log = process.log();
        let mut lines = log
            .lines()
            .filter(|line| line.contains("an operator has reset counters"));
        let line = lines.next().unwrap_or_default();
        ["127.0.0.1:", "domain=shop user=mallory", "hits_before"]
            .iter()
            .all(|part| line.contains(part))
    });
}

#[tokio::test]
async fn sixty_four_dry_runs_wait_and_the_one_that_is_displaced_is_told_why() {
    let admin = Admin::start(true, &[]);
    let select = async || json!({ "token": ask(&admin.api, &mallory()).await.json()["token"] });
    let displaced = select().await;
    let first = select().await;
    for _ in 0..63 {
        select().await;
    }
    assert_eq!(ask(&admin.api, &first).await.status, 200);
    let answer = ask(&admin.api, &displaced).await;
    assert_eq!(answer.status, 409);
    assert!(
        answer.body.contains("newer dry runs have displaced it"),
        "{}",
        answer.body
    );
}

#[tokio::test]
async fn what_cannot_be_reset_is_refused_with_the_reason() {
    let admin = Admin::start(true, &[]);
    let refused = async |question: Value| {
        let answer = ask(&admin.api, &question).await;
        (
            answer.status.as_u16(),
            answer.json()["detail"].as_str().expect("why").to_owned(),
        )
    };
    let by_rule = json!({ "domain": "shop", "rule": "user" });
    let (status, why) = refused(by_rule).await;
    assert!(
        status == 409 && why.contains("the memory store keeps no names"),
        "{why}"
    );
    for (question, part) in [
        (json!({ "domain": "shop", "rule": "a", "matc": 1 }), "field `matc`"),
        (json!({ "domain": "shop", "rule": "user", "from": "0" }), "from: "),
        (
            json!({ "domain": "shop", "rule": "user", "from": "9.0.0" }),
            "the rule has",
        ),
        (
            json!({ "token": "0".repeat(32), "domain": "shop" }),
            "unknown field `domain`",
        ),
        (json!({ "domain": "shop" }), "give a domain with entries"),
    ] {
        let (status, why) = refused(question).await;
        assert!(
            status == 400 && why.contains(part) && !why.contains("untagged"),
            "{why}"
        );
    }
    for (question, status) in [
        (
            json!({ "domain": "shop", "entries": [{ "key": "path", "value": "/free" }] }),
            404,
        ),
        (json!({ "domain": "shop", "entries": [{ "key": "nothing" }] }), 404),
        (json!({ "domain": "shop", "rule": "nothing" }), 404),
        (json!({ "domain": "shop", "rule": "path_/free" }), 404),
        (
            json!({ "domain": "shop", "rule": "user", "match": "*".repeat(33) }),
            400,
        ),
        (json!({ "domain": "shop", "entries": [] }), 400),
        (json!({ "token": "short" }), 400),
    ] {
        assert_eq!(refused(question.clone()).await.0, status, "{question}");
    }
}

#[tokio::test]
async fn nobody_resets_without_the_token_or_from_another_site() {
    let admin = Admin::start(true, &[]);
    exhaust(&admin.json, "mallory").await;
    let (right, wrong) = (format!("Bearer {TOKEN}"), format!("Bearer {}", TOKEN.to_uppercase()));
    let json = ("content-type", "application/json");
    let right = ("authorization", right.as_str());
    let refused: [(&[(&str, &str)], u16); 8] = [
        (&[json], 401),
        (&[json, ("authorization", &wrong)], 401),
        (&[json, ("host", "evil.example")], 403),
        (&[json, right, ("origin", "https://evil.example")], 403),
        (&[json, right, ("origin", "null")], 403),
        (&[json, right, ("sec-fetch-site", "cross-site")], 403),
        // What a form of another site can send.
        (&[right, ("content-type", "text/plain")], 415),
        (&[right], 415),
    ];
    for (headers, status) in refused {
        let answer = admin.api.post(RESET, headers, &mallory().to_string()).await;
        assert_eq!(answer.status.as_u16(), status, "{headers:?}");
    }
    let open = Admin::start(false, &[]);
    assert_eq!(open.api.post(RESET, &[json], &mallory().to_string()).await.status, 403);
    assert!(!passes(&admin.json, "mallory").await);
}

/// Replicas that share a Redis, each with what it takes to deny `mallory` by itself.
struct Replicas {
    redis: Redis,
    all: Vec<(Sluicegate, Client, Client)>,
    _token: tempfile::NamedTempFile,
}

impl Replicas {
    fn start(count: usize, arguments: &[&str]) -> Self {
        let redis = Redis::start();
        let (all, token) = servers(&redis.url(), count, arguments);
        Self {
            all,
            redis,
            _token: token,
        }
    }
}

/// Servers on this Redis, each with clients of its API and of `/json`, and the file of their token.
fn servers(
    url: &str,
    count: usize,
    arguments: &[&str],
) -> (Vec<(Sluicegate, Client, Client)>, tempfile::NamedTempFile) {
    let token = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(token.path(), TOKEN).expect("the token");
    let path = token.path().display().to_string();
    let mut all = vec!["--store", "redis", "--redis-url", url, "--admin-token-file", &path];
    // No call is late, however busy the machine.
    all.extend(["--on-store-error", "deny", "--store-timeout", "1s"]);
    all.extend(arguments);
    let rules = RULES.replace("requests_per_unit: 3", "requests_per_unit: 200");
    let rules = format!(
        "{rules}  - {{ key: ip, value_cidr: [10.0.0.0/8], rate_limit: {{ unit: hour, requests_per_unit: 5 }} }}
  - {{ key: ip, value: 10.9.9.9, rate_limit: {{ unit: hour, requests_per_unit: 5 }} }}
"
    );
    let start = |_| {
        let server = Sluicegate::start(&rules, &all);
        let (api, json) = (Client::new(server.admin_port), Client::new(server.http_port));
        (server, api, json)
    };
    ((0..count).map(start).collect(), token)
}

async fn passes_soon(json: &Client, user: &str) {
    let passed = async {
        while !passes(json, user).await {
            tokio::time::sleep(POLL).await;
        }
    };
    tokio::time::timeout(PATIENCE, passed).await.expect("it passes again");
}

/// The denials last an hour: nothing but the reset ends them.
#[tokio::test(flavor = "multi_thread")]
async fn four_replicas_let_a_key_through_again_with_and_without_leases() {
    for lease in ["false", "true"] {
        let replicas = Replicas::start(4, &["--lease", lease, "--deny-cache", "true"]);
        for (_, _, json) in &replicas.all {
            passes_soon(json, "alice").await;
            exhaust(json, "mallory").await;
        }
        let done = reset(&replicas.all[0].1, &mallory()).await;
        assert_eq!((&done["counters"], &done["replicas_told"]), (&1.into(), &true.into()));
        assert_eq!(done["hits"], 200);
        for (_, _, json) in &replicas.all {
            passes_soon(json, "mallory").await;
        }
        let left = async |json: &Client| {
            let mut left = 0;
            while passes(json, "mallory").await {
                left += 1;
            }
            left
        };
        assert!(left(&replicas.all[3].2).await <= 200, "the limit holds again");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn counters_of_a_rule_are_found_by_a_pattern() {
    let replicas = Replicas::start(1, &[]);
    let (_, api, json) = &replicas.all[0];
    passes_soon(json, "user-1").await;
    for user in (2..30)
        .map(|n| format!("user-{n}"))
        .chain(["[x]*".into(), "a|b=%".into()])
    {
        assert!(passes(json, &user).await);
    }
    let admin_seen =
        json!({ "domain": "shop", "descriptors": [{ "entries": [{ "key": "seen", "value": "user-1" }] }] });
    json.post("/json", &[], &admin_seen.to_string()).await;
    let count = async |pattern: &str| {
        let question = json!({ "domain": "shop", "rule": "user", "match": pattern });
        let selection = ask(api, &question).await.json();
        assert_eq!(selection["complete"], true, "{selection}");
        selection["counters"].as_u64().expect("a count")
    };
    assert_eq!(count("*").await, 31);
    assert_eq!(count("user=user-1*").await, 11);
    assert_eq!(count("user=user-1").await, 1);
    assert_eq!(count("user=[x]*").await, 1, "only * is special");
    assert_eq!(count("user=a%7Cb%3D%25").await, 1);
    assert_eq!(count("seen=*").await, 0, "another rule");
    // Addresses, in any spelling; what a rule of its own counts is that one's.
    for address in ["10.0.0.1", "::ffff:10.0.0.1", "10.9.9.9", "::ffff:10.9.9.9"] {
        let asked = json!({ "domain": "shop", "descriptors": [{ "entries": [{ "key": "ip", "value": address }] }] });
        json.post("/json", &[], &asked.to_string()).await;
    }
    for (rule, pattern) in [("ip_cidr(10.0.0.0/8)", "ip=10.*"), ("ip_10.9.9.9", "ip=10.9.9.9")] {
        let question = json!({ "domain": "shop", "rule": rule, "match": pattern });
        let done = reset(api, &question).await;
        assert_eq!((&done["counters"], &done["hits"]), (&1.into(), &2.into()), "{rule}");
    }
    let question = json!({ "domain": "shop", "rule": "user", "match": "user=user-1*" });
    let done = reset(api, &question).await;
    assert_eq!((&done["counters"], &done["hits"]), (&11.into(), &11.into()));
    let left = replicas.redis.cli(&["--scan", "--pattern", "sg:*shop|user=*"]);
    assert_eq!(left.lines().count(), 20, "{left}");
}

#[tokio::test(flavor = "multi_thread")]
async fn while_redis_is_away_a_reset_is_refused_and_says_so() {
    let mut replicas = Replicas::start(1, &[]);
    let Replicas { all, redis, .. } = &mut replicas;
    let (_, api, json) = &all[0];
    passes_soon(json, "mallory").await;
    let selection = ask(api, &mallory()).await;
    assert_eq!(selection.status, 200, "{}", selection.body);
    let selection = selection.json();
    redis.kill();
    let refused = async |question: &Value| {
        let answer = ask(api, question).await;
        let why = answer.json()["detail"].as_str().expect("why").to_owned();
        assert!(
            answer.status == 503 && why.contains("cannot reset counters now"),
            "{why}"
        );
        why
    };
    let why = refused(&json!({ "token": selection["token"] })).await;
    assert!(why.contains("0 of 1 counters were reset"), "{why}");
    refused(&mallory()).await;
    refused(&json!({ "domain": "shop", "rule": "user" })).await;
    redis.restart();
    passes_soon(json, "mallory").await;
    let done = reset(api, &mallory()).await;
    assert_eq!(done["counters"], 1);
}

/// The line of the log says what is known, and the token is not lost.
#[tokio::test(flavor = "multi_thread")]
async fn a_reset_whose_answer_does_not_come_says_so_and_is_repeated_with_its_token() {
    let mut replicas = Replicas::start(1, &[]);
    let Replicas { all, redis, .. } = &mut replicas;
    let (server, api, json) = &mut all[0];
    passes_soon(json, "mallory").await;
    let confirm = json!({ "token": ask(api, &mallory()).await.json()["token"] });
    assert_eq!(redis.cli(&["CLIENT", "PAUSE", "2500", "ALL"]), "OK");
    let answer = ask(api, &confirm).await;
    let why = answer.json()["detail"].as_str().expect("why").to_owned();
    assert!(
        answer.status == 503 && why.contains("0 of 1 counters were reset; whether 1 more were is unknown"),
        "{why}"
    );
    server.process.wait_until("the log says so", |process| {
        let log = process.log();
        let mut lines = log
            .lines()
            .filter(|line| line.contains("an operator's reset has failed"));
        let line = lines.next().unwrap_or_default();
        assert!(!log.contains("an operator has reset counters"), "{log}");
        line.contains("its outcome is unknown") && line.contains("unknown=1")
    });
    let repeated = async {
        loop {
            let answer = ask(api, &confirm).await;
            if answer.status == 200 {
                return answer.json();
            }
            tokio::time::sleep(POLL).await;
        }
    };
    let done = tokio::time::timeout(PATIENCE, repeated).await.expect("it is reset");
    assert_eq!(done["counters"], 1);
    assert_eq!(ask(api, &confirm).await.status, 409, "once");
}

/// The sentinels are made to wait, so that what is asked meanwhile is asked in the midst of the failover, however busy the
/// machine.
#[tokio::test(flavor = "multi_thread")]
async fn while_redis_fails_over_a_reset_is_refused_and_then_made_at_the_new_master() {
    let mut pair = Sentinel::start();
    let (servers, _token) = servers(&pair.url(), 1, &["--deny-cache", "true"]);
    let (_, api, json) = &servers[0];
    passes_soon(json, "alice").await;
    exhaust(json, "mallory").await;
    let selection = ask(api, &mallory()).await.json();
    assert_eq!(selection["used"], 200, "{selection}");
    assert_eq!(pair.master.cli(&["WAIT", "1", "30000"]), "1");

    pair.hold_back(true);
    pair.master.kill();
    let by_rule = json!({ "domain": "shop", "rule": "user" });
    for question in [json!({ "token": selection["token"] }), by_rule] {
        let answer = ask(api, &question).await;
        let why = answer.json()["detail"].as_str().expect("why").to_owned();
        assert_eq!(answer.status, 503, "{why}");
        assert!(why.contains("the store cannot reset counters now"), "{why}");
    }
    pair.hold_back(false);

    passes_soon(json, "alice").await;
    assert!(pair.replica.cli(&["ROLE"]).starts_with("master"));
    assert!(!passes(json, "mallory").await, "the new master knows the count");
    let done = reset(api, &mallory()).await;
    assert_eq!((&done["counters"], &done["hits"]), (&1.into(), &200.into()));
    passes_soon(json, "mallory").await;
}
