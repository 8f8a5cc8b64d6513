//! What is promised to users, whatever a store knows or guesses on the way: a layer that answers from a cache or from
//! leased hits is held to this too.

use proptest::prelude::*;
use proptest::test_runner::TestCaseError;
use sluicegate::model::{Algorithm, AlgorithmKind, Hits, Limit, RetryAfter};

use crate::exact::for_all;
use crate::subject::{Open, Subject, fresh_key, single};
use crate::traces;

/// What was admitted: when it leaves the limiter, and how many hits.
type Admitted = Vec<(u64, u64)>;

/// Takes on one key, eager: pauses are short against the window, now and then one sleeps to an edge.
fn demand(algorithm: AlgorithmKind) -> impl Strategy<Value = (Limit, u64, Vec<(u64, u64)>)> {
    traces::any_limit(algorithm).prop_flat_map(|limit| {
        let window = limit.window_us;
        let pause = prop_oneof![
            8 => Just(0),
            8 => 0..=window / 20,
            2 => 0..=window,
            1 => Just(window),
            1 => Just(window - 1),
            1 => Just(window / 2),
        ];
        let hits = prop_oneof![8 => Just(1), 2 => 1..=limit.hits.max(1)];
        let start = 1..=2_000_000_000_000_000_u64;
        (Just(limit), start, proptest::collection::vec((pause, hits), 1..80))
    })
}

/// Runs the demand; returns what was admitted.
fn admit(subject: &Subject, limit: Limit, start_us: u64, demand: &[(u64, u64)]) -> Admitted {
    let key = fresh_key();
    let mut now_us = start_us;
    let mut admitted = Vec::new();
    for (pause_us, hits) in demand {
        now_us += pause_us;
        let outcome = subject.one(now_us, &key, limit, Hits::Acquire(*hits));
        if outcome.allowed {
            admitted.push((now_us + outcome.delay_us, *hits));
        }
    }
    admitted
}

/// The most hits that any interval `(t - length, t]` holds: one that ends with an admission is among the worst.
fn worst(admitted: &Admitted, length_us: u64) -> u64 {
    let ending_at = |end: u64| {
        let inside = admitted.iter().filter(|(at, _)| *at <= end && at + length_us > end);
        inside.map(|(_, hits)| hits).sum()
    };
    admitted.iter().map(|(at, _)| ending_at(*at)).max().unwrap_or(0)
}

/// The promise of each algorithm.
pub fn limit_is_never_passed(open: Open, algorithm: AlgorithmKind) {
    let subject = open();
    for_all(
        &subject,
        "limit_is_never_passed",
        demand(algorithm),
        |(limit, start_us, demand)| {
            let admitted = admit(&subject, limit, start_us, &demand);
            check_promise(&limit, &admitted)
        },
    );
}

fn check_promise(limit: &Limit, admitted: &Admitted) -> Result<(), TestCaseError> {
    let window = limit.window_us;
    match limit.algorithm {
        Algorithm::SlidingWindow { .. } | Algorithm::SlidingLog | Algorithm::Concurrency => {
            prop_assert!(worst(admitted, window) <= limit.hits, "{admitted:?}");
        }
        Algorithm::FixedWindow => {
            let mut windows = std::collections::HashMap::new();
            for (at, hits) in admitted {
                *windows.entry(at / window).or_insert(0) += hits;
            }
            prop_assert!(windows.values().all(|hits| *hits <= limit.hits), "{windows:?}");
            prop_assert!(worst(admitted, window) <= limit.hits * 2);
        }
        Algorithm::CalendarWindow(calendar) => {
            let mut windows = std::collections::HashMap::new();
            for (at, hits) in admitted {
                *windows.entry(calendar.window_at(*at).end_s).or_insert(0) += hits;
            }
            prop_assert!(windows.values().all(|hits| *hits <= limit.hits), "{windows:?}");
        }
        Algorithm::TokenBucket { burst, .. } => {
            // In any interval that starts and ends with an admission: burst + rate * T.
            for (index, (start, _)) in admitted.iter().enumerate() {
                let mut sum = 0_u128;
                for (end, hits) in &admitted[index..] {
                    sum += u128::from(*hits);
                    let refilled = u128::from(end - start) * u128::from(limit.hits);
                    prop_assert!(sum * u128::from(window) <= u128::from(burst) * u128::from(window) + refilled);
                }
            }
        }
        Algorithm::LeakyBucket { max_delay_us, .. } => {
            for pair in admitted.windows(2) {
                let (before, (at, hits)) = (pair[0].0, pair[1]);
                // Times are whole microseconds, so a turn can seem one early.
                let apart = window * hits / limit.hits;
                prop_assert!(
                    at + 1 >= before + apart,
                    "{before} then {hits} at {at}: less than {apart}"
                );
            }
            prop_assert!(max_delay_us > 0 || worst(admitted, window / limit.hits.max(1)) <= 1);
        }
    }
    Ok(())
}

/// A denied request is denied until its `retry_after`, and admitted at it.
pub fn retry_after_is_exact(open: Open, algorithm: AlgorithmKind) {
    retry_after(open, algorithm, true);
}

/// A denied request is admitted at its `retry_after` at the latest: leased hits that come back can make it sooner.
pub fn retry_after_is_enough(open: Open, algorithm: AlgorithmKind) {
    retry_after(open, algorithm, false);
}

fn retry_after(open: Open, algorithm: AlgorithmKind, exact: bool) {
    let subject = open();
    for_all(
        &subject,
        if exact {
            "retry_after_is_exact"
        } else {
            "retry_after_is_enough"
        },
        demand(algorithm),
        |(limit, start_us, demand)| {
            let key = fresh_key();
            let mut now_us = start_us;
            for (pause_us, hits) in demand {
                now_us += pause_us;
                let take = |now_us| subject.one(now_us, &key, limit, Hits::Acquire(hits));
                let outcome = take(now_us);
                match outcome.retry_after {
                    RetryAfter::Now => prop_assert!(outcome.allowed),
                    RetryAfter::Micros(wait_us) => {
                        prop_assert!(!outcome.allowed);
                        if !exact {
                            // Asking again counts: only the end of the wait can be tried.
                            now_us += wait_us;
                        } else {
                            now_us += wait_us - 1;
                            prop_assert!(!take(now_us).allowed, "admitted before {wait_us}");
                            now_us += 1;
                        }
                        prop_assert!(take(now_us).allowed, "denied at {wait_us}");
                    }
                    RetryAfter::Never => {
                        prop_assert!(!outcome.allowed);
                        let unused = subject.one(now_us, &fresh_key(), limit, Hits::Acquire(hits));
                        prop_assert!(!unused.allowed, "an unused counter takes {hits}");
                    }
                }
            }
            Ok(())
        },
    );
}

/// After any number of denials, everything is as it was before.
pub fn a_denial_changes_nothing(open: Open, algorithm: AlgorithmKind) {
    denial(open, algorithm, true);
}

/// The same, but a denial may speak of what was left when the store was asked last, which is no more than there is.
pub fn a_denial_takes_nothing(open: Open, algorithm: AlgorithmKind) {
    denial(open, algorithm, false);
}

fn denial(open: Open, algorithm: AlgorithmKind, exact: bool) {
    let subject = open();
    for_all(
        &subject,
        "a_denial_changes_nothing",
        demand(algorithm),
        |(limit, start_us, demand)| {
            let key = fresh_key();
            let mut now_us = start_us;
            for (pause_us, hits) in demand {
                now_us += pause_us;
                let before = subject.one(now_us, &key, limit, Hits::Peek);
                let denied = subject.one(now_us, &key, limit, Hits::Acquire(limit.hits + hits + 1));
                if denied.allowed {
                    continue;
                }
                prop_assert_eq!(before, subject.one(now_us, &key, limit, Hits::Peek));
                prop_assert!(denied.remaining == before.remaining || (!exact && denied.remaining <= before.remaining));
                subject.one(now_us, &key, limit, Hits::Acquire(hits));
            }
            Ok(())
        },
    );
}

/// What happens on one key means nothing to another.
pub fn keys_are_independent(open: Open, algorithm: AlgorithmKind) {
    let subject = open();
    for_all(
        &subject,
        "keys_are_independent",
        demand(algorithm),
        |(limit, start_us, demand)| {
            let alone = admit(&subject, limit, start_us, &demand);
            let (key, other) = (fresh_key(), fresh_key());
            let mut now_us = start_us;
            let mut crowded = Vec::new();
            for (pause_us, hits) in demand {
                now_us += pause_us;
                subject.one(now_us, &other, limit, Hits::Acquire(1));
                let outcome = subject.one(now_us, &key, limit, Hits::Acquire(hits));
                if outcome.allowed {
                    crowded.push((now_us + outcome.delay_us, hits));
                }
            }
            prop_assert_eq!(alone, crowded);
            Ok(())
        },
    );
}

/// At most L requests are in flight at any time, whatever releases are lost; and a ttl after the last one every slot
/// is free again.
pub fn permits(open: Open) {
    let subject = open();
    let requests = (1..=6_u64, 1..=3_u32).prop_flat_map(|(hits, seconds)| {
        let limit = traces::limit(AlgorithmKind::Concurrency, hits, seconds);
        let ttl = limit.window_us;
        // Pause before it, how long it takes, and whether its release is lost.
        let request = (0..=ttl / 4, 0..=ttl, proptest::bool::weighted(0.2));
        (Just(limit), proptest::collection::vec(request, 1..60))
    });
    for_all(&subject, "slots", requests, |(limit, requests)| {
        let key = fresh_key();
        let mut now_us = 1_763_000_000_000_000;
        // When each request in flight ends, and whether that will be heard of.
        let mut in_flight: Vec<(u64, bool)> = Vec::new();
        for (pause_us, takes_us, is_lost) in requests {
            now_us += pause_us;
            in_flight.sort_unstable();
            while let Some(&(end_us, is_heard)) = in_flight.first().filter(|(end_us, _)| *end_us <= now_us) {
                in_flight.remove(0);
                if is_heard {
                    subject.one(end_us, &key, limit, Hits::Refund(1));
                }
            }
            if subject.one(now_us, &key, limit, Hits::Acquire(1)).allowed {
                in_flight.push((now_us + takes_us, !is_lost));
                prop_assert!(
                    in_flight.len() as u64 <= limit.hits,
                    "more in flight than {}",
                    limit.hits
                );
            }
        }
        let quiet_us = now_us + limit.window_us + limit.window_us.div_ceil(32);
        let everything = single(&key, limit, Hits::Acquire(limit.hits));
        prop_assert!(subject.check(quiet_us, &everything)[0].allowed, "a slot is stuck");
        Ok(())
    });
}
