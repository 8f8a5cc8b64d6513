//! Several checks decided as one: the rules that the memory store and the Lua driver (`store/redis/check.lua`) share.
//!
//! 0. Debits have happened already: they are counted first, whatever becomes of the rest.
//! 1. Each other check is judged in order. An acquisition or lease on a counter that earlier ones of the same transaction
//!    passed is judged with their hits added; refunds, returns and resets help only later
//!    transactions.
//! 2. [`Transaction::passes`] says whether it passes.
//! 3. Refunds, returns and resets are done, whatever the transaction comes to: their hits are not in use any more.
//! 4. If it passes, allowed acquisitions and leases are counted; if not, none is.
//! 5. `remaining` and `reset_after_us` of an acquisition, lease or peek are told as of after the check if the transaction
//!    passed, and as things stand if not, in both cases without its refunds; those of a refund, return or reset as of
//!    the transaction's end.

use smallvec::SmallVec;

use super::op::{Answer, Grant, Op};
use super::{
    MAX_CHECK_HITS, State, adopt, apply, debit, decide, is_foreign, lease_left_us, refund, return_to, slice_full_at,
};
use crate::model::{Check, Limit, Outcome, RetryAfter, Transaction};

/// One answer for each check of a transaction, in order.
pub type Answers = SmallVec<[Answer; 2]>;

/// Where [`run`] finds the states of a transaction's counters.
pub trait States {
    /// The state of the counter of check `index`; of an unused one, [`State::new`].
    fn read(&self, index: usize) -> &State;

    /// The same, to be changed.
    fn write(&mut self, index: usize) -> &mut State;

    /// The first check of the transaction that is about the counter of check `index`.
    fn first(&self, index: usize) -> usize;
}

/// Decides a transaction and counts what it admits. One answer for each check, in order.
pub fn run<H: Copy + Into<Op>>(transaction: &Transaction<H>, states: &mut impl States, now_us: u64) -> Answers {
    let checks = || transaction.checks.iter().map(|check| (&check.limit, check.hits.into()));
    let mut answers: Answers = SmallVec::from_elem(UNDECIDED, transaction.checks.len());
    for (index, check) in transaction.checks.iter().enumerate() {
        if is_foreign(&check.limit, states.read(index), now_us) {
            adopt(&check.limit, states.write(index), now_us);
        }
    }
    for (index, ((limit, op), answer)) in checks().zip(&mut answers).enumerate() {
        if let Op::Debit(hits) = op {
            *answer = debit_one(limit, states.write(index), now_us, hits);
        }
    }
    // Hits that count before a check, kept at the first check of its counter.
    let mut prior: SmallVec<[u64; 2]> = SmallVec::from_elem(0, answers.len());
    let mut joined: SmallVec<[bool; 2]> = SmallVec::from_elem(false, answers.len());
    for (index, ((limit, op), answer)) in checks().zip(&mut answers).enumerate() {
        let first = states.first(index);
        let (Some(prior), Some(joined)) = (prior.get_mut(first), joined.get_mut(index)) else {
            continue;
        };
        if !matches!(op, Op::Debit(_)) {
            *joined = *prior > 0;
            *answer = judge(limit, op, states.read(index), now_us, *prior);
            *prior += counted(op, answer, true);
        }
    }
    let passes = transaction.passes(answers.iter().map(|answer| answer.outcome.allowed));
    if !passes {
        for (index, ((limit, op), answer)) in checks().zip(&mut answers).enumerate() {
            let is_joined = joined.get(index).copied().unwrap_or(false);
            if !matches!(op, Op::Debit(_)) && (is_joined || answer.outcome.allowed) {
                let stands = decide(limit, states.read(index), now_us, 0);
                *answer = plain(with_stand_of(answer.outcome, &stands));
            }
        }
    }
    for (index, (limit, op)) in checks().enumerate() {
        if op.frees() {
            free(limit, op, states.write(index), now_us);
        }
    }
    for (index, ((limit, op), answer)) in checks().zip(&answers).enumerate() {
        let hits = counted(op, answer, passes);
        if hits > 0 && !matches!(op, Op::Debit(_)) {
            apply(limit, states.write(index), now_us, hits);
        }
    }
    for (index, ((limit, op), answer)) in checks().zip(&mut answers).enumerate() {
        if op.frees() {
            *answer = freed(limit, states.read(index), now_us);
        }
    }
    complete(transaction, &mut answers, now_us);
    answers
}

/// [`run`] for a transaction of one check, whose enforcement then makes no difference. Also tells whether the state
/// changed.
pub fn run_one<H: Copy + Into<Op>>(check: &Check<H>, state: &mut State, now_us: u64) -> (Answer, bool) {
    let (limit, op) = (&check.limit, check.hits.into());
    let adopted = adopt(limit, state, now_us);
    let mut answer = match op {
        Op::Debit(hits) => debit_one(limit, state, now_us, hits),
        Op::Refund(_) | Op::Return { .. } | Op::Reset => {
            free(limit, op, state, now_us);
            return (freed(limit, state, now_us), true);
        }
        Op::Acquire(_) | Op::Peek | Op::Lease(_) => judge(limit, op, state, now_us, 0),
    };
    let hits = counted(op, &answer, answer.outcome.allowed);
    if hits > 0 && !matches!(op, Op::Debit(_)) {
        apply(limit, state, now_us, hits);
    }
    complete_one(limit, hits, &mut answer, now_us);
    (answer, adopted || hits > 0)
}

/// Fills in what follows from a transaction's other answers and the store's time, in memory as for a reply of Redis:
/// [`Outcome::slice`] and [`Grant::left_us`].
pub fn complete<H: Copy + Into<Op>>(transaction: &Transaction<H>, answers: &mut Answers, now_us: u64) {
    let passes = transaction.passes(answers.iter().map(|answer| answer.outcome.allowed));
    for (check, answer) in transaction.checks.iter().zip(answers) {
        let hits = counted(check.hits.into(), answer, passes);
        complete_one(&check.limit, hits, answer, now_us);
    }
}

/// A check that counted hits left them in its counter's newest slice, and the counter is full again when that slice has
/// left: so the slice follows from the answer.
fn complete_one(limit: &Limit, counted: u64, answer: &mut Answer, now_us: u64) {
    // A bucket that holds nothing keeps no debit.
    if counted == 0 || answer.outcome.reset_after_us == 0 {
        return;
    }
    let full_at_us = now_us.saturating_add(answer.outcome.reset_after_us);
    answer.outcome.slice = slice_full_at(limit, full_at_us);
    if let Some(grant) = &mut answer.grant {
        grant.left_us = lease_left_us(limit, answer.outcome.slice, now_us).unwrap_or(0);
    }
}

/// Stands where no check has been judged yet.
const UNDECIDED: Answer = plain(Outcome::refused(0, RetryAfter::Never, 0));

const fn plain(outcome: Outcome) -> Answer {
    Answer { outcome, grant: None }
}

fn debit_one(limit: &Limit, state: &mut State, now_us: u64, hits: u64) -> Answer {
    let hits = hits.min(MAX_CHECK_HITS);
    let verdict = decide(limit, state, now_us, hits);
    debit(limit, state, now_us, hits);
    plain(Outcome {
        room: if verdict.allowed { 0 } else { verdict.remaining },
        ..with_stand_of(verdict, &decide(limit, state, now_us, 0))
    })
}

/// What a check comes to if its transaction passes, `before` being the hits that count before it.
fn judge(limit: &Limit, op: Op, state: &State, now_us: u64, before: u64) -> Answer {
    let hits = match op {
        Op::Acquire(hits) => hits.min(MAX_CHECK_HITS),
        Op::Lease(most) => return judge_lease(limit, state, now_us, before, most),
        // Told at the end of the transaction.
        Op::Refund(_) | Op::Return { .. } | Op::Reset => return freed(limit, state, now_us),
        // A debit is not judged: it has been counted by now.
        Op::Peek | Op::Debit(_) => 0,
    };
    if before == 0 {
        return plain(decide(limit, state, now_us, hits));
    }
    let outcome = decide(limit, state, now_us, before + hits.max(1));
    if hits > 0 && outcome.allowed {
        return plain(outcome);
    }
    // A peek or a denial adds nothing to what stood before it.
    plain(with_stand_of(outcome, &decide(limit, state, now_us, before)))
}

/// Grants what is left, up to `most` hits.
fn judge_lease(limit: &Limit, state: &State, now_us: u64, before: u64, most: u64) -> Answer {
    let stands = decide(limit, state, now_us, before);
    if lease_left_us(limit, 0, now_us).is_none() {
        return plain(Outcome {
            allowed: false,
            retry_after: RetryAfter::Never,
            delay_us: 0,
            ..stands
        });
    }
    let hits = most.min(stands.remaining).min(MAX_CHECK_HITS);
    if hits == 0 {
        let denied = decide(limit, state, now_us, before + 1);
        return plain(with_stand_of(denied, &stands));
    }
    Answer {
        outcome: decide(limit, state, now_us, before + hits),
        grant: Some(Grant { hits, left_us: 0 }),
    }
}

/// Hits that a check adds to its counter.
fn counted(op: Op, answer: &Answer, passes: bool) -> u64 {
    match op {
        Op::Acquire(hits) if passes && answer.outcome.allowed => hits.min(MAX_CHECK_HITS),
        Op::Lease(_) if passes => answer.grant.map_or(0, |grant| grant.hits),
        Op::Debit(hits) => hits.min(MAX_CHECK_HITS),
        _ => 0,
    }
}

fn free(limit: &Limit, op: Op, state: &mut State, now_us: u64) {
    match op {
        Op::Refund(hits) => refund(limit, state, now_us, hits.min(MAX_CHECK_HITS)),
        Op::Return { slice, hits } => return_to(limit, state, now_us, slice, hits.min(MAX_CHECK_HITS)),
        Op::Reset => *state = State::new(limit),
        Op::Acquire(_) | Op::Debit(_) | Op::Peek | Op::Lease(_) => {}
    }
}

/// The verdict of one outcome with the numbers of another.
fn with_stand_of(verdict: Outcome, stands: &Outcome) -> Outcome {
    Outcome {
        remaining: stands.remaining,
        reset_after_us: stands.reset_after_us,
        delay_us: 0,
        ..verdict
    }
}

/// A refund, return or reset is always allowed, however things stand.
fn freed(limit: &Limit, state: &State, now_us: u64) -> Answer {
    plain(Outcome {
        allowed: true,
        retry_after: RetryAfter::Now,
        ..decide(limit, state, now_us, 0)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::algorithms::limit::{LimitSpec, build};
    use crate::model::{AlgorithmKind, CounterKey, Enforcement, Hits, Unit, Window};

    /// States by check, found by key.
    struct List(Vec<(CounterKey, State)>, Vec<usize>);

    impl States for List {
        fn read(&self, index: usize) -> &State {
            &self.0[self.1[index]].1
        }
        fn write(&mut self, index: usize) -> &mut State {
            &mut self.0[self.1[index]].1
        }
        fn first(&self, index: usize) -> usize {
            let same = |&other: &usize| self.1[other] == self.1[index];
            (0..index).find(same).unwrap_or(index)
        }
    }

    fn limit(algorithm: AlgorithmKind, hits: u64) -> Limit {
        let window = Window::of(Unit::Minute);
        build(&LimitSpec::new(algorithm, hits, window)).unwrap()
    }

    fn check(key: &str, hits: Hits, enforcement: Enforcement) -> Check {
        Check {
            key: CounterKey::from_raw(key),
            limit: limit(AlgorithmKind::SlidingWindow, 5),
            hits,
            enforcement,
        }
    }

    fn run_on(list: &mut List, checks: &[Check]) -> Vec<(bool, u64)> {
        list.1.clear();
        for check in checks {
            let place = list.0.iter().position(|(key, _)| *key == check.key).unwrap_or_else(|| {
                list.0.push((check.key.clone(), State::new(&check.limit)));
                list.0.len() - 1
            });
            list.1.push(place);
        }
        let transaction = Transaction {
            checks: checks.into(),
            ..Transaction::default()
        };
        run(&transaction, list, 0)
            .iter()
            .map(|answer| (answer.outcome.allowed, answer.outcome.remaining))
            .collect()
    }

    #[test]
    fn a_state_takes_sixteen_bytes() {
        assert_eq!(size_of::<State>(), 16);
    }

    #[test]
    fn all_or_nothing_with_duplicates_and_gates() {
        use Enforcement::{Enforce, Quota, Shadow};
        use Hits::{Acquire, Peek, Refund};
        let list = &mut List(Vec::new(), Vec::new());
        let a = |hits, enforcement| check("a", hits, enforcement);
        let b = |hits, enforcement| check("b", hits, enforcement);
        // The second is decided with the first one's hits; together they pass, so both count.
        assert_eq!(
            run_on(list, &[a(Acquire(3), Enforce), a(Acquire(2), Enforce)]),
            [(true, 2), (true, 0)]
        );
        // a is full: nothing is taken from b, and b is told as it stands.
        assert_eq!(
            run_on(list, &[b(Acquire(1), Enforce), a(Acquire(1), Enforce)]),
            [(true, 5), (false, 0)]
        );
        // A shadow denial stops nobody.
        assert_eq!(
            run_on(list, &[b(Acquire(1), Enforce), a(Acquire(1), Shadow)]),
            [(true, 4), (false, 0)]
        );
        // One quota of two is enough; a denied one takes nothing.
        assert_eq!(
            run_on(list, &[b(Acquire(1), Quota(0)), a(Acquire(1), Quota(1))]),
            [(true, 3), (false, 0)]
        );
        // The only quota is over.
        assert_eq!(
            run_on(list, &[b(Acquire(1), Shadow), a(Acquire(1), Quota(0))]),
            [(true, 3), (false, 0)]
        );
        // A refund helps later transactions only, and is made although its own does not pass.
        assert_eq!(
            run_on(list, &[a(Refund(1), Enforce), a(Acquire(1), Enforce)]),
            [(true, 1), (false, 0)]
        );
        assert_eq!(
            run_on(list, &[a(Refund(1), Enforce), a(Peek, Shadow)]),
            [(true, 2), (true, 1)]
        );
        assert_eq!(
            run_on(list, &[a(Peek, Enforce), a(Acquire(1), Enforce), a(Peek, Enforce)]),
            [(true, 2), (true, 1), (true, 1)]
        );
    }
}
