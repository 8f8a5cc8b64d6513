//! The deny cache answers what is certain, and nothing else.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use sluicegate::model::{AlgorithmKind, Clock, Hits, RetryAfter};
use sluicegate::store::Store;
use sluicegate::store::remote::{Options, Remote};

use crate::sim::{End, Network, SimClock, limit, one, pipeline, take};

fn cache(network: &Arc<Network>, leases: bool) -> Arc<Remote<End>> {
    let stages = |plain| Options {
        denial_keys: Some(100),
        // None of these keys ever has one: leases are only about.
        lease_keys: leases.then_some(1),
        ..plain
    };
    pipeline(
        network,
        SimClock::new(0) as Arc<dyn Clock>,
        Duration::from_secs(5),
        stages,
    )
}

#[tokio::test(start_paused = true)]
async fn a_denial_stands_until_retry_after_and_not_longer() {
    let remote = Network::new(1, 0);
    let cache = cache(&remote, false);
    let rule = limit(AlgorithmKind::SlidingWindow, 3, 10);
    for _ in 0..3 {
        assert!(cache.check(&one(take(&rule, "x", 1))).await.expect("answered")[0].allowed);
    }
    assert!(!cache.check(&one(take(&rule, "x", 1))).await.expect("answered")[0].allowed);
    let calls = remote.calls.load(Ordering::Relaxed);
    let mut wait = u64::MAX;
    for _ in 0..1000 {
        let outcome = cache.check(&one(take(&rule, "x", 1))).await.expect("answered")[0];
        let RetryAfter::Micros(us) = outcome.retry_after else {
            panic!("{outcome:?}")
        };
        assert!(!outcome.allowed && us <= wait);
        wait = us;
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(
        remote.calls.load(Ordering::Relaxed),
        calls,
        "no call while the denial stands"
    );
    tokio::time::sleep(Duration::from_micros(wait)).await;
    assert!(cache.check(&one(take(&rule, "x", 1))).await.expect("answered")[0].allowed);
}

#[tokio::test(start_paused = true)]
async fn other_sizes_other_keys_and_give_backs_are_asked() {
    let remote = Network::new(2, 0);
    let cache = cache(&remote, false);
    let rule = limit(AlgorithmKind::SlidingWindow, 3, 10);
    cache.check(&one(take(&rule, "x", 2))).await.expect("answered");
    assert!(!cache.check(&one(take(&rule, "x", 2))).await.expect("answered")[0].allowed);
    // Fewer hits fit.
    assert!(cache.check(&one(take(&rule, "x", 1))).await.expect("answered")[0].allowed);
    assert!(!cache.check(&one(take(&rule, "x", 1))).await.expect("answered")[0].allowed);
    assert!(cache.check(&one(take(&rule, "y", 1))).await.expect("answered")[0].allowed);
    // Given back hits end the denial at once.
    let mut give = take(&rule, "x", 1);
    give.hits = Hits::Refund(1);
    cache.check(&one(give)).await.expect("answered");
    assert!(cache.check(&one(take(&rule, "x", 1))).await.expect("answered")[0].allowed);
}

#[tokio::test(start_paused = true)]
async fn a_limit_that_was_raised_is_asked_although_its_key_is_the_same() {
    let remote = Network::new(5, 0);
    let cache = cache(&remote, false);
    let [two, three] = [2, 3].map(|hits| limit(AlgorithmKind::SlidingWindow, hits, 10));
    for allowed in [true, true, false] {
        assert_eq!(
            cache.check(&one(take(&two, "x", 1))).await.expect("answered")[0].allowed,
            allowed
        );
    }
    for allowed in [true, false] {
        assert_eq!(
            cache.check(&one(take(&three, "x", 1))).await.expect("answered")[0].allowed,
            allowed
        );
    }
}

#[tokio::test(start_paused = true)]
async fn with_leases_about_a_denial_holds_to_the_end_of_its_slice_only() {
    let remote = Network::new(3, 0);
    let cache = cache(&remote, true);
    let rule = limit(AlgorithmKind::SlidingWindow, 1, 10);
    cache.check(&one(take(&rule, "x", 1))).await.expect("answered");
    let mut calls = 0;
    for _ in 0..100 {
        assert!(!cache.check(&one(take(&rule, "x", 1))).await.expect("answered")[0].allowed);
        calls = remote.calls.load(Ordering::Relaxed);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    // A slice is 312.5 ms: about 16 of them in 5 s, not one call for all of it, and not one for each request.
    assert!((12..=24).contains(&calls), "{calls}");
}

/// Another process may have given hits back meanwhile.
#[tokio::test(start_paused = true)]
async fn a_denial_for_hours_is_asked_again_after_ten_seconds() {
    let remote = Network::new(6, 0);
    let [cache, other] = [0, 1].map(|_| cache(&remote, false));
    let rule = limit(AlgorithmKind::SlidingWindow, 1, 86_400);
    assert!(cache.check(&one(take(&rule, "x", 1))).await.expect("answered")[0].allowed);
    assert!(!cache.check(&one(take(&rule, "x", 1))).await.expect("answered")[0].allowed);
    let mut give = take(&rule, "x", 1);
    give.hits = Hits::Refund(1);
    other.check(&one(give)).await.expect("answered");
    assert!(!cache.check(&one(take(&rule, "x", 1))).await.expect("answered")[0].allowed);
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert!(cache.check(&one(take(&rule, "x", 1))).await.expect("answered")[0].allowed);
}

#[tokio::test(start_paused = true)]
async fn bounded_in_keys() {
    let remote = Network::new(4, 0);
    let cache = cache(&remote, false);
    let ban = limit(AlgorithmKind::SlidingWindow, 1, 10);
    for n in 0..1000 {
        let key = n.to_string();
        cache.check(&one(take(&ban, &key, 1))).await.expect("answered");
        assert!(!cache.check(&one(take(&ban, &key, 1))).await.expect("answered")[0].allowed);
    }
    let denials = cache.stats().denials.entries;
    assert!(denials <= 100, "{denials}");
}
