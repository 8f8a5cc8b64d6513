//! Which limit Envoy's `x-ratelimit-*` headers show, and that they say when to come again.

use std::num::NonZeroUsize;
use std::sync::Arc;

use sluicegate::config::{Text, load};
use sluicegate::engine::{Engine, EngineOptions};
use sluicegate::model::{Clock, ManualClock};
use sluicegate::proto::envoy::service::ratelimit::v3 as wire;
use sluicegate::rules::Defaults;
use sluicegate::service::AnswerOptions;
use sluicegate::service::rls::{Caller, RateLimitService};
use sluicegate::store::MemoryStore;
use sluicegate::telemetry::{Metrics, ServiceKind};
use wire::rate_limit_response::{Code, DescriptorStatus};

use crate::server::request;

/// No two with one number, so that the number tells which limit is shown.
const RULES: &str = "
domain: edge
descriptors:
  - { key: short, rate_limit: { requests_per_unit: 4, unit: minute } }
  - { key: long, rate_limit: { requests_per_unit: 6, unit: hour } }
  - { key: wide, rate_limit: { requests_per_unit: 7, unit: day } }
";
const ORDERS: [&[&str]; 8] = [
    &["short", "long"],
    &["long", "short"],
    &["short", "long", "wide"],
    &["short", "wide", "long"],
    &["long", "short", "wide"],
    &["long", "wide", "short"],
    &["wide", "short", "long"],
    &["wide", "long", "short"],
];

struct Service {
    rls: RateLimitService,
    clock: Arc<ManualClock>,
}

impl Service {
    fn new() -> Self {
        // No whole second, so that no wait is one.
        let clock = Arc::new(ManualClock::new(1_000_000_123_456));
        let now: Arc<dyn Clock> = clock.clone();
        let metrics = Arc::new(Metrics::new().expect("metrics"));
        let store = Arc::new(MemoryStore::new(
            NonZeroUsize::new(1000).expect("not zero"),
            Arc::clone(&now),
        ));
        let engine = Engine::new(store, None, EngineOptions::default(), now, Arc::clone(&metrics));
        let text = Text {
            name: "rules.yaml".into(),
            text: RULES.into(),
        };
        engine.activate(Arc::new(load(&[text], &Defaults::default()).expect("rules")), 1);
        Self {
            rls: RateLimitService::new(Arc::new(engine), Arc::new(AnswerOptions::default()), metrics),
            clock,
        }
    }

    async fn ask(&self, keys: &[&str], hits: u32) -> wire::RateLimitResponse {
        let each: Vec<(&str, u32)> = keys.iter().map(|key| (*key, hits)).collect();
        self.ask_each(&each).await
    }

    async fn ask_each(&self, keys: &[(&str, u32)]) -> wire::RateLimitResponse {
        let entries: Vec<[(&str, &str); 1]> = keys.iter().map(|(key, _)| [(*key, "x")]).collect();
        let descriptors: Vec<&[(&str, &str)]> = entries.iter().map(|entry| &entry[..]).collect();
        let mut request = request("edge", &descriptors);
        for (descriptor, (_, hits)) in request.descriptors.iter_mut().zip(keys) {
            descriptor.hits_addend = Some(u64::from(*hits));
        }
        let answer = self.rls.answer(ServiceKind::Rls, request, Caller::default()).await;
        answer.expect("answered")
    }
}

/// The status that Envoy 1.40 shows: of those with a limit the first with the least remaining.
fn shown(response: &wire::RateLimitResponse) -> (u32, &DescriptorStatus) {
    let limited = response.statuses.iter().filter(|status| status.current_limit.is_some());
    let status = limited.min_by_key(|status| status.limit_remaining).expect("a limit");
    let limit = status.current_limit.as_ref().expect("a limit");
    (limit.requests_per_unit, status)
}

fn reset(status: &DescriptorStatus) -> u64 {
    let reset = status.duration_until_reset.as_ref().expect("a reset");
    assert_eq!(reset.nanos, 0, "Envoy cuts fractions off");
    u64::try_from(reset.seconds).expect("not negative")
}

/// What is used before, of which limit, and how many hits are asked for then; which limit is to be shown, and whether it
/// denies.
const CASES: [(&[(&str, u32)], u32, u32, bool); 7] = [
    (&[], 1, 4, false),
    (&[("long", 4)], 1, 6, false),
    // The least stays of the one that is nearest to denying, though another ends later.
    (&[("wide", 6)], 1, 7, false),
    (&[("short", 4)], 1, 4, true),
    // Both deny: the one that lasts longest.
    (&[("short", 4), ("long", 6)], 1, 6, true),
    (&[("short", 2), ("wide", 3)], 3, 4, true),
    (&[("short", 4), ("long", 6), ("wide", 5)], 2, 6, true),
];

#[tokio::test]
async fn envoy_shows_the_limit_that_denies_or_is_nearest_to_it() {
    for keys in ORDERS {
        for (used, hits, limit, denies) in CASES {
            if used.iter().any(|(key, _)| !keys.contains(key)) {
                continue;
            }
            let service = Service::new();
            for (key, hits) in used {
                let before = service.ask(&[key], *hits).await;
                assert_eq!(before.overall_code(), Code::Ok);
            }
            service.clock.advance(4_200_001);
            let answer = service.ask(keys, hits).await;
            let case = format!("{keys:?} used {used:?} asks {hits}: {:?}", answer.statuses);
            assert_eq!(answer.overall_code() == Code::OverLimit, denies, "{case}");
            let (number, status) = shown(&answer);
            assert_eq!(number, limit, "{case}");
            assert_eq!(status.code() == Code::OverLimit, denies, "{case}");
            if denies {
                assert_eq!(status.limit_remaining, 0, "{case}");
                let seconds = reset(status);
                assert!(seconds > 0, "{case}");
                service.clock.advance(seconds * 1_000_000);
                let later = service.ask(keys, hits).await;
                assert_eq!(later.overall_code(), Code::Ok, "after {seconds} s: {case}");
            }
        }
    }
}

#[tokio::test]
async fn the_last_second_of_a_denial_is_a_second() {
    let service = Service::new();
    service.ask(&["short"], 4).await;
    let denied = service.ask(&["short"], 1).await;
    let whole = reset(&denied.statuses[0]);
    service.clock.advance((whole - 1) * 1_000_000);
    let almost = service.ask(&["short"], 1).await;
    assert_eq!(almost.overall_code(), Code::OverLimit);
    assert_eq!(reset(&almost.statuses[0]), 1);
}

#[tokio::test]
async fn a_denied_limit_has_no_more_remaining_than_one_that_passes() {
    // Two are truly left of the one that denies, one of the other.
    for order in [[("short", 3), ("wide", 1)], [("wide", 1), ("short", 3)]] {
        let service = Service::new();
        service.ask_each(&[("short", 2), ("wide", 6)]).await;
        let answer = service.ask_each(&order).await;
        assert_eq!(answer.overall_code(), Code::OverLimit);
        assert_eq!(shown(&answer).0, 4, "{order:?}: {:?}", answer.statuses);
    }
}
