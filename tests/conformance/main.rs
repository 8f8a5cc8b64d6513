//! One suite for every algorithm and every store: what is promised to users, shown on each.
//!
//! `exact` compares with the definitions (`oracle`), answer by answer; `promises` checks what is promised whatever
//! the answers are, so layers that answer from what they know can be held to it too.
#![allow(clippy::expect_used, reason = "a test that cannot go on says why and stops")]

#[path = "../support/mod.rs"]
mod support;

mod adaptive;
mod calendar;
mod changes;
mod counter;
mod exact;
mod frees;
mod golden;
mod holds;
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
            fn permits() {
                crate::promises::permits($open);
            }
            #[test]
            fn days_of_23_and_25_hours() {
                crate::calendar::days_of_23_and_25_hours($open);
            }
            #[test]
            fn another_zone_is_another_counter() {
                crate::calendar::another_zone_is_another_counter($open);
            }
            #[test]
            fn holds_all_or_nothing() {
                crate::holds::all_or_nothing($open);
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
            conformance!(# $open, changes, what_was_used_stays_used);
            conformance!(# $open, frees, a_denied_transaction_refunds);
            conformance!(# $open, frees, a_return_leaves_its_own_slice);
            conformance!(# $open, holds, trace_of_holds);
            conformance!(# $open, holds, settled_once);
            conformance!(# $open, adaptive, a_release_ends_the_oldest);
            conformance!(# $open, adaptive, the_oldest_is_settled_and_all_are_worth_the_mean);
            conformance!(# $open, holds, held_and_used_as_counted_one_by_one);
            conformance!(# $open, promises, limit_is_never_passed);
            conformance!(# $open, promises, retry_after_is_exact);
            conformance!(# $open, promises, a_denial_changes_nothing);
            conformance!(# $open, promises, keys_are_independent);
            conformance!(# $open, races, tasks);
        }
    };
    (# $open:path, $module:ident, $name:ident) => {
        #[test]
        fn $name() {
            $module::$name($open, KIND);
        }
    };
}

/// What a layer is held to: the promises and the races. Its numbers may differ from the definitions' where it answers
/// from what it knows, and each layer is held to the promises that it could break.
macro_rules! layer {
    ($layer:ident: $open:path, [$($name:ident $kind:ident),*], $promises:tt) => {
        mod $layer {
            $(layer!(@ $open, $name $kind, $promises);)*
        }
    };
    (@ $open:path, $name:ident $kind:ident, [$($promise:ident),*]) => {
        mod $name {
            use super::super::*;
            const KIND: AlgorithmKind = AlgorithmKind::$kind;

            conformance!(# $open, golden, trace);
            conformance!(# $open, golden, ban);
            conformance!(# $open, promises, limit_is_never_passed);
            $(conformance!(# $open, promises, $promise);)*
            conformance!(# $open, races, tasks);
        }
    };
}

layer!(deny_cache: crate::subject::deny_cache,
    [sliding_window SlidingWindow, sliding_log SlidingLog, token_bucket TokenBucket, leaky_bucket LeakyBucket,
     fixed_window FixedWindow, concurrency Concurrency],
    [retry_after_is_exact, a_denial_takes_nothing, keys_are_independent]);
layer!(lease: crate::subject::lease,
    [sliding_window SlidingWindow, sliding_log SlidingLog, token_bucket TokenBucket, leaky_bucket LeakyBucket,
     fixed_window FixedWindow, concurrency Concurrency],
    [retry_after_is_enough]);
layer!(layers: crate::subject::layers,
    [sliding_window SlidingWindow, token_bucket TokenBucket, fixed_window FixedWindow],
    [retry_after_is_enough]);
layer!(coalesce: crate::subject::coalesce,
    [sliding_window SlidingWindow, sliding_log SlidingLog],
    [retry_after_is_exact, a_denial_changes_nothing, keys_are_independent]);
conformance!(memory: crate::subject::memory);
conformance!(redis: crate::subject::redis);
