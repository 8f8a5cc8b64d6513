//! Holds of a mean cost: each is worth what the newest check says, and the oldest is settled first.

use proptest::prelude::*;
use sluicegate::algorithms::op::Op;
use sluicegate::algorithms::{self, State, quota};
use sluicegate::model::{AlgorithmKind, Enforcement, HoldId, Limit, RetryAfter};

use crate::exact::for_all;
use crate::subject::{Open, all, check, fresh_key};
use crate::traces;

const NOW_US: u64 = 1_763_000_000_123_456;
const SLICES: u64 = 32;

/// Time since the step before, the mean, and the hits that settle; none = a hold.
type Step = (u64, u64, Option<u64>);

fn any_trace(algorithm: AlgorithmKind) -> impl Strategy<Value = (Limit, Vec<Step>)> {
    traces::any_limit(algorithm).prop_flat_map(|limit| {
        let limit = Limit {
            hold_us: limit.window_us.div_ceil(2),
            ..limit
        };
        let most = quota(&limit) + 3;
        let hits = prop_oneof![4 => Just(None), 1 => Just(Some(0)), 3 => (0..=most).prop_map(Some)];
        let slice = limit.hold_us.div_ceil(SLICES);
        let pause =
            prop_oneof![4 => Just(0), 4 => 0..=slice, 2 => 0..=limit.hold_us + slice, 1 => 0..=limit.window_us * 2];
        (Just(limit), proptest::collection::vec((pause, 1..=most, hits), 1..30))
    })
}

pub fn the_oldest_is_settled_and_all_are_worth_the_mean(open: Open, algorithm: AlgorithmKind) {
    if !algorithm.can_hold() || algorithm == AlgorithmKind::Concurrency {
        return;
    }
    let subject = open();
    for_all(&subject, "adaptive", any_trace(algorithm), |(limit, steps)| {
        let (key, plain) = (fresh_key(), Limit { hold_us: 0, ..limit });
        let (mut used, mut holds, mut now) = (State::new(&plain), Vec::<u64>::new(), NOW_US);
        for (pause, mean, settles) in steps {
            now += pause;
            let slice = now / limit.hold_us.div_ceil(SLICES);
            let alone = |used: &State, hits| algorithms::decide(&plain, used, now, hits);
            holds.retain(|of| of + SLICES >= slice);
            let left = alone(&used, 0).remaining.saturating_sub(holds.len() as u64 * mean);
            let (op, expected) = match settles {
                None => {
                    let own = mean.min(left);
                    let retry = match () {
                        () if own > 0 => RetryAfter::Now,
                        () if alone(&used, 1).allowed => RetryAfter::Micros(1_000_000),
                        () => alone(&used, 1).retry_after,
                    };
                    if own > 0 {
                        holds.push(slice);
                    }
                    (Op::HoldMean(mean), (own > 0, left - own, retry, own))
                }
                Some(hits) => {
                    let own = if holds.is_empty() { 0 } else { mean };
                    if !holds.is_empty() {
                        holds.remove(0);
                    }
                    let verdict = alone(&used, hits);
                    let allowed = hits == 0 || verdict.allowed;
                    algorithms::debit(&plain, &mut used, now, hits);
                    let retry = if allowed { RetryAfter::Now } else { verdict.retry_after };
                    let left = alone(&used, 0).remaining.saturating_sub(holds.len() as u64 * mean);
                    (Op::SettleOldest { hits, mean }, (allowed, left, retry, own))
                }
            };
            let asked = [all([check(&key, limit, op, Enforcement::Enforce)])];
            let outcome = subject.decide(now, &asked)[0][0].outcome;
            let told = (
                outcome.allowed,
                outcome.remaining,
                outcome.retry_after,
                outcome.holds.own,
            );
            prop_assert_eq!(told, expected, "{:?} of {:?}", op, limit);
            prop_assert_eq!(outcome.holds.open, holds.len() as u64 * mean);
        }
        Ok(())
    });
}

/// A hold whose answer reached nobody has no name: the oldest goes in its place, whatever goes with it in one call.
pub fn a_release_ends_the_oldest(open: Open, algorithm: AlgorithmKind) {
    if !algorithm.can_hold() || algorithm == AlgorithmKind::Concurrency {
        return;
    }
    let (subject, key) = (open(), fresh_key());
    let limit = Limit {
        hold_us: 60_000_000,
        ..traces::limit(algorithm, 1000, 36_000)
    };
    let ask = |now, op| {
        let asked = [all([check(&key, limit, op, Enforcement::Enforce)])];
        subject.decide(now, &asked)[0][0].outcome
    };
    let later = NOW_US + 30_000_000;
    for (now, open) in [(NOW_US, 250), (later, 500), (later, 750)] {
        assert_eq!(ask(now, Op::HoldMean(250)).holds.open, open);
    }
    let release = Op::Release(HoldId::new(0, [3; 9]));
    assert!(ask(later, release).allowed);
    // The two newer ones are there when the first would have ended, and not when they have.
    let after = |seconds: u64| NOW_US + seconds * 1_000_000;
    assert_eq!(ask(after(70), Op::SettleOldest { hits: 0, mean: 250 }).holds.open, 250);
    ask(after(70), release);
    assert_eq!(ask(after(70), Op::SettleOldest { hits: 9, mean: 250 }).holds.own, 0);
    // There is none: nothing happens.
    ask(after(70), release);
    assert_eq!(ask(after(70), Op::HoldMean(250)).remaining, 741, "{algorithm}");
}
