//! Several checks decided as one: the rules that the memory store and the Lua driver (`store/redis/transaction.lua`) share.
//!
//! 0. Debits, settlements and forced holds have happened already: they are counted first, whether the transaction passes or not.
//! 1. Each other check is judged in order. An acquisition, lease or hold on a counter that earlier ones of the same transaction
//!    passed is judged with their hits added; refunds, returns and resets help only later transactions.
//! 2. [`Transaction::passes`] says whether it passes.
//! 3. Refunds, returns, releases and resets are carried out, whether it passes or not: their hits are not in use any more.
//! 4. If it passes, allowed acquisitions and leases are counted and holds are made; if not, none is.
//! 5. `remaining` and `reset_after_us` of an acquisition, lease, hold or peek are those after the check if the transaction
//!    passed, and those before it if not, in both cases without its refunds; those of a refund, return, release or reset, and
//!    all holds, are those at the transaction's end.

mod check;
mod states;

use smallvec::SmallVec;

use self::check::{
    UNDECIDED, counted, free, freed, happen, held_by, hold, judge, plain, stands, take_expired, tell_holds,
    with_stand_of,
};
pub use self::states::States;
use super::op::{Answer, Op};
use super::{State, adopt, apply, held, is_foreign, lease_left_us, slice_full_at};
use crate::model::{Check, Holds, Limit, Transaction};

/// One answer for each check of a transaction, in order.
pub type Answers = SmallVec<[Answer; 2]>;

/// Decides a transaction and counts what it admits. One answer for each check, in order.
pub fn run<H: Copy + Into<Op>, K>(transaction: &Transaction<H, K>, states: &mut impl States, now_us: u64) -> Answers {
    let checks = || transaction.checks.iter().map(|check| (&check.limit, check.hits.into()));
    let mut answers: Answers = SmallVec::from_elem(UNDECIDED, transaction.checks.len());
    for (index, check) in transaction.checks.iter().enumerate() {
        if is_foreign(&check.limit, states.read(index), now_us) {
            adopt(&check.limit, states.write(index), now_us);
        }
    }
    for (index, ((limit, op), answer)) in checks().zip(&mut answers).enumerate() {
        if op.has_happened() {
            *answer = happen(limit, op, states.write(index), now_us);
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
        if !op.has_happened() {
            *joined = *prior > 0;
            *answer = judge(limit, op, states.read(index), now_us, *prior);
            *prior += counted(op, answer, true) + held_by(op, answer);
        }
    }
    let passes = transaction.passes(answers.iter().map(|answer| answer.outcome.allowed));
    if !passes {
        for (index, ((limit, op), answer)) in checks().zip(&mut answers).enumerate() {
            let is_joined = joined.get(index).copied().unwrap_or(false);
            if !op.has_happened() && (is_joined || answer.outcome.allowed) {
                let stands = stands(limit, op, states.read(index), now_us);
                *answer = plain(with_stand_of(answer.outcome, &stands));
                answer.outcome.holds = Holds::default();
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
        if hits > 0 && !op.has_happened() {
            apply(limit, states.write(index), now_us, hits);
        }
        let first = states.first(index);
        let is_same = |(other, ((_, of), answer)): (usize, ((_, Op), &Answer))| {
            of.holds() == op.holds() && states.first(other) == first && held_by(of, answer) > 0
        };
        let adds = op.holds().is_some() && (0..index).zip(checks().zip(&answers)).any(is_same);
        hold(limit, op, answer, || states.write(index), now_us, adds);
    }
    for (index, ((limit, op), answer)) in checks().zip(&mut answers).enumerate() {
        if op.frees() {
            *answer = freed(limit, states.read(index), now_us);
        }
        if limit.hold_us > 0 {
            tell_holds(limit, op, states.read(index), now_us, answer);
            answer.outcome.holds.expired = take_expired(states, index).saturating_mul(op.mean().unwrap_or(1));
        }
    }
    complete(transaction, &mut answers, now_us);
    answers
}

/// [`run`] for a transaction of one check, whose enforcement then makes no difference. Also returns whether the state changed.
pub fn run_one<H: Copy + Into<Op>, K>(check: &Check<H, K>, state: &mut State, now_us: u64) -> (Answer, bool) {
    let (limit, op) = (&check.limit, check.hits.into());
    let adopted = adopt(limit, state, now_us);
    let mut answer = match op {
        _ if op.has_happened() => happen(limit, op, state, now_us),
        _ if op.frees() => {
            free(limit, op, state, now_us);
            freed(limit, state, now_us)
        }
        _ => judge(limit, op, state, now_us, 0),
    };
    let hits = counted(op, &answer, answer.outcome.allowed);
    if hits > 0 && !op.has_happened() {
        apply(limit, state, now_us, hits);
    }
    let mut changed = adopted || hits > 0 || op.frees() || op.has_happened();
    if limit.hold_us > 0 {
        changed |= hold(limit, op, &answer, || &mut *state, now_us, false);
        tell_holds(limit, op, state, now_us, &mut answer);
        if let State::Held(state) = state {
            let each = op.mean().unwrap_or(1);
            answer.outcome.holds.expired = held::take_expired(state).saturating_mul(each);
        }
    }
    complete_one(limit, hits, &mut answer, now_us);
    (answer, changed)
}

/// Fills in `Outcome::slice` and `Grant::left_us`, which follow from the answers and the store's time: for the memory store as
/// for a reply of Redis.
pub fn complete<H: Copy + Into<Op>, K>(transaction: &Transaction<H, K>, answers: &mut Answers, now_us: u64) {
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
