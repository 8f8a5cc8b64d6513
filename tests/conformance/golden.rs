//! Traces with their answers written out, so that what each algorithm does can be read.

use sluicegate::algorithms::limit::{LimitSpec, build};
use sluicegate::model::{AlgorithmKind, Hits, Limit, Outcome, RetryAfter, Unit, Window};

use crate::subject::{Open, Subject, fresh_key};
use crate::traces;

/// Start of every trace, on the grid of all slices and windows used here.
const START_US: u64 = 1_763_000_000_000_000;

/// What is asked, and the answer: times in milliseconds since the start.
struct Line {
    at: u64,
    hits: Hits,
    allowed: bool,
    remaining: u64,
    retry: Retry,
    reset: u64,
    delay: u64,
}

#[derive(Clone, Copy)]
enum Retry {
    Now,
    In(u64),
    Never,
}
use Retry::{In, Never, Now};

const fn line(at: u64, hits: Hits, allowed: bool, remaining: u64, retry: Retry, reset: u64) -> Line {
    Line {
        at,
        hits,
        allowed,
        remaining,
        retry,
        reset,
        delay: 0,
    }
}

const fn take(at: u64, hits: u64, remaining: u64, reset: u64) -> Line {
    line(at, Hits::Acquire(hits), true, remaining, Now, reset)
}

const fn held(at: u64, hits: u64, remaining: u64, reset: u64, delay: u64) -> Line {
    Line {
        delay,
        ..take(at, hits, remaining, reset)
    }
}

const fn deny(at: u64, hits: u64, remaining: u64, retry: Retry, reset: u64) -> Line {
    line(at, Hits::Acquire(hits), false, remaining, retry, reset)
}

const fn give(at: u64, hits: u64, remaining: u64, reset: u64) -> Line {
    line(at, Hits::Refund(hits), true, remaining, Now, reset)
}

/// Five hits (unless it says otherwise) in 10 s.
fn golden(algorithm: AlgorithmKind) -> (Limit, Vec<Line>) {
    let mut spec = LimitSpec {
        algorithm,
        hits: 5,
        window: Window::times(Unit::Second, 10),
        burst: None,
        precision: None,
        max_delay_us: None,
        hold_us: None,
        holds_mean: false,
    };
    let lines = of_windows(&mut spec).unwrap_or_else(|| of_buckets(&mut spec));
    (build(&spec).expect("a good limit"), lines)
}

/// Traces of limits that count in a window.
fn of_windows(spec: &mut LimitSpec) -> Option<Vec<Line>> {
    Some(match spec.algorithm {
        AlgorithmKind::SlidingWindow => {
            // Slices of one second.
            spec.precision = Some(10);
            vec![
                take(500, 2, 3, 10_500),
                take(1_500, 2, 1, 10_500),
                // One is left; the hits of slice 0 count until slice 11 begins.
                deny(9_000, 2, 1, In(2_000), 3_000),
                line(9_000, Hits::Peek, true, 1, Now, 3_000),
                take(9_999, 1, 0, 10_001),
                // The seam: a fixed window would admit five more here.
                deny(10_000, 1, 0, In(1_000), 10_000),
                deny(10_999, 1, 0, In(1), 9_001),
                take(11_000, 1, 1, 11_000),
                deny(11_000, 6, 1, Never, 11_000),
                // The two hits of slice 1 and the one of slice 9 go back first.
                give(11_000, 3, 4, 11_000),
                give(11_000, 9, 5, 0),
            ]
        }
        AlgorithmKind::SlidingLog => vec![
            take(500, 2, 3, 10_000),
            take(1_500, 2, 1, 10_000),
            deny(9_000, 2, 1, In(1_500), 2_500),
            take(9_999, 1, 0, 10_000),
            deny(10_000, 1, 0, In(500), 9_999),
            deny(10_499, 1, 0, In(1), 9_500),
            take(10_500, 1, 1, 10_000),
            deny(10_500, 6, 1, Never, 10_000),
            give(10_500, 3, 4, 10_000),
            give(10_500, 9, 5, 0),
        ],
        AlgorithmKind::FixedWindow => vec![
            take(9_998, 2, 3, 2),
            deny(9_998, 4, 3, In(2), 2),
            take(9_999, 3, 0, 1),
            deny(9_999, 1, 0, In(1), 1),
            // The seam: ten hits within two milliseconds.
            take(10_000, 5, 0, 10_000),
            deny(10_000, 6, 0, Never, 10_000),
            give(10_000, 4, 4, 10_000),
            give(10_000, 4, 5, 0),
        ],
        AlgorithmKind::Concurrency => {
            // Slots free themselves after 10 s, in slices of 312.5 ms: at 10,312.5 what was taken in the first one.
            spec.hits = 3;
            vec![
                take(0, 1, 2, 10_312),
                take(5_000, 2, 0, 10_312),
                deny(5_000, 1, 0, In(5_312), 10_312),
                // Released, the oldest first …
                give(6_000, 1, 1, 9_312),
                take(6_000, 1, 0, 10_250),
                // … and the other two are lost: they are free again with the ttl.
                deny(15_312, 1, 0, In(0), 938),
                take(15_313, 2, 0, 10_312),
            ]
        }
        AlgorithmKind::TokenBucket | AlgorithmKind::LeakyBucket => return None,
    })
}

/// Traces of limits that fill up again all the time.
fn of_buckets(spec: &mut LimitSpec) -> Vec<Line> {
    match spec.algorithm {
        AlgorithmKind::TokenBucket => {
            // A hit comes back each 2 s.
            spec.burst = Some(3);
            vec![
                take(0, 2, 1, 4_000),
                take(0, 1, 0, 6_000),
                deny(1_999, 1, 0, In(1), 4_001),
                take(2_000, 1, 0, 6_000),
                deny(4_000, 3, 1, In(4_000), 4_000),
                deny(4_000, 4, 1, Never, 4_000),
                give(4_000, 1, 2, 2_000),
                give(4_000, 7, 3, 0),
                // No more than the burst gathers.
                take(90_000, 3, 0, 6_000),
            ]
        }
        AlgorithmKind::LeakyBucket => {
            // One leaves each 2 s; four seconds are the longest wait, so two can wait.
            spec.max_delay_us = Some(4_000_000);
            vec![
                held(0, 1, 2, 2_000, 0),
                held(0, 1, 1, 4_000, 2_000),
                held(500, 1, 0, 5_500, 3_500),
                deny(500, 1, 0, In(1_500), 5_500),
                held(2_000, 1, 0, 6_000, 4_000),
                deny(8_000, 4, 3, Never, 0),
                // Three together leave when the last of them may.
                held(8_000, 3, 0, 6_000, 4_000),
                give(8_000, 2, 2, 2_000),
            ]
        }
        other => panic!("{other} is no bucket"),
    }
}

fn ms(micros: u64) -> u64 {
    micros / 1000
}

/// The trace of an algorithm.
pub fn trace(open: Open, algorithm: AlgorithmKind) {
    trace_on(&open(), algorithm);
}

/// The same on a subject that is there.
pub fn trace_on(subject: &Subject, algorithm: AlgorithmKind) {
    let key = fresh_key();
    let (limit, lines) = golden(algorithm);
    for line in lines {
        let Outcome {
            allowed,
            remaining,
            retry_after,
            reset_after_us,
            delay_us,
            ..
        } = subject.one(START_US + line.at * 1000, &key, limit, line.hits);
        let place = format!("{algorithm} at {} ms: {:?}", line.at, line.hits);
        assert_eq!((allowed, remaining), (line.allowed, line.remaining), "{place}");
        assert_eq!((ms(reset_after_us), ms(delay_us)), (line.reset, line.delay), "{place}");
        match (retry_after, line.retry) {
            (RetryAfter::Now, Now) | (RetryAfter::Never, Never) => {}
            (RetryAfter::Micros(found), In(expected)) if ms(found) == expected => {}
            (found, _) => panic!("{place}: retry after {found:?}"),
        }
    }
}

/// A limit of nothing denies everything, and no waiting helps.
pub fn ban(open: Open, algorithm: AlgorithmKind) {
    let subject = open();
    let key = fresh_key();
    let limit = traces::limit(algorithm, 0, 60);
    for (at_us, hits) in [(1, Hits::Acquire(1)), (START_US, Hits::Peek)] {
        let outcome = subject.one(at_us, &key, limit, hits);
        assert!(!outcome.allowed);
        assert_eq!(
            (outcome.remaining, outcome.retry_after),
            (0, RetryAfter::Never),
            "{hits:?}"
        );
        assert_eq!((outcome.reset_after_us, outcome.slice), (0, 0), "{hits:?}");
    }
}
