//! What an answer says of `concurrency` slots: Envoy gives back by it, so it must say exactly what was taken.

use std::time::Duration;

use prost::Message as _;
use prost_types::{Struct, value::Kind};
use sluicegate::config::settings::{RedisSettings, Settings, StoreKind};
use sluicegate::engine::PERMIT_TAG;
use sluicegate::proto::envoy::service::ratelimit::v3 as wire;
use sluicegate::rules::OnStoreError;

use crate::server::{Server, request};

const RULES: &str = "
domain: edge
descriptors:
  - key: host
    rate_limit: {name: host, algorithm: concurrency, window: 1h, requests_per_unit: 2}
  - key: user
    rate_limit: {name: user, algorithm: concurrency, window: 1h, requests_per_unit: 5}
  - key: dark
    shadow_mode: true
    rate_limit: {name: dark, algorithm: concurrency, window: 1h, requests_per_unit: 1}
  - key: rate
    rate_limit: {unit: hour, requests_per_unit: 1}
  - key: smooth
    rate_limit: {unit: minute, requests_per_unit: 1, algorithm: leaky_bucket, max_delay: 60s}
";

/// `slots`, and `slots_of` in order of names; `None` where the metadata does not speak of them.
type Slots = (Option<f64>, Vec<(String, f64)>);

fn slots(response: &wire::RateLimitResponse) -> Slots {
    let all = Struct::decode(response.dynamic_metadata.as_slice()).expect("a Struct");
    let field = |of: &Struct, name: &str| of.fields.get(name).and_then(|value| value.kind.clone());
    let Some(Kind::StructValue(ours)) = field(&all, "sluicegate") else {
        return (None, Vec::new());
    };
    let number = |kind: Option<Kind>| match kind {
        Some(Kind::NumberValue(number)) => Some(number - PERMIT_TAG as f64),
        None => None,
        other => panic!("not a number: {other:?}"),
    };
    let of = match field(&ours, "slots_of") {
        Some(Kind::StructValue(of)) => of,
        None => Struct::default(),
        other => panic!("not a Struct: {other:?}"),
    };
    let each = of
        .fields
        .keys()
        .map(|name| (name.clone(), number(field(&of, name)).expect("a number")));
    (number(field(&ours, "slots")), each.collect())
}

fn held(slots: f64, each: &[(&str, f64)]) -> Slots {
    let each = each.iter().map(|(name, slots)| ((*name).to_owned(), *slots));
    (Some(slots), each.collect())
}

async fn ask(server: &Server, request: wire::RateLimitRequest) -> wire::RateLimitResponse {
    let answer = server.client().await.should_rate_limit(request).await;
    answer.expect("answered").into_inner()
}

/// A request of these keys, each with its hits.
fn costing(costs: &[(&str, u64)]) -> wire::RateLimitRequest {
    let entries: Vec<_> = costs.iter().map(|(key, _)| [(*key, "x")]).collect();
    let entries: Vec<&[(&str, &str)]> = entries.iter().map(<[_; 1]>::as_slice).collect();
    let mut request = request("edge", &entries);
    for (descriptor, (_, hits)) in request.descriptors.iter_mut().zip(costs) {
        descriptor.hits_addend = Some(*hits);
    }
    request
}

async fn slots_of(server: &Server, costs: &[(&str, u64)]) -> (bool, Slots) {
    let response = ask(server, costing(costs)).await;
    let passed = response.overall_code == i32::from(wire::rate_limit_response::Code::Ok);
    (passed, slots(&response))
}

#[tokio::test]
async fn an_answer_tells_the_slots_that_were_taken_and_no_others() {
    for always in [false, true] {
        let change = |settings: &mut Settings| settings.answers.dynamic_metadata = always;
        let server = Server::start_with(RULES, change).await;
        let nothing = || (None, Vec::new());
        let ask = async |costs: &[(&str, u64)]| slots_of(&server, costs).await;
        // A peek takes none, nor does a request that no such limit is about.
        assert_eq!(ask(&[("host", 0)]).await, (true, nothing()));
        assert_eq!(ask(&[("nobody", 1)]).await, (true, nothing()));
        assert_eq!(ask(&[("host", 1)]).await, (true, held(1.0, &[("host", 1.0)])));
        assert_eq!(ask(&[("rate", 1)]).await, (true, nothing()));
        // Another limit denies: nothing is taken of this one.
        assert_eq!(ask(&[("host", 1), ("rate", 1)]).await, (false, nothing()));
        // One number for both: what was taken of each at least.
        assert_eq!(
            ask(&[("host", 1), ("user", 3)]).await,
            (true, held(1.0, &[("host", 1.0), ("user", 3.0)]))
        );
        assert_eq!(ask(&[("user", 1), ("host", 1)]).await, (false, nothing()));
        // In shadow mode a request may pass without a slot: it holds those of the others only.
        assert_eq!(ask(&[("dark", 1)]).await, (true, held(1.0, &[("dark", 1.0)])));
        assert_eq!(ask(&[("dark", 1)]).await, (true, nothing()));
        assert_eq!(
            ask(&[("dark", 1), ("user", 1)]).await,
            (true, held(1.0, &[("user", 1.0)]))
        );
        // A release holds nothing.
        let mut release = costing(&[("host", 1)]);
        release.descriptors[0].is_negative_hits = true;
        let response = self::ask(&server, release).await;
        assert_eq!((response.overall_code, slots(&response)), (1, nothing()));
        server.stop().await;
    }
}

#[tokio::test]
async fn where_nothing_is_denied_each_limit_still_gets_its_own_back() {
    let server = Server::start_with(RULES, |settings| settings.answers.shadow_mode = true).await;
    let both = [("host", 2), ("user", 2)];
    let of = |names: &[(&str, f64)]| (true, held(2.0, names));
    assert_eq!(slots_of(&server, &both).await, of(&[("host", 2.0), ("user", 2.0)]));
    assert_eq!(slots_of(&server, &both).await, of(&[("user", 2.0)]));
    assert_eq!(slots_of(&server, &both).await, (true, (None, Vec::new())));
    server.stop().await;
}

#[tokio::test]
async fn what_the_failure_mode_lets_pass_holds_only_what_it_counted() {
    for (mode, expected) in [
        (
            OnStoreError::Local,
            [
                held(1.0, &[("host", 1.0)]),
                held(1.0, &[("host", 1.0)]),
                (None, Vec::new()),
            ],
        ),
        (OnStoreError::Allow, [(); 3].map(|()| (None, Vec::new()))),
        (OnStoreError::Deny, [(); 3].map(|()| (None, Vec::new()))),
    ] {
        let change = |settings: &mut Settings| {
            // Nobody listens there.
            settings.store.kind = StoreKind::Redis;
            settings.store.redis = Some(RedisSettings::from_url("redis://127.0.0.1:1").expect("a URL"));
            settings.store.on_store_error = mode;
        };
        let server = Server::start_with(RULES, change).await;
        for (number, expected) in expected.into_iter().enumerate() {
            let (passed, slots) = slots_of(&server, &[("host", 1)]).await;
            assert_eq!(slots, expected, "{mode:?}, request {number}");
            let limited = mode == OnStoreError::Local && number == 2;
            assert_eq!(passed, mode != OnStoreError::Deny && !limited);
        }
        server.stop().await;
    }
}

/// The caller leaves while its answer is held back: its stream will never be done, so nobody else gives the slot back.
#[tokio::test]
async fn slots_of_a_caller_that_leaves_before_the_answer_come_back() {
    let server = Server::start(RULES).await;
    assert!(slots_of(&server, &[("smooth", 1)]).await.0);
    let mut client = server.client().await;
    let waiting = tokio::spawn(async move { client.should_rate_limit(costing(&[("host", 2), ("smooth", 1)])).await });
    let start = std::time::Instant::now();
    let patience = Duration::from_secs(30);
    while slots_of(&server, &[("host", 0)]).await.0 {
        assert!(start.elapsed() < patience, "the slots were never taken");
    }
    assert!(!waiting.is_finished(), "its turn is a minute away");
    waiting.abort();
    while !slots_of(&server, &[("host", 2)]).await.0 {
        assert!(start.elapsed() < patience, "the slots never came back");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    server.stop().await;
}

/// A call with the headers that Envoy puts on its own.
async fn ask_as_envoy(server: &Server, request: wire::RateLimitRequest) -> bool {
    let mut request = tonic::Request::new(request);
    let value = "true".parse().expect("a value");
    request.metadata_mut().insert("x-envoy-internal", value);
    let answer = server.client().await.should_rate_limit(request).await;
    answer.expect("answered").into_inner().overall_code == i32::from(wire::rate_limit_response::Code::Ok)
}

/// Envoy releases for denied requests, too, with a fixed number; others release what they took, denied or not.
#[tokio::test]
async fn an_envoys_release_for_a_denied_request_gives_nothing_back() {
    let server = Server::start_with(RULES, |_| {}).await;
    let release = |hits: u64| {
        let mut release = costing(&[("host", hits)]);
        release.descriptors[0].is_negative_hits = true;
        release
    };
    let take = || costing(&[("host", 1)]);
    for _ in 0..2 {
        assert!(ask_as_envoy(&server, take()).await);
    }
    for _ in 0..3 {
        assert!(!ask_as_envoy(&server, take()).await);
        assert!(ask_as_envoy(&server, release(1)).await);
    }
    // Those that were admitted give theirs back.
    assert!(ask_as_envoy(&server, release(1)).await);
    assert!(ask_as_envoy(&server, take()).await);
    assert!(!ask_as_envoy(&server, take()).await);
    // What was told is due, whatever was denied meanwhile; and so is what a caller of another kind gives back.
    assert!(ask_as_envoy(&server, release(PERMIT_TAG + 1)).await);
    assert!(ask_as_envoy(&server, take()).await);
    assert!(!ask_as_envoy(&server, take()).await);
    ask(&server, release(1)).await;
    assert!(slots_of(&server, &[("host", 1)]).await.0);
    server.stop().await;
}
