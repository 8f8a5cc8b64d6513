//! Several checks decided as one: the rules that the memory store and the Lua driver (`store/redis/check.lua`) share.
//!
//! 0. Charges have happened already: they are counted first, whatever becomes of the rest.
//! 1. Each other check is judged in order. A take or lease on a counter that earlier ones of the same transaction
//!    passed is judged with their hits added; what is given back helps only later transactions.
//! 2. [`Transaction::passes`] says whether it passes. If it does, allowed takes and leases are counted and gives and
//!    returns given; if not, nothing is.
//! 3. `remaining` and `reset_after_us` are told as of after the check if the transaction passed, and as things stand
//!    if not.

use smallvec::SmallVec;

use super::{MAX_CHECK_HITS, State, apply, charge, decide, give, give_to, lease};
use crate::model::{Check, Grant, Hits, Limit, Outcome, RetryAfter, Transaction};

/// Where [`run`] finds the states of a transaction's counters.
pub trait States {
    /// The state of the counter of check `index`; of an unused one, [`State::new`].
    fn read(&self, index: usize) -> &State;

    /// The same, to be changed.
    fn write(&mut self, index: usize) -> &mut State;

    /// The first check of the transaction that is about the counter of check `index`.
    fn first(&self, index: usize) -> usize;
}

/// Decides a transaction and counts what it admits. One outcome for each check, in order.
pub fn run(transaction: &Transaction, states: &mut impl States, now_us: u64) -> SmallVec<[Outcome; 2]> {
    let charged = charge_all(transaction, states, now_us);
    // Hits that count before a check, kept at the first check of its counter.
    let mut prior: SmallVec<[u64; 2]> = SmallVec::from_elem(0, transaction.checks.len());
    let mut judged: SmallVec<[(Outcome, u64); 2]> = SmallVec::new();
    for (index, check) in transaction.checks.iter().enumerate() {
        if let Some(outcome) = charged.get(index).copied().flatten() {
            judged.push((outcome, 0));
            continue;
        }
        let first = states.first(index);
        let before = prior.get(first).copied().unwrap_or(0);
        let outcome = judge(check, states.read(index), now_us, before);
        if let Some(prior) = prior.get_mut(first) {
            *prior += counted(check, &outcome, true);
        }
        judged.push((outcome, before));
    }
    let passes = transaction.passes(judged.iter().map(|(outcome, _)| outcome.allowed));
    let mut outcomes = SmallVec::with_capacity(judged.len());
    for (index, (check, (outcome, before))) in transaction.checks.iter().zip(judged).enumerate() {
        outcomes.push(if charged.get(index).is_some_and(Option::is_some) {
            outcome
        } else if changes(check, &outcome, passes) {
            commit(check, states.write(index), now_us, outcome)
        } else if passes || before == 0 && !outcome.allowed {
            outcome
        } else {
            as_things_stand(&check.limit, states.read(index), now_us, outcome)
        });
    }
    outcomes
}

/// Counts what has happened; an outcome for each check that is a charge, and nothing at all if none is.
fn charge_all(transaction: &Transaction, states: &mut impl States, now_us: u64) -> SmallVec<[Option<Outcome>; 2]> {
    let is_charge = |check: &Check| matches!(check.hits, Hits::Debit(_));
    if !transaction.checks.iter().any(is_charge) {
        return SmallVec::new();
    }
    let one = |(index, check): (usize, &Check)| match check.hits {
        Hits::Debit(hits) => Some(charge_one(&check.limit, states.write(index), now_us, hits)),
        _ => None,
    };
    transaction.checks.iter().enumerate().map(one).collect()
}

fn charge_one(limit: &Limit, state: &mut State, now_us: u64, hits: u64) -> Outcome {
    let hits = hits.min(MAX_CHECK_HITS);
    let verdict = decide(limit, state, now_us, hits);
    charge(limit, state, now_us, hits);
    Outcome {
        room: if verdict.allowed { 0 } else { verdict.remaining },
        ..with_stand_of(verdict, &decide(limit, state, now_us, 0))
    }
}

/// [`run`] for a transaction of one check, whose enforcement then makes no difference. Also tells whether the state changed.
pub fn run_one(check: &Check, state: &mut State, now_us: u64) -> (Outcome, bool) {
    if let Hits::Debit(hits) = check.hits {
        return (charge_one(&check.limit, state, now_us, hits), true);
    }
    let outcome = judge(check, state, now_us, 0);
    if changes(check, &outcome, outcome.allowed) {
        (commit(check, state, now_us, outcome), true)
    } else {
        (outcome, false)
    }
}

/// What a check comes to if its transaction passes, `before` being the hits that count before it.
fn judge(check: &Check, state: &State, now_us: u64, before: u64) -> Outcome {
    let limit = &check.limit;
    let hits = match check.hits {
        Hits::Acquire(hits) => hits.min(MAX_CHECK_HITS),
        // A charge is not judged: it has been counted by now.
        Hits::Peek | Hits::Debit(_) => 0,
        Hits::Lease(most) => return judge_lease(check, state, now_us, before, most),
        Hits::Refund(_) | Hits::Return { .. } => return freed(decide(limit, state, now_us, 0)),
    };
    if before == 0 {
        return decide(limit, state, now_us, hits);
    }
    let outcome = decide(limit, state, now_us, before + hits.max(1));
    if hits > 0 && outcome.allowed {
        return outcome;
    }
    // A peek or a denial adds nothing to what stood before it.
    with_stand_of(outcome, &decide(limit, state, now_us, before))
}

/// Grants what is left, up to `most` hits.
fn judge_lease(check: &Check, state: &State, now_us: u64, before: u64, most: u64) -> Outcome {
    let limit = &check.limit;
    let stands = decide(limit, state, now_us, before);
    let hits = most.min(stands.remaining).min(MAX_CHECK_HITS);
    match lease(limit, state, now_us) {
        None => Outcome {
            allowed: false,
            retry_after: RetryAfter::Never,
            delay_us: 0,
            ..stands
        },
        Some(_) if hits == 0 => {
            let denied = decide(limit, state, now_us, before + 1);
            with_stand_of(denied, &stands)
        }
        Some((slice, left_us)) => Outcome {
            grant: Some(Grant { hits, slice, left_us }),
            ..decide(limit, state, now_us, before + hits)
        },
    }
}

/// Hits that a check adds to its counter.
fn counted(check: &Check, outcome: &Outcome, passes: bool) -> u64 {
    match check.hits {
        Hits::Acquire(hits) if passes && outcome.allowed => hits.min(MAX_CHECK_HITS),
        Hits::Lease(_) if passes => outcome.grant.map_or(0, |grant| grant.hits),
        _ => 0,
    }
}

/// Whether a check changes its counter.
fn changes(check: &Check, outcome: &Outcome, passes: bool) -> bool {
    match check.hits {
        Hits::Acquire(_) | Hits::Lease(_) => counted(check, outcome, passes) > 0,
        Hits::Refund(_) | Hits::Return { .. } => passes,
        Hits::Peek | Hits::Debit(_) => false,
    }
}

/// Changes the counter. What is given back is told as of after it.
fn commit(check: &Check, state: &mut State, now_us: u64, outcome: Outcome) -> Outcome {
    let limit = &check.limit;
    match check.hits {
        Hits::Refund(hits) => give(limit, state, now_us, hits.min(MAX_CHECK_HITS)),
        Hits::Return { slice, hits } => {
            give_to(limit, state, now_us, slice, hits.min(MAX_CHECK_HITS));
        }
        Hits::Acquire(_) | Hits::Lease(_) | Hits::Peek | Hits::Debit(_) => {
            apply(limit, state, now_us, counted(check, &outcome, true));
            return outcome;
        }
    }
    freed(decide(limit, state, now_us, 0))
}

/// The outcome of a check whose transaction did not pass.
fn as_things_stand(limit: &Limit, state: &State, now_us: u64, outcome: Outcome) -> Outcome {
    with_stand_of(outcome, &decide(limit, state, now_us, 0))
}

/// The verdict of one outcome with the numbers of another.
fn with_stand_of(verdict: Outcome, stands: &Outcome) -> Outcome {
    Outcome {
        remaining: stands.remaining,
        reset_after_us: stands.reset_after_us,
        delay_us: 0,
        grant: None,
        ..verdict
    }
}

/// What is given back is always allowed, however things stand.
const fn freed(stands: Outcome) -> Outcome {
    Outcome {
        allowed: true,
        retry_after: RetryAfter::Now,
        ..stands
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::algorithms::limit::{LimitSpec, build};
    use crate::model::{AlgorithmKind, CounterKey, Enforcement, Unit, Window};

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
            .map(|outcome| (outcome.allowed, outcome.remaining))
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
            run_on(list, &[b(Acquire(1), Quota), a(Acquire(1), Quota)]),
            [(true, 3), (false, 0)]
        );
        // The only quota is over.
        assert_eq!(
            run_on(list, &[b(Acquire(1), Shadow), a(Acquire(1), Quota)]),
            [(true, 3), (false, 0)]
        );
        // A give helps later transactions only, and not at all if its own does not pass.
        assert_eq!(
            run_on(list, &[a(Refund(2), Enforce), a(Acquire(1), Enforce)]),
            [(true, 0), (false, 0)]
        );
        assert_eq!(
            run_on(list, &[a(Refund(2), Enforce), a(Peek, Shadow)]),
            [(true, 2), (false, 0)]
        );
        assert_eq!(
            run_on(list, &[a(Peek, Enforce), a(Acquire(1), Enforce), a(Peek, Enforce)]),
            [(true, 2), (true, 1), (true, 1)]
        );
    }
}
