//! Several limits on one descriptor over the wire: all or nothing, and who says what of them.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use prost::Message as _;
use prost_types::{Struct, value::Kind};
use sluicegate::config::settings::{LimitHeaders, RedisSettings, Settings, StoreKind};
use sluicegate::config::{Text, load};
use sluicegate::engine::{Engine, EngineOptions};
use sluicegate::model::time::SECOND_US;
use sluicegate::model::{Calendar, Clock, Descriptor, Entry, ManualClock, MonotonicClock, Request, Unit, Zone};
use sluicegate::proto::envoy::service::ratelimit::v3 as wire;
use sluicegate::rules::{Defaults, OnStoreError};
use sluicegate::store::MemoryStore;
use sluicegate::telemetry::Metrics;
use wire::rate_limit_response::Code;

use crate::server::{Server, request};
use crate::support::process::{PATIENCE, POLL};
use crate::support::redis::Redis;

const RULES: &str = "
domain: edge
descriptors:
  - key: user
    rate_limits:
      - { name: per-minute, requests_per_unit: 4, unit: minute }
      - { name: per-day, requests_per_unit: 6, unit: day }
      - { requests_per_unit: 100, unit: month, algorithm: token_bucket }
  - key: hidden
    rate_limits:
      - { name: abuse, requests_per_unit: 2, unit: minute, headers: false, body: false }
      - { name: quota, requests_per_unit: 4, unit: day }
  - key: silent
    rate_limit: { name: trap, requests_per_unit: 1, unit: hour, headers: false, body: false }
  - key: soft
    rate_limits:
      - { name: 'near, it', requests_per_unit: 2, unit: day, on_limit: mark }
      - { name: hard, requests_per_unit: 3, unit: day }
  - key: contract
    rate_limit: { name: monthly, requests_per_unit: 4, window: { calendar: month, time_zone: Asia/Tokyo } }
  - key: eight
    rate_limits: [{ requests_per_unit: 10, window: 1h }, { requests_per_unit: 9, window: 2h }, { requests_per_unit: 8, window: 3h },
                  { requests_per_unit: 7, window: 4h }, { requests_per_unit: 6, window: 5h }, { requests_per_unit: 5, window: 6h },
                  { requests_per_unit: 4, window: 7h }, { requests_per_unit: 3, window: 8h }]
  - key: ready
    rate_limit: { requests_per_unit: 1000000, unit: minute }
  - key: work
    rate_limits:
      - { name: in-flight, requests_per_unit: 2, window: 1h, algorithm: concurrency }
      - { name: per-hour, requests_per_unit: 3, unit: hour }
";

/// Number of the limit in the only status, what it says is left, and the code.
fn status(response: &wire::RateLimitResponse) -> (u32, u32, Code) {
    let [status] = &response.statuses[..] else {
        panic!("one status a descriptor: {response:?}");
    };
    let limit = status.current_limit.as_ref().expect("a limit");
    (limit.requests_per_unit, status.limit_remaining, status.code())
}

async fn ask(server: &Server, key: &str, hits: u64) -> wire::RateLimitResponse {
    let mut request = request("edge", &[&[(key, "x")]]);
    request.descriptors[0].hits_addend = Some(hits);
    let answer = server.client().await.should_rate_limit(request).await;
    answer.expect("answered").into_inner()
}

fn header(response: &wire::RateLimitResponse, name: &str) -> Option<String> {
    let mut headers = response.response_headers_to_add.iter();
    headers
        .find(|header| header.key == name)
        .map(|header| header.value.clone())
}

/// `sluicegate.<name>` of the dynamic metadata, as texts.
fn told(response: &wire::RateLimitResponse, name: &str) -> Vec<String> {
    let all = Struct::decode(response.dynamic_metadata.as_slice()).expect("a Struct");
    let Some(Kind::StructValue(ours)) = all.fields.get("sluicegate").and_then(|value| value.kind.clone()) else {
        return Vec::new();
    };
    let text = |kind: Option<Kind>| match kind {
        Some(Kind::StringValue(text)) => vec![text],
        _ => Vec::new(),
    };
    match ours.fields.get(name).and_then(|value| value.kind.clone()) {
        Some(Kind::ListValue(list)) => list.values.into_iter().flat_map(|value| text(value.kind)).collect(),
        kind => text(kind),
    }
}

/// Spends four a minute, then two more a day, and looks at each answer.
async fn all_or_nothing(server: &Server) {
    for left in [3, 2] {
        assert_eq!(status(&ask(server, "user", 1).await), (4, left, Code::Ok));
    }
    // More than a minute has left, and not more than a day has: neither counts it.
    let denied = ask(server, "user", 3).await;
    assert_eq!(status(&denied), (4, 0, Code::OverLimit));
    assert_eq!(told(&denied, "violated"), ["per-minute"]);
    let peek = ask(server, "user", 0).await;
    assert_eq!(status(&peek), (4, 2, Code::Ok));
    assert_eq!(
        header(&peek, "ratelimit-policy").as_deref(),
        Some(r#""per-minute";q=4;w=60, "per-day";q=6;w=86400, "limit-3";q=100;w=2592000"#)
    );
    let state = header(&peek, "ratelimit").expect("a state");
    assert!(
        state.contains(r#""per-minute";r=2;"#) && state.contains(r#""per-day";r=4;"#),
        "{state}"
    );
    assert!(state.contains(r#""limit-3";r=98;"#), "{state}");
    // Both deny: the one that lasts longest answers, and all are named.
    let denied = ask(server, "user", 5).await;
    assert_eq!(status(&denied).2, Code::OverLimit);
    assert_eq!(told(&denied, "violated"), ["per-minute", "per-day"]);
    let body: serde_json::Value = serde_json::from_slice(&denied.raw_body).expect("JSON");
    let names: Vec<&str> = body["violated-policies"]
        .as_array()
        .expect("a list")
        .iter()
        .filter_map(|policy| policy["name"].as_str())
        .collect();
    assert_eq!(names, ["per-minute", "per-day"]);
}

/// What is given back are permits alone where a limit of permits stands beside others.
async fn permits_come_back_alone(server: &Server) {
    for _ in 0..2 {
        assert_eq!(ask(server, "work", 1).await.overall_code(), Code::Ok);
    }
    let denied = ask(server, "work", 1).await;
    assert_eq!(told(&denied, "violated"), ["in-flight"]);
    let mut release = request("edge", &[&[("work", "x")]]);
    release.descriptors[0].hits_addend = Some(1);
    release.descriptors[0].is_negative_hits = true;
    let mut client = server.client().await;
    let released = client.should_rate_limit(release).await.expect("answered").into_inner();
    assert_eq!(released.overall_code(), Code::Ok);
    assert_eq!(ask(server, "work", 1).await.overall_code(), Code::Ok);
    let denied = ask(server, "work", 1).await;
    assert_eq!(told(&denied, "violated"), ["in-flight", "per-hour"]);
}

/// A month is as long as it is, and everything counts to its end.
async fn a_month_of_a_calendar(server: &Server) {
    let zone = Zone::named("Asia/Tokyo").expect("a zone");
    let calendar = Calendar::new(Unit::Month, zone).expect("a month");
    let month = calendar.window_at(MonotonicClock::new().now_us());
    let passed = ask(server, "contract", 4).await;
    assert_eq!(status(&passed), (4, 0, Code::Ok));
    let denied = ask(server, "contract", 1).await;
    let policy = header(&denied, "ratelimit-policy").expect("a policy");
    assert_eq!(policy, format!("\"monthly\";q=4;w={}", month.end_s - month.start_s));
    let limit = denied.statuses[0].current_limit.as_ref().expect("a limit");
    assert_eq!(limit.unit(), wire::rate_limit_response::rate_limit::Unit::Month);
    let until = denied.statuses[0].duration_until_reset.as_ref().expect("a time");
    let left_s = month.end_s.saturating_sub(MonotonicClock::new().now_us() / SECOND_US);
    // Minutes for a machine that stands still, and not the hours that another zone would be off.
    assert!(
        u64::try_from(until.seconds).expect("ahead").abs_diff(left_s) < 600,
        "{until:?}, {left_s} s"
    );
}

/// Nothing that a client sees tells of a hidden limit; what operators see does.
async fn hidden_limits_deny_in_silence(server: &Server) {
    let is_told = |response: &wire::RateLimitResponse, name: &str| {
        let headers: String = response
            .response_headers_to_add
            .iter()
            .map(|header| format!("{header:?}"))
            .collect();
        headers.contains(name) || String::from_utf8_lossy(&response.raw_body).contains(name)
    };
    for left in [3, 2] {
        let passed = ask(server, "hidden", 1).await;
        assert_eq!(status(&passed), (4, left, Code::Ok));
        assert!(is_told(&passed, "quota") && !is_told(&passed, "abuse"), "{passed:?}");
    }
    let denied = ask(server, "hidden", 1).await;
    assert_eq!(
        (denied.overall_code(), denied.statuses[0].code()),
        (Code::OverLimit, Code::OverLimit)
    );
    assert_eq!(
        (
            &denied.statuses[0].current_limit,
            &denied.statuses[0].duration_until_reset
        ),
        (&None, &None)
    );
    assert_eq!(
        (header(&denied, "retry-after"), is_told(&denied, "abuse")),
        (None, false)
    );
    let body: serde_json::Value = serde_json::from_slice(&denied.raw_body).expect("JSON");
    assert_eq!(
        (&body["violated-policies"], &body["detail"]),
        (&serde_json::json!([]), &"Over a rate limit.".into())
    );
    assert_eq!(body.get("retry-after"), None);
    assert_eq!(told(&denied, "violated"), ["abuse"]);
    // Where one that is told denies, too, it answers.
    let both = ask(server, "hidden", 3).await;
    assert_eq!(status(&both), (4, 0, Code::OverLimit));
    assert!(
        header(&both, "retry-after").is_some() && is_told(&both, "quota") && !is_told(&both, "abuse"),
        "{both:?}"
    );
    ask(server, "silent", 1).await;
    let denied = ask(server, "silent", 1).await;
    assert_eq!(
        (denied.overall_code(), denied.statuses[0].limit_remaining),
        (Code::OverLimit, 0)
    );
    let names: Vec<&str> = denied
        .response_headers_to_add
        .iter()
        .map(|header| header.key.as_str())
        .collect();
    assert_eq!(names, ["content-type"], "{denied:?}");
}

fn for_upstream(response: &wire::RateLimitResponse) -> Vec<(&str, &str)> {
    let headers = response.request_headers_to_add.iter();
    headers
        .map(|header| (header.key.as_str(), header.value.as_str()))
        .collect()
}

/// What is over a soft limit passes, and the upstream is told.
async fn soft_limits_mark(server: &Server) {
    // The soft one has the least share left, so that it answers.
    for left in ["1", "0"] {
        let passed = ask(server, "soft", 1).await;
        assert_eq!(for_upstream(&passed)[1], ("X-Left", left), "{passed:?}");
        assert_eq!(for_upstream(&passed).len(), 3, "{passed:?}");
    }
    let marked = ask(server, "soft", 1).await;
    assert_eq!(marked.overall_code(), Code::Ok);
    assert_eq!(for_upstream(&marked)[3], ("x-ratelimit-over", "near__it"), "{marked:?}");
    let denied = ask(server, "soft", 1).await;
    assert_eq!(denied.overall_code(), Code::OverLimit);
    assert_eq!(told(&denied, "violated"), ["hard"]);
}

#[tokio::test]
async fn hidden_and_soft_limits_tell_whom_they_should() {
    let server = Server::start_with(RULES, |settings| {
        ietf(settings);
        settings.answers.request_limit_headers = Some(LimitHeaders {
            remaining: "X-Left".into(),
            ..LimitHeaders::default()
        });
    })
    .await;
    hidden_limits_deny_in_silence(&server).await;
    soft_limits_mark(&server).await;
    server.stop().await;
}

fn ietf(settings: &mut Settings) {
    settings.answers.ietf_headers = true;
}

#[tokio::test]
async fn limits_are_taken_together_or_not_at_all_in_memory() {
    let server = Server::start_with(RULES, ietf).await;
    all_or_nothing(&server).await;
    permits_come_back_alone(&server).await;
    a_month_of_a_calendar(&server).await;
    eight_limits(&server).await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_are_taken_together_or_not_at_all_in_redis() {
    let redis = tokio::task::block_in_place(Redis::start);
    let server = Server::start_with(RULES, |settings| {
        ietf(settings);
        settings.store.kind = StoreKind::Redis;
        settings.store.redis = Some(RedisSettings::from_url(&redis.url()).expect("a URL"));
        settings.store.timeout = Duration::from_secs(5);
        settings.store.on_store_error = OnStoreError::Deny;
    })
    .await;
    // Until the connection is there, nothing passes.
    let start = std::time::Instant::now();
    while ask(&server, "ready", 1).await.overall_code() != Code::Ok {
        assert!(start.elapsed() < PATIENCE, "no connection");
        tokio::time::sleep(POLL).await;
    }
    all_or_nothing(&server).await;
    permits_come_back_alone(&server).await;
    a_month_of_a_calendar(&server).await;
    eight_limits(&server).await;
    server.stop().await;
}

/// The most limits that a list may have: what the last one denies takes nothing from the seven before.
async fn eight_limits(server: &Server) {
    let mut told = Vec::new();
    for hits in [1, 1, 2, 1, 1] {
        told.push(status(&ask(server, "eight", hits).await));
    }
    let expected = [(2, true), (1, true), (0, false), (0, true), (0, false)];
    let code = |passes| if passes { Code::Ok } else { Code::OverLimit };
    assert_eq!(told, expected.map(|(left, passes)| (3, left, code(passes))));
}

/// The limits of the property below: hits and seconds.
fn list() -> impl Strategy<Value = Vec<(u32, u32, usize)>> {
    proptest::collection::vec((1_u32..8, 1_u32..40, 0_usize..3), 1..9).prop_map(|mut limits| {
        limits.sort_by_key(|(_, seconds, kind)| (*seconds, *kind));
        limits.dedup_by_key(|(_, seconds, kind)| (*seconds, *kind));
        limits
    })
}

const KINDS: [&str; 3] = ["sliding_window", "token_bucket", "fixed_window"];

fn engine(rules: &str, clock: &Arc<ManualClock>) -> Engine {
    let now: Arc<dyn Clock> = clock.clone();
    let keys = NonZeroUsize::new(1000).expect("not zero");
    let store = Arc::new(MemoryStore::new(keys, Arc::clone(&now)));
    let metrics = Arc::new(Metrics::new().expect("metrics"));
    let engine = Engine::new(store, None, EngineOptions::default(), now, metrics);
    let text = Text {
        name: "rules.yaml".into(),
        text: rules.into(),
    };
    engine.activate(Arc::new(load(&[text], &Defaults::default()).expect("rules")), 1);
    engine
}

fn asked(keys: &[String], hits: u32) -> Request {
    let descriptor = |key: &String| Descriptor {
        entries: vec![Entry {
            key: key.clone(),
            value: "x".to_owned(),
        }],
        ..Descriptor::default()
    };
    Request {
        domain: "d".to_owned(),
        descriptors: keys.iter().map(descriptor).collect(),
        hits_addend: hits,
        releases_all: false,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    /// Several limits on a descriptor decide as the same limits on a descriptor each, in one request.
    #[test]
    fn a_list_decides_as_descriptors_of_one_limit_each(
        limits in list(),
        steps in proptest::collection::vec((0_u64..9_000_000, 1_u32..5), 1..40),
    ) {
        let written = |(hits, seconds, kind): &(u32, u32, usize)| {
            format!("{{requests_per_unit: {hits}, window: {seconds}s, algorithm: {}}}", KINDS[*kind])
        };
        let all: Vec<String> = limits.iter().map(written).collect();
        let together = format!("domain: d\ndescriptors:\n  - key: k\n    rate_limits: [{}]\n", all.join(", "));
        let keys: Vec<String> = (0..limits.len()).map(|number| format!("k{number}")).collect();
        let apart: String = keys.iter().zip(&all).map(|(key, limit)| format!("  - {{key: {key}, rate_limit: {limit}}}\n")).collect();
        let apart = format!("domain: d\ndescriptors:\n{apart}");
        let clock = Arc::new(ManualClock::new(1_000_000_123_456));
        let (one, other) = (engine(&together, &clock), engine(&apart, &clock));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        for (pause_us, hits) in steps {
            clock.advance(pause_us);
            let (of_list, of_each) = runtime.block_on(async {
                let of_list = one.decide(&asked(&["k".to_owned()], hits), None).await.expect("decided");
                (of_list, other.decide(&asked(&keys, hits), None).await.expect("decided"))
            });
            prop_assert_eq!(of_list.over_limit, of_each.over_limit);
            prop_assert_eq!(of_list.retry_after_us(), of_each.retry_after_us());
            let shown = |decision: &sluicegate::engine::Decision| -> Vec<(bool, String)> {
                decision.statuses.iter().map(|status| (status.over_limit, format!("{:?}", status.limit))).collect()
            };
            // All but the number of the rule is the same.
            let plain = |shown: Vec<(bool, String)>| -> Vec<(bool, String)> {
                shown.into_iter().map(|(over, limit)| (over, limit.split_once("requests_per_unit").map_or(limit.clone(), |(_, rest)| rest.to_owned()))).collect()
            };
            prop_assert_eq!(plain(shown(&of_list)), plain(shown(&of_each)));
            prop_assert_eq!(of_list.reported().count(), 1);
        }
    }
}
