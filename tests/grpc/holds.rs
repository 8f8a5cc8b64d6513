//! Holds over the wire: what an answer tells of them, and what settles them.

use std::time::Duration;

use prost::Message as _;
use prost_types::{Struct, value::Kind};
use sluicegate::config::settings::{RedisSettings, Settings, StoreKind};
use sluicegate::proto::envoy::service::ratelimit::v3 as wire;
use sluicegate::rules::OnStoreError;
use wire::rate_limit_response::Code;

use crate::server::{Server, request};
use crate::support::redis::Redis;

/// Rules with holds of each kind.
pub const RULES: &str = "
domain: llm
descriptors:
  - key: user
    rate_limit: {name: user, unit: hour, requests_per_unit: 1000, hold: {ttl: 10m}}
  - key: team
    rate_limit: {name: team, unit: hour, requests_per_unit: 600, algorithm: token_bucket, hold: {ttl: 10m}}
  - key: gateway
    rate_limit: {name: gateway, unit: hour, requests_per_unit: 1000, hold: {ttl: 10m, adaptive: {first: 250}}}
  - key: open
    on_store_error: allow
    rate_limit: {name: open, unit: hour, requests_per_unit: 1000, hold: {ttl: 10m}}
  - key: plain
    rate_limit: {name: plain, unit: hour, requests_per_unit: 100}
  - key: inflight
    rate_limit: {name: inflight, unit: hour, requests_per_unit: 2, algorithm: concurrency, hold: {}}
  - key: rate
    rate_limit: {unit: hour, requests_per_unit: 1}
  - key: smooth
    rate_limit: {unit: minute, requests_per_unit: 1, algorithm: leaky_bucket, max_delay: 60s}
";

/// What an answer says: whether it passes, what remains by its first status, and its hold.
#[derive(Debug, Clone, PartialEq)]
pub struct Told {
    pub passes: bool,
    pub remaining: u32,
    hold: Option<u64>,
    pub id: Option<String>,
    retry_after: Option<String>,
}

fn told(response: &wire::RateLimitResponse) -> Told {
    let all = Struct::decode(response.dynamic_metadata.as_slice()).expect("a Struct");
    let ours = match all.fields.get("sluicegate").and_then(|value| value.kind.clone()) {
        Some(Kind::StructValue(ours)) => ours,
        _ => Struct::default(),
    };
    let field = |name: &str| ours.fields.get(name).and_then(|value| value.kind.clone());
    let header = |name: &str| {
        let mut headers = response.response_headers_to_add.iter();
        headers
            .find(|header| header.key == name)
            .map(|header| header.value.clone())
    };
    Told {
        passes: response.overall_code == i32::from(Code::Ok),
        remaining: response.statuses[0].limit_remaining,
        hold: match field("hold") {
            Some(Kind::NumberValue(number)) => Some(number as u64),
            _ => None,
        },
        id: match field("hold_id") {
            Some(Kind::StringValue(id)) => Some(id),
            _ => None,
        },
        retry_after: header("retry-after"),
    }
}

/// A request of these keys with their hits; with `id` it settles.
fn costing(costs: &[(&str, u64)], id: Option<&str>) -> wire::RateLimitRequest {
    let entries: Vec<Vec<(&str, &str)>> = costs
        .iter()
        .map(|(key, _)| {
            [(*key, "x")]
                .into_iter()
                .chain(id.map(|id| ("sluicegate_hold", id)))
                .collect()
        })
        .collect();
    let entries: Vec<&[(&str, &str)]> = entries.iter().map(Vec::as_slice).collect();
    let mut request = request("llm", &entries);
    for (descriptor, (_, hits)) in request.descriptors.iter_mut().zip(costs) {
        descriptor.hits_addend = Some(*hits);
    }
    request
}

async fn ask(server: &Server, request: wire::RateLimitRequest) -> Told {
    let answer = server.client().await.should_rate_limit(request).await;
    told(&answer.expect("answered").into_inner())
}

/// Asks for hits, which are held where the rule holds.
pub async fn hold(server: &Server, costs: &[(&str, u64)]) -> Told {
    ask(server, costing(costs, None)).await
}

/// Settles a hold.
pub async fn settle(server: &Server, costs: &[(&str, u64)], id: &str) -> Told {
    ask(server, costing(costs, Some(id))).await
}

/// What is left by a question.
pub async fn left(server: &Server, key: &str) -> u32 {
    hold(server, &[(key, 0)]).await.remaining
}

#[tokio::test]
async fn a_burst_passes_as_far_as_its_estimates_fit_and_settles_by_its_costs() {
    let server = Server::start(RULES).await;
    let mut ids = Vec::new();
    for number in 0..20 {
        let told = hold(&server, &[("user", 500)]).await;
        assert_eq!(told.passes, number < 2);
        match told.id {
            Some(id) => {
                assert_eq!((told.hold, id.len()), (Some(500), 32));
                ids.push(id);
            }
            None => assert_eq!((told.hold, told.retry_after.as_deref()), (None, Some("1"))),
        }
    }
    assert_ne!(ids[0], ids[1]);
    settle(&server, &[("user", 450)], &ids[0]).await;
    assert_eq!(left(&server, "user").await, 50);
    // Again: nothing. By an id of no hold, of another rule's, of none: in full.
    settle(&server, &[("user", 450)], &ids[0]).await;
    assert_eq!(left(&server, "user").await, 50);
    settle(&server, &[("user", 0)], &ids[1]).await;
    assert_eq!(left(&server, "user").await, 550);
    let other = hold(&server, &[("team", 100)]).await.id.expect("a hold");
    for id in [
        other.as_str(),
        "none",
        "",
        "00000000000000000000000000000000",
        &"x".repeat(5000),
    ] {
        settle(&server, &[("user", 10)], id).await;
    }
    assert_eq!(left(&server, "user").await, 500);
    assert_eq!(left(&server, "team").await, 500, "its hold stands");
    server.stop().await;
}

#[tokio::test]
async fn several_held_rules_are_all_or_nothing_by_one_id() {
    let server = Server::start(RULES).await;
    let both = hold(&server, &[("user", 700), ("team", 500)]).await;
    assert_eq!((both.passes, both.hold), (true, Some(700)));
    let denied = hold(&server, &[("user", 100), ("team", 200)]).await;
    assert_eq!((denied.passes, denied.hold, denied.id), (false, None, None));
    // Whatever denies: a rule without holds does, too.
    hold(&server, &[("rate", 1)]).await;
    assert!(!hold(&server, &[("user", 100), ("rate", 1)]).await.passes);
    assert_eq!((left(&server, "user").await, left(&server, "team").await), (300, 100));
    let id = both.id.expect("a hold");
    settle(&server, &[("user", 650), ("team", 20)], &id).await;
    assert_eq!((left(&server, "user").await, left(&server, "team").await), (350, 580));
    // Two descriptors may charge one counter by one hold: input and output tokens.
    let id = hold(&server, &[("user", 300)]).await.id.expect("a hold");
    settle(&server, &[("user", 100), ("user", 50)], &id).await;
    assert_eq!(left(&server, "user").await, 200);
    server.stop().await;
}

#[tokio::test]
async fn bad_input_is_charged_and_never_free() {
    let server = Server::start(RULES).await;
    // An estimate above the limit passes alone and holds what is left.
    let huge = hold(&server, &[("user", 1_000_000_000_000)]).await;
    assert_eq!((huge.passes, huge.hold), (true, Some(1000)));
    assert!(!hold(&server, &[("user", 1)]).await.passes);
    let id = huge.id.expect("a hold");
    // The sign of what settles is not asked.
    let mut negative = costing(&[("user", 400)], Some(&id));
    negative.descriptors[0].is_negative_hits = true;
    ask(&server, negative).await;
    assert_eq!(left(&server, "user").await, 600);
    let mut negative = costing(&[("user", 100)], Some("none"));
    negative.descriptors[0].is_negative_hits = true;
    ask(&server, negative).await;
    assert_eq!(left(&server, "user").await, 500);
    // A rule without holds: what has happened is charged, fit or not.
    settle(&server, &[("plain", 60)], &id).await;
    settle(&server, &[("plain", 60)], "none").await;
    assert!(!hold(&server, &[("plain", 1)]).await.passes);
    // With nothing to charge it is no question that could be denied.
    assert!(settle(&server, &[("plain", 0)], "none").await.passes);
    // More than any counter holds.
    settle(&server, &[("user", u64::MAX)], "none").await;
    let over = hold(&server, &[("user", 1)]).await;
    assert_eq!((over.passes, over.remaining), (false, 0));
    assert_ne!(
        over.retry_after.as_deref(),
        Some("1"),
        "what is used is in the way, not a hold"
    );
    server.stop().await;
}

#[tokio::test]
async fn a_permit_is_a_hold_that_its_id_frees() {
    let server = Server::start(RULES).await;
    let one = hold(&server, &[("inflight", 1)]).await.id.expect("a permit");
    let two = hold(&server, &[("inflight", 1)]).await.id.expect("a permit");
    // Denied: it has no id, and its end frees nothing, however often it comes.
    let denied = hold(&server, &[("inflight", 1)]).await;
    assert_eq!((denied.passes, denied.id), (false, None));
    settle(&server, &[("inflight", 0)], "none").await;
    assert!(!hold(&server, &[("inflight", 1)]).await.passes);
    for _ in 0..3 {
        settle(&server, &[("inflight", 0)], &one).await;
    }
    assert!(hold(&server, &[("inflight", 1)]).await.passes);
    assert!(!hold(&server, &[("inflight", 1)]).await.passes);
    // Whatever number comes with it.
    settle(&server, &[("inflight", 1)], &two).await;
    assert!(hold(&server, &[("inflight", 1)]).await.passes);
    server.stop().await;
}

/// The caller leaves while its answer is held back: nobody will ever settle its hold.
#[tokio::test]
async fn a_caller_that_leaves_before_the_answer_holds_nothing() {
    let server = Server::start(RULES).await;
    assert!(hold(&server, &[("smooth", 1)]).await.passes);
    let mut client = server.client().await;
    // All or nothing: what holds for the one holds for the other.
    let leaving = costing(&[("user", 900), ("gateway", 0), ("smooth", 1)], None);
    let waiting = tokio::spawn(async move { client.should_rate_limit(leaving).await });
    let start = std::time::Instant::now();
    let patience = Duration::from_secs(30);
    while left(&server, "user").await != 100 {
        assert!(start.elapsed() < patience, "nothing was ever held");
    }
    assert!(!waiting.is_finished(), "its turn is a minute away");
    waiting.abort();
    while left(&server, "user").await != 1000 {
        assert!(start.elapsed() < patience, "the hold never went");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    // So has the one without a name: four of 250 find room.
    for number in 0..5 {
        assert_eq!(hold(&server, &[("gateway", 0)]).await.passes, number < 4, "{number}");
    }
    server.stop().await;
}

/// Two replicas, one Redis: whoever is asked knows the hold, and that it was settled.
#[tokio::test(flavor = "multi_thread")]
async fn a_hold_of_one_replica_is_settled_by_another() {
    let redis = tokio::task::block_in_place(Redis::start);
    let shared = |settings: &mut Settings| {
        settings.store.kind = StoreKind::Redis;
        settings.store.redis = Some(RedisSettings::from_url(&redis.url()).expect("a URL"));
        settings.store.timeout = Duration::from_secs(5);
        settings.store.on_store_error = OnStoreError::Deny;
    };
    let one = Server::start_with(RULES, shared).await;
    let two = Server::start_with(RULES, shared).await;
    // Until a replica has its connection, nothing passes.
    let start = std::time::Instant::now();
    for replica in [&one, &two] {
        while !hold(replica, &[("user", 0)]).await.passes {
            assert!(start.elapsed() < Duration::from_secs(30), "no connection");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
    let id = hold(&one, &[("user", 600), ("team", 600)]).await.id.expect("a hold");
    let denied = hold(&two, &[("user", 500)]).await;
    assert_eq!(
        (denied.passes, denied.remaining, denied.retry_after.as_deref()),
        (false, 0, Some("1"))
    );
    settle(&two, &[("user", 100), ("team", 100)], &id).await;
    for replica in [&one, &two] {
        settle(replica, &[("user", 100), ("team", 100)], &id).await;
        assert_eq!((left(replica, "user").await, left(replica, "team").await), (900, 500));
    }
    // No denial by a hold was kept.
    assert!(hold(&two, &[("user", 500)]).await.passes);
    one.stop().await;
    two.stop().await;
}

/// What agentgateway, Agent Router and Kuadrant's wasm-shim send: a question without a number of its own or with 0, and a charge
/// by the descriptor or by the request.
#[tokio::test]
async fn a_cost_is_charged_whichever_field_brings_it() {
    for (user, question, charge) in [
        // agentgateway: by the descriptor, and always one.
        ("agentgateway", (Some(0), 0), (Some(500), 0)),
        // Agent Router: none of its own before the request.
        ("router", (None, 0), (Some(500), 0)),
        // wasm-shim: by the request, which says 1 where it asks.
        ("shim", (None, 1), (None, 500)),
    ] {
        let server = Server::start(RULES).await;
        let call = async |(own, of_all): (Option<u64>, u32)| {
            let mut request = request("llm", &[&[("gateway", user)]]);
            (request.descriptors[0].hits_addend, request.hits_addend) = (own, of_all);
            ask(&server, request).await
        };
        let mut passed = 0;
        for _ in 0..20 {
            passed += u64::from(call(question).await.passes);
        }
        assert_eq!(passed, 4, "{user}: each holds the first estimate of 250");
        for _ in 0..2 {
            call(charge).await;
        }
        let denied = call(question).await;
        assert_eq!((denied.passes, denied.remaining), (false, 0), "{user}");
        server.stop().await;
    }
}

/// A gateway that checks with 0 and charges later, and carries no id: the first burst passes by the estimate of the rule, the
/// second by what requests have cost.
#[tokio::test]
async fn a_question_holds_what_requests_cost_on_average() {
    let server = Server::start(RULES).await;
    let burst = async |user: &str, of: u64| {
        let asked = || {
            let mut request = request("llm", &[&[("gateway", user)]]);
            request.descriptors[0].hits_addend = Some(0);
            request
        };
        let mut passed = 0;
        for _ in 0..20 {
            passed += u64::from(ask(&server, asked()).await.passes);
        }
        for _ in 0..passed {
            let mut charge = asked();
            charge.descriptors[0].hits_addend = Some(of);
            ask(&server, charge).await;
        }
        passed
    };
    assert_eq!(burst("anna", 500).await, 4, "a first estimate of 250");
    assert_eq!(burst("ben", 500).await, 2, "they cost 500");
    // Nothing is left, and nothing is held any more.
    let denied = ask(&server, request("llm", &[&[("gateway", "ben")]])).await;
    assert_eq!((denied.passes, denied.remaining), (false, 0));
    assert_ne!(denied.retry_after.as_deref(), Some("1"));
    server.stop().await;
}
