//! Holds: what is used and what is held stay within the limit together, hold by hold as a list would count them.

mod keys;
mod model;

use proptest::prelude::*;
use proptest::test_runner::TestCaseError;
use sluicegate::algorithms::op::Op;
use sluicegate::algorithms::quota;
use sluicegate::model::{AlgorithmKind, CounterKey, Enforcement, HoldId, Limit, Outcome, RetryAfter};

use self::model::{Model, SECOND_US, SLICES};
use crate::exact::for_all;
use crate::subject::{Open, Subject, all, check, fresh_key};
use crate::traces;

/// On no edge of any slice or window.
const NOW_US: u64 = 1_763_000_000_123_456;
/// A limit whose hits are held.
fn held(algorithm: AlgorithmKind, hits: u64, seconds: u32, hold_us: u64) -> Limit {
    Limit {
        hold_us,
        ..traces::limit(algorithm, hits, seconds)
    }
}

/// An id of its own.
fn id(number: u64) -> HoldId {
    let mut random = [7; 9];
    random[1..].copy_from_slice(&number.to_be_bytes());
    HoldId::new(NOW_US + number, random)
}

fn ask(subject: &Subject, now_us: u64, key: &CounterKey, limit: Limit, op: Op) -> Outcome {
    let asked = [all([check(key, limit, op, Enforcement::Enforce)])];
    subject.decide(now_us, &asked)[0][0].outcome
}

/// A step: how long after the one before, and what; numbers of holds are resolved while it runs.
#[derive(Debug, Clone)]
enum Ask {
    Peek,
    Hold(u64),
    Settle(usize, u64),
    Release(usize),
    Unknown(u64),
    /// Perhaps after its settlement.
    Late(u64),
    /// A new one, or one that was made before.
    Force(usize, u64),
    Debit(u64),
}

fn any_trace(algorithm: AlgorithmKind) -> impl Strategy<Value = (Limit, Vec<(u64, Ask)>)> {
    let limit = (traces::any_limit(algorithm), 1..=32_u64).prop_map(|(limit, part)| Limit {
        hold_us: (limit.window_us * part / 32).min(limit.window_us),
        ..limit
    });
    limit.prop_flat_map(|limit| {
        let most = quota(&limit) + 3;
        let hits = move || prop_oneof![6 => 1..=3_u64, 4 => 1..=most, 1 => Just(1 << 50)];
        let ask = prop_oneof![
            1 => Just(Ask::Peek),
            8 => hits().prop_map(Ask::Hold),
            6 => (0..6_usize, prop_oneof![1 => Just(0), 4 => hits()]).prop_map(|(which, hits)| Ask::Settle(which, hits)),
            2 => (0..6_usize).prop_map(Ask::Release),
            1 => hits().prop_map(Ask::Unknown),
            1 => hits().prop_map(Ask::Late),
            2 => (0..6_usize, hits()).prop_map(|(which, hits)| Ask::Force(which, hits)),
            1 => hits().prop_map(Ask::Debit),
        ];
        let slice = limit.hold_us.div_ceil(SLICES);
        let pause = prop_oneof![4 => Just(0), 4 => 0..=slice, 2 => 0..=limit.hold_us + slice, 1 => 0..=limit.window_us * 2];
        (Just(limit), proptest::collection::vec((pause, ask), 1..30))
    })
}

pub fn held_and_used_as_counted_one_by_one(open: Open, algorithm: AlgorithmKind) {
    if !algorithm.can_hold() {
        return;
    }
    let subject = open();
    let traces = (any_trace(algorithm), prop_oneof![Just(1), 2..=6_usize]);
    for_all(&subject, "holds", traces, |((limit, steps), together)| {
        run(&subject, limit, &steps, together)
    });
}

/// A counter, what it is to say, and the holds that were made on it.
struct Known {
    key: CounterKey,
    model: Model,
    made: Vec<HoldId>,
}

impl Known {
    fn new(limit: Limit) -> Self {
        Self {
            key: fresh_key(),
            model: Model::new(limit),
            made: Vec::new(),
        }
    }

    fn op(&mut self, number: u64, asked: &Ask) -> Op {
        let nth = |back: usize| self.made.iter().rev().nth(back).copied().unwrap_or(id(1 << 20));
        let unknown = |hits: u64| id((1 << if hits.is_multiple_of(3) { 45 } else { 19 }) + hits % 3);
        let op = match *asked {
            Ask::Peek => Op::Peek,
            Ask::Hold(hits) => Op::Hold { hits, id: id(number) },
            Ask::Settle(which, hits) => Op::Settle { hits, id: nth(which) },
            Ask::Release(which) => Op::Release(nth(which)),
            Ask::Unknown(hits) => Op::Settle {
                hits,
                id: unknown(hits),
            },
            Ask::Late(hits) if self.made.contains(&unknown(hits)) => Op::Peek,
            Ask::Late(hits) => Op::Hold {
                hits,
                id: unknown(hits),
            },
            Ask::Force(0, hits) => Op::ForceHold { hits, id: id(number) },
            Ask::Force(which, hits) => Op::ForceHold { hits, id: nth(which) },
            Ask::Debit(hits) => Op::Debit(hits),
        };
        if let Op::Hold { id, .. } | Op::ForceHold { id, .. } = op
            && !self.made.contains(&id)
        {
            self.made.push(id);
        }
        op
    }
}

/// Asks for so many steps `together` in one call, of two counters in turn; each is to be decided as if it had come alone.
fn run(subject: &Subject, limit: Limit, steps: &[(u64, Ask)], together: usize) -> Result<(), TestCaseError> {
    let (mut counters, mut now) = ([Known::new(limit), Known::new(limit)], NOW_US);
    let one = |key: &CounterKey, op| all([check(key, limit, op, Enforcement::Enforce)]);
    let mut numbers = 0..;
    for (turn, steps) in steps.chunks(together).enumerate() {
        now += steps[0].0;
        let mut asked = Vec::new();
        for ((_, ask), number) in steps.iter().zip(numbers.by_ref()) {
            let which = if together == 1 { 0 } else { number % 2 };
            asked.push((which, counters[which].op(number as u64, ask)));
        }
        let mut calls: Vec<_> = asked
            .iter()
            .map(|(which, op)| one(&counters[*which].key, *op))
            .collect();
        if turn % 2 == 1 {
            // Behind another transaction they take another way through the script.
            calls.insert(0, one(&fresh_key(), Op::Peek));
        }
        let answers = subject.decide(now, &calls);
        for ((which, op), answer) in asked.into_iter().zip(&answers[calls.len() - steps.len()..]) {
            let outcome = answer[0].outcome;
            let told = (outcome.allowed, outcome.remaining, outcome.retry_after, outcome.holds);
            let expected = counters[which].model.step(now, op);
            prop_assert_eq!(told, expected, "{:?} of {:?}, together {:?}", op, limit, calls);
        }
    }
    Ok(())
}

/// The life of some holds, in numbers.
pub fn trace_of_holds(open: Open, algorithm: AlgorithmKind) {
    if !algorithm.can_hold() || algorithm == AlgorithmKind::Concurrency {
        return;
    }
    let subject = open();
    let key = fresh_key();
    // A bucket gives back 1 hit in 36 ms: so little that it is none here.
    let limit = held(algorithm, 1000, 36_000, 60 * SECOND_US);
    let one = |now, op| ask(&subject, now, &key, limit, op);
    let hold = |now, hits, number| one(now, Op::Hold { hits, id: id(number) });
    let settle = |now, hits, number| one(now, Op::Settle { hits, id: id(number) });
    // The burst of budgets: two of twenty pass.
    let passed: Vec<_> = (0..20).map(|n| hold(NOW_US, 500, n)).collect();
    assert_eq!(passed.iter().filter(|outcome| outcome.allowed).count(), 2);
    assert_eq!(
        (passed[1].remaining, passed[1].holds.open, passed[1].holds.own),
        (0, 1000, 500)
    );
    assert_eq!(
        passed[2].retry_after,
        RetryAfter::Micros(SECOND_US),
        "holds may go at any time"
    );
    assert_eq!((passed[2].remaining, passed[2].holds.own), (0, 0));
    // 450 were used; the rest of the hold is there again.
    let settled = settle(NOW_US, 450, 0);
    assert_eq!(
        (
            settled.allowed,
            settled.remaining,
            settled.holds.own,
            settled.holds.open
        ),
        (true, 50, 500, 500)
    );
    // Again, and again with another number: nothing.
    for hits in [450, 0, 999] {
        let again = settle(NOW_US, hits, 0);
        assert_eq!((again.remaining, again.holds.repeated), (50, true));
    }
    // An id that nobody knows is charged in full.
    let forged = settle(NOW_US, 30, 999);
    assert_eq!(
        (forged.remaining, forged.holds.own, forged.holds.repeated),
        (20, 0, false)
    );
    // A release gives back everything, and a later settlement of it is charged in full.
    one(NOW_US, Op::Release(id(1)));
    assert_eq!(one(NOW_US, Op::Peek).remaining, 520);
    assert_eq!(settle(NOW_US, 20, 1).remaining, 500);
    // More than the limit could ever admit passes alone, and holds what is left.
    let large = hold(NOW_US, 1 << 30, 21);
    assert_eq!((large.allowed, large.remaining, large.holds.own), (true, 0, 500));
    let second = hold(NOW_US, 1 << 30, 22);
    assert_eq!(
        (second.allowed, second.retry_after),
        (false, RetryAfter::Micros(SECOND_US))
    );
    // Nobody settles it: after the ttl, give or take a slice, it is gone, and told once.
    assert_eq!(one(NOW_US + 60 * SECOND_US, Op::Peek).holds.open, 500);
    let later = NOW_US + 62 * SECOND_US;
    assert!(one(later, Op::Peek).remaining >= 500);
    let next = hold(later, 100, 23);
    assert_eq!((next.holds.expired, next.holds.open), (500, 100));
    assert_eq!(hold(later, 100, 24).holds.expired, 0);
    // Settled too late: charged in full.
    assert_eq!(settle(later, 100, 21).holds.own, 0);
    // Over the limit, if need be.
    let over = settle(later, 5000, 23);
    assert_eq!((over.allowed, over.remaining, over.holds.own), (false, 0, 100));
    come_late(&subject, limit);
}

/// Holds and settlements that reach the store in another order, or more than once.
fn come_late(subject: &Subject, limit: Limit) {
    let key = fresh_key();
    let one = |op| ask(subject, NOW_US, &key, limit, op);
    let told = |outcome: Outcome| (outcome.remaining, outcome.holds.own, outcome.holds.repeated);
    // A settlement twice, then its hold, by force or as it was asked for, alone or beside another call.
    let settle = Op::Settle { hits: 30, id: id(1) };
    assert_eq!(told(one(settle)), (970, 0, false));
    assert_eq!(told(one(settle)), (970, 0, true));
    assert_eq!(told(one(Op::ForceHold { hits: 20, id: id(1) })), (970, 0, false));
    let hold = Op::Hold { hits: 20, id: id(1) };
    one(hold);
    let beside =
        [(&key, hold), (&fresh_key(), Op::Peek)].map(|(key, op)| all([check(key, limit, op, Enforcement::Enforce)]));
    subject.decide(NOW_US, &beside);
    assert_eq!(one(Op::Peek).remaining, 970);
    // A hold by force twice, over the limit if need be, and the call that asked for it after all.
    for hits in [2000, 1] {
        let forced = one(Op::ForceHold { hits, id: id(2) });
        assert_eq!((forced.allowed, told(forced)), (true, (0, 2000, false)));
    }
    one(Op::Release(id(2)));
    one(Op::ForceHold { hits: 50, id: id(3) });
    let again = one(Op::Hold { hits: 2000, id: id(3) });
    assert_eq!((again.allowed, again.holds.own), (true, 50), "it is there already");
    assert_eq!(one(Op::Peek).holds.open, 50);
    assert_eq!(told(one(Op::Settle { hits: 40, id: id(3) })), (930, 50, false));
}

/// Leases of quotas: a settled one leaves nothing behind, beside its counter or with a key of its own.
pub fn settled_once(open: Open, algorithm: AlgorithmKind) {
    if !algorithm.can_hold() || algorithm == AlgorithmKind::Concurrency {
        return;
    }
    let (subject, key) = (open(), fresh_key());
    let limit = Limit {
        settles_once: true,
        ..held(algorithm, 1000, 36_000, 60 * SECOND_US)
    };
    let one = |op| ask(&subject, NOW_US, &key, limit, op);
    for number in 0..20 {
        one(Op::Hold {
            hits: 10,
            id: id(number),
        });
    }
    for number in 0..20 {
        assert_eq!(
            one(Op::Settle {
                hits: 4,
                id: id(number)
            })
            .holds
            .own,
            10
        );
    }
    let peek = one(Op::Peek);
    assert_eq!((peek.remaining, peek.holds.open), (920, 0));
    // So each is charged again.
    for number in [0, 19, 20] {
        let again = one(Op::Settle {
            hits: 10,
            id: id(number),
        });
        assert_eq!((again.holds.own, again.holds.repeated), (0, false));
    }
    assert_eq!(one(Op::Peek).remaining, 890);
    one(Op::Hold { hits: 10, id: id(21) });
    assert_eq!(one(Op::Settle { hits: 0, id: id(21) }).holds.own, 10);
    assert_eq!(one(Op::Peek).remaining, 890);
}

/// Several held counters in one request: all or nothing, one id.
pub fn all_or_nothing(open: Open) {
    let subject = open();
    let (user, team) = (fresh_key(), fresh_key());
    let of_user = held(AlgorithmKind::SlidingWindow, 100, 60, 60 * SECOND_US);
    let of_team = held(AlgorithmKind::TokenBucket, 150, 3600, 60 * SECOND_US);
    let both = |op| {
        let checks = [
            check(&user, of_user, op, Enforcement::Enforce),
            check(&team, of_team, op, Enforcement::Enforce),
        ];
        let answers = subject.decide(NOW_US, &[all(checks)]);
        let of = |n: usize| answers[0][n].outcome;
        [of(0), of(1)]
    };
    let left = |outcomes: [Outcome; 2]| outcomes.map(|outcome| (outcome.remaining, outcome.holds.own));
    assert_eq!(left(both(Op::Hold { hits: 80, id: id(1) })), [(20, 80), (70, 80)]);
    let denied = both(Op::Hold { hits: 30, id: id(2) });
    assert_eq!(denied.map(|outcome| outcome.allowed), [false, true]);
    assert_eq!(left(denied), [(20, 0), (70, 0)], "the team holds nothing of it");
    assert_eq!(left(both(Op::Settle { hits: 10, id: id(1) })), [(90, 80), (140, 80)]);
    assert_eq!(
        left(both(Op::Settle { hits: 10, id: id(2) })),
        [(80, 0), (130, 0)],
        "nothing is known of it"
    );
    // A reset forgets what is used, and no hold.
    assert_eq!(left(both(Op::Hold { hits: 50, id: id(9) })), [(30, 50), (80, 50)]);
    assert_eq!(left(both(Op::Reset)), [(50, 0), (100, 0)]);
    assert_eq!(left(both(Op::Settle { hits: 20, id: id(9) })), [(80, 50), (130, 50)]);
    // The same counter twice is one hold of both.
    let twice = |op| {
        let checks = [
            check(&user, of_user, op, Enforcement::Enforce),
            check(&user, of_user, op, Enforcement::Enforce),
        ];
        let answers = subject.decide(NOW_US, &[all(checks)]);
        [answers[0][0].outcome, answers[0][1].outcome]
    };
    assert!(
        !twice(Op::Hold { hits: 41, id: id(3) })
            .iter()
            .all(|outcome| outcome.allowed)
    );
    assert_eq!(left(twice(Op::Hold { hits: 40, id: id(3) })), [(40, 40), (0, 40)]);
    let settled = twice(Op::Settle { hits: 5, id: id(3) });
    assert_eq!((settled[0].holds.own, settled[1].holds.repeated), (80, true));
    assert_eq!(settled[1].remaining, 75);
    // A hold in one call with what settles and releases others.
    let mixed = [
        all([check(
            &user,
            of_user,
            Op::Hold { hits: 75, id: id(4) },
            Enforcement::Enforce,
        )]),
        all([check(
            &user,
            of_user,
            Op::Hold { hits: 1, id: id(5) },
            Enforcement::Enforce,
        )]),
        all([
            check(&user, of_user, Op::Hold { hits: 70, id: id(6) }, Enforcement::Enforce),
            check(&user, of_user, Op::Settle { hits: 5, id: id(4) }, Enforcement::Enforce),
        ]),
        all([check(&user, of_user, Op::Release(id(6)), Enforcement::Shadow)]),
    ];
    let answers = subject.decide(NOW_US, &mixed);
    let allowed: Vec<_> = answers.iter().map(|answers| answers[0].outcome.allowed).collect();
    assert_eq!(allowed, [true, false, true, true]);
    assert_eq!(answers[3][0].outcome.remaining, 70);
}
