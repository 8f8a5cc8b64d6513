//! One suite for every algorithm and every store: what is promised to users, shown on each.
//!
//! `exact` compares with the definitions (`oracle`), answer by answer; `promises` checks what is promised whatever
//! the answers are, so layers that answer from what they know can be held to it too.
#![allow(clippy::expect_used, reason = "a test that cannot go on says why and stops")]

#[path = "../support/mod.rs"]
mod support;

mod exact;
mod golden;
mod keys;
mod oracle;
mod promises;
mod races;
mod script;
mod subject;
mod traces;

use sluicegate::model::AlgorithmKind;

/// The suite for one store.
macro_rules! conformance {
    ($store:ident: $open:path) => {
        mod $store {
            conformance!(@ $open, sliding_window SlidingWindow);
            conformance!(@ $open, sliding_log SlidingLog);
            conformance!(@ $open, token_bucket TokenBucket);
            conformance!(@ $open, leaky_bucket LeakyBucket);
            conformance!(@ $open, fixed_window FixedWindow);
            conformance!(@ $open, concurrency Concurrency);

            #[test]
            fn batches() {
                crate::exact::batches($open);
            }
            #[test]
            fn slots() {
                crate::promises::slots($open);
            }
        }
    };
    (@ $open:path, $name:ident $kind:ident) => {
        mod $name {
            use super::super::*;
            const KIND: AlgorithmKind = AlgorithmKind::$kind;

            conformance!(# $open, golden, trace);
            conformance!(# $open, golden, ban);
            conformance!(# $open, exact, one_check);
            conformance!(# $open, exact, transactions);
            conformance!(# $open, exact, changed_rules);
            conformance!(# $open, promises, limit_is_never_passed);
            conformance!(# $open, promises, retry_after_is_exact);
            conformance!(# $open, promises, a_denial_changes_nothing);
            conformance!(# $open, promises, keys_are_independent);
            conformance!(# $open, races, tasks);
        }
    };
    (# $open:path, $room:ident, $name:ident) => {
        #[test]
        fn $name() {
            $room::$name($open, KIND);
        }
    };
}

conformance!(memory: crate::subject::memory);
conformance!(redis: crate::subject::redis);
