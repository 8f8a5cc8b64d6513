//! A limit whose numbers change keeps what was used, in hits: never less, so that no new burst passes, and never more
//! than the new numbers hold, so that nobody is locked out.

use proptest::prelude::*;
use sluicegate::algorithms::quota;
use sluicegate::model::{AlgorithmKind, Hits, Limit};

use crate::exact::for_all;
use crate::subject::{Open, fresh_key};
use crate::traces;

const NOW_US: u64 = 1_763_000_000_123_456;

/// Two limits; hits that are used under the first; how far into its window it changes.
fn change(algorithm: AlgorithmKind) -> impl Strategy<Value = (Vec<Limit>, u64, u64)> {
    traces::changed_limits(algorithm).prop_flat_map(|limits| {
        let (used, window) = (0..=quota(&limits[0]), limits[0].window_us);
        (Just(limits), used, 0..=window / 64)
    })
}

/// At the change, and in each new number's own time.
pub fn what_was_used_stays_used(open: Open, algorithm: AlgorithmKind) {
    let subject = open();
    for_all(
        &subject,
        "what_was_used_stays_used",
        change(algorithm),
        |(limits, used, pause_us)| {
            let key = fresh_key();
            let (old, new) = (limits[0], limits[1]);
            if used > 0 {
                prop_assert!(subject.one(NOW_US, &key, old, Hits::Acquire(used)).allowed);
            }
            let change_us = NOW_US + pause_us;
            let still = quota(&old) - subject.one(change_us, &key, old, Hits::Peek).remaining;
            let peek = subject.one(change_us, &key, new, Hits::Peek);
            let stays = quota(&new) - peek.remaining;
            // A shorter window may have begun after the hits; what a bucket is missing has no age.
            let counts = match algorithm {
                AlgorithmKind::SlidingWindow | AlgorithmKind::SlidingLog | AlgorithmKind::Concurrency => {
                    pause_us < new.window_us
                }
                _ => true,
            };
            prop_assert!(
                !counts || stays >= still.min(quota(&new)).saturating_sub(1),
                "{} of {} used",
                stays,
                still
            );
            // What is missing of a bucket is rounded up.
            prop_assert!(stays <= still + 1, "{} of {} used", stays, still);
            // A peek has told of the change: the counter waits by the new numbers, and no longer than a new one would
            // after all of its quota.
            let all = quota(&new);
            if all > 0 {
                let fresh = fresh_key();
                subject.one(change_us, &fresh, new, Hits::Acquire(all));
                let fresh = subject.one(change_us, &fresh, new, Hits::Peek).reset_after_us;
                // A leaky bucket holds its wait and a hit: not always whole hits.
                let part_us = if algorithm == AlgorithmKind::LeakyBucket {
                    new.window_us.div_ceil(new.hits)
                } else {
                    0
                };
                prop_assert!(
                    peek.reset_after_us <= fresh + part_us,
                    "{} of {fresh}",
                    peek.reset_after_us
                );
                let later_us = change_us + peek.reset_after_us;
                prop_assert_eq!(subject.one(later_us, &key, new, Hits::Peek).remaining, all);
            }
            Ok(())
        },
    );
}

/// The two ways in which a bucket that remembers a time alone goes wrong.
#[test]
fn a_bucket_waits_by_the_new_numbers() {
    for open in [crate::subject::memory, crate::subject::redis] {
        let subject = open();
        let limit = |hits| traces::bucket(hits, 3600, 60);
        // 60 an hour used up, then 36,000 an hour: a hit comes back each 100 ms.
        let raised = fresh_key();
        assert!(subject.one(NOW_US, &raised, limit(60), Hits::Acquire(60)).allowed);
        let denied = subject.one(NOW_US, &raised, limit(36_000), Hits::Acquire(1));
        assert!(!denied.allowed);
        assert!((5_900_000..=6_000_001).contains(&denied.reset_after_us), "{denied:?}");
        assert!(
            subject
                .one(NOW_US + 100_001, &raised, limit(36_000), Hits::Acquire(1))
                .allowed
        );
        // 36,000 an hour used up, then 6 an hour: nothing but what comes back passes, one in 10 minutes.
        let lowered = fresh_key();
        assert!(subject.one(NOW_US, &lowered, limit(36_000), Hits::Acquire(60)).allowed);
        assert!(!subject.one(NOW_US, &lowered, limit(6), Hits::Acquire(1)).allowed);
        let later_us = NOW_US + 7_000_000;
        assert!(
            !subject.one(later_us, &lowered, limit(6), Hits::Acquire(1)).allowed,
            "the denial was kept"
        );
        // A smaller bucket holds no more debt than itself.
        let smaller = fresh_key();
        assert!(subject.one(NOW_US, &smaller, limit(60), Hits::Acquire(60)).allowed);
        let smaller = subject.one(NOW_US, &smaller, traces::bucket(60, 3600, 10), Hits::Peek);
        assert_eq!(smaller.reset_after_us, 600_000_000);
    }
}
