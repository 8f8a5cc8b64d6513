//! What is given back: when, and out of which slice.

use sluicegate::algorithms::op::Op;
use sluicegate::model::{AlgorithmKind, Enforcement, Hits, Outcome};

use crate::subject::{Open, all, check, fresh_key};
use crate::traces;

/// On no edge of any slice or window.
const NOW_US: u64 = 1_763_000_000_123_456;

/// `[tokens +1200][in flight -1]`, as Envoy sends them when a stream is done: the first is over its limit, and the
/// second gives back all the same.
pub fn a_denied_transaction_refunds(open: Open, algorithm: AlgorithmKind) {
    let subject = open();
    let (over, full) = (fresh_key(), fresh_key());
    let limit = traces::limit(algorithm, 3, 60);
    let tokens = traces::limit(AlgorithmKind::SlidingWindow, 1000, 60);
    let quota = subject.one(NOW_US, &full, limit, Hits::Peek).remaining;
    assert!(subject.one(NOW_US, &full, limit, Hits::Acquire(quota)).allowed);
    assert!(!subject.one(NOW_US, &full, limit, Hits::Acquire(1)).allowed);
    let done = all([
        check(&over, tokens, Hits::Debit(1200), Enforcement::Enforce),
        check(&full, limit, Hits::Refund(1), Enforcement::Enforce),
    ]);
    let outcomes = subject.check(NOW_US, &done);
    assert!(!outcomes[0].allowed);
    assert_eq!((outcomes[1].allowed, outcomes[1].remaining), (true, 1));
    assert!(subject.one(NOW_US, &full, limit, Hits::Acquire(1)).allowed);
}

/// A return takes hits out of the slice that they were counted in and no other: what came later counts as long as it
/// would have, and once that slice has left there is nothing to take.
pub fn a_return_leaves_its_own_slice(open: Open, algorithm: AlgorithmKind) {
    let subject = open();
    let key = fresh_key();
    let limit = traces::limit(algorithm, 6, 60);
    let one = |now_us, op| {
        let asked = [all([check(&key, limit, op, Enforcement::Enforce)])];
        subject.decide(now_us, &asked)[0][0].outcome
    };
    let left = |now_us| one(now_us, Op::Peek).remaining;
    if matches!(algorithm, AlgorithmKind::TokenBucket | AlgorithmKind::LeakyBucket) {
        return bucket_takes_back_until_it_is_full(one);
    }
    let later_us = NOW_US
        + if algorithm == AlgorithmKind::FixedWindow {
            1
        } else {
            20_000_000
        };
    let first = one(NOW_US, Op::Acquire(2));
    let second = one(later_us, Op::Acquire(3));
    assert_eq!(left(later_us), 1);
    let back = one(
        later_us,
        Op::Return {
            slice: first.slice,
            hits: 1,
        },
    );
    assert_eq!((back.allowed, back.remaining, back.slice), (true, 2, 0));
    if algorithm != AlgorithmKind::FixedWindow {
        assert_ne!(first.slice, second.slice);
        // One was left in the first slice, and only that one is taken.
        assert_eq!(
            one(
                later_us,
                Op::Return {
                    slice: first.slice,
                    hits: 9
                }
            )
            .remaining,
            3
        );
        let (mut gone_us, mut unused_us) = (later_us, later_us + 62_000_000);
        while unused_us - gone_us > 1 {
            let middle = gone_us + (unused_us - gone_us) / 2;
            *(if left(middle) == 3 {
                &mut gone_us
            } else {
                &mut unused_us
            }) = middle;
        }
        assert!(gone_us - later_us >= 60_000_000 - 1, "the later hits still count");
    }
    let reset_us = later_us + 62_000_000;
    one(reset_us, Op::Acquire(4));
    one(
        reset_us,
        Op::Return {
            slice: second.slice,
            hits: 3,
        },
    );
    assert_eq!(left(reset_us), 2, "that slice has left");
}

/// A hit takes 10 s to come back; afterwards there is nothing left to return.
fn bucket_takes_back_until_it_is_full(one: impl Fn(u64, Op) -> Outcome) {
    let left = |now_us| one(now_us, Op::Peek).remaining;
    let first = one(NOW_US, Op::Acquire(1));
    assert_eq!(first.slice, NOW_US + 10_000_000);
    let unused = left(first.slice);
    one(
        first.slice,
        Op::Return {
            slice: first.slice,
            hits: 1,
        },
    );
    one(first.slice, Op::Acquire(1));
    assert_eq!(left(first.slice), unused - 1);
    one(
        first.slice,
        Op::Return {
            slice: first.slice,
            hits: 1,
        },
    );
    assert_eq!(left(first.slice), unused - 1, "these hits are somebody else's");
    let second = one(first.slice, Op::Peek).reset_after_us + first.slice;
    one(second - 1, Op::Return { slice: second, hits: 1 });
    assert_eq!(left(second - 1), unused);
}
