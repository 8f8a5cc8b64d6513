//! All or nothing over several shards: the slots of a cluster, or two servers for different windows.
//!
//! Each part is decided and counted by itself, all at the same time. If one of them denies, what the others counted is
//! recorded in the ledger as corrections: a moment of counting too much can deny a request too many, never admit one.

use futures::future::join_all;
use smallvec::{SmallVec, smallvec};

use super::job::{Calls, Permits, Reply};
use super::transport::Answers;
use crate::algorithms::op::{Answer, Op};
use crate::model::{Check, CounterKey, Enforcement, Hits, Limit, Outcome, RetryAfter, Transaction};
use crate::store::correction::{Cause, Correction};
use crate::store::{Outcomes, StoreError};

/// The checks of a transaction that go together.
struct ShardPart<P> {
    place: P,
    /// Where each of them stands in the whole transaction.
    positions: SmallVec<[usize; 2]>,
    checks: SmallVec<[Check<Op>; 2]>,
    /// The same of the leases to ask for.
    lease_positions: SmallVec<[usize; 1]>,
    leases: SmallVec<[Check<Op>; 2]>,
}

/// Stands where no answer has come.
const UNKNOWN: Outcome = Outcome::refused(0, RetryAfter::Never, 0);

/// What a transaction over several places came to: outcomes, granted leases, and the permits in it.
pub(super) type Decided = (Outcomes, Answers, SmallVec<[Permits; 2]>);

/// Decides a transaction whose checks live in several places: `place_of` says where each does, `call` asks one place, and
/// `correct` records what must be undone; `count_again` hears of refunds that a
/// part has taken while another failed, since the failure mode is given them once more. `leases` are asked where their counters live, in a transaction after it.
///
/// # Errors
/// The first part's that could not be decided; what other parts counted is undone.
pub(super) async fn check<P, F>(
    transaction: &Transaction,
    leases: Option<Transaction<Op>>,
    place_of: impl Fn(&CounterKey, &Limit) -> P,
    call: impl Fn(P, Calls) -> F,
    correct: impl Fn(Correction),
    count_again: impl Fn(&Check, u64),
) -> Result<Decided, StoreError>
where
    P: PartialEq + Copy,
    F: Future<Output = Reply>,
{
    let parts = split(transaction, leases.as_ref(), place_of);
    let calls = parts.iter().map(|part| {
        let with = |checks: &SmallVec<[Check<Op>; 2]>| Transaction {
            checks: checks.clone(),
            deadline: transaction.deadline,
            exact: transaction.exact,
        };
        let mut calls: Calls = smallvec![with(&part.checks)];
        calls.extend((!part.leases.is_empty()).then(|| with(&part.leases)));
        call(part.place, calls)
    });
    // Dropped half-way, the permits in the answers that have come are given back.
    let replies = join_all(calls).await;
    let mut merged = Outcomes::from_elem(UNKNOWN, transaction.checks.len());
    let mut granted = Answers::new();
    granted.resize(
        leases.as_ref().map_or(0, |leases| leases.checks.len()),
        Answer {
            outcome: UNKNOWN,
            grant: None,
        },
    );
    let mut counted: SmallVec<[bool; 4]> = smallvec![false; transaction.checks.len()];
    let mut permits: SmallVec<[Permits; 2]> = SmallVec::new();
    let mut failed = None;
    for (part, reply) in parts.iter().zip(replies) {
        match reply {
            Ok((answers, held)) => {
                permits.push(held);
                if let Some(answers) = answers.first() {
                    note(part, answers, &mut merged, &mut counted);
                }
                let leased = answers.get(1).into_iter().flatten();
                for (answer, &position) in leased.zip(&part.lease_positions) {
                    if let Some(granted) = granted.get_mut(position) {
                        *granted = *answer;
                    }
                }
            }
            Err(error) => failed = failed.or(Some(error)),
        }
    }
    let passes = failed.is_none() && transaction.passes(merged.iter().map(|outcome| outcome.allowed));
    if !passes {
        permits.iter_mut().for_each(Permits::disarm);
        undo(transaction, &mut merged, &counted, failed.is_some(), &correct);
        if failed.is_some() {
            let done = transaction.checks.iter().zip(&counted).filter(|(_, counted)| **counted);
            for (check, _) in done {
                if let Hits::Refund(hits) = check.hits {
                    count_again(check, hits);
                }
            }
        }
    }
    if failed.is_some() {
        // Nobody will use them.
        for (lease, answer) in leases.iter().flat_map(|leases| &leases.checks).zip(&granted) {
            if let Some(grant) = answer.grant {
                correct(Correction::give_back(lease, &answer.outcome, grant.hits, Cause::Lease));
            }
        }
    }
    failed.map_or(Ok((merged, granted, permits)), Err)
}

/// Undoes what the parts of a request that does not pass have counted. Debits stay counted, unless a part has failed: the
/// failure mode then decides them again.
fn undo(
    transaction: &Transaction,
    merged: &mut Outcomes,
    counted: &[bool],
    failed: bool,
    correct: &impl Fn(Correction),
) {
    for ((check, outcome), counted) in transaction.checks.iter().zip(merged).zip(counted) {
        if let (Hits::Hold { .. } | Hits::HoldMean(_), true) = (check.hits, *counted) {
            let hits = std::mem::take(&mut outcome.holds.own);
            correct(match check.hits {
                Hits::Hold { id, .. } => Correction::release(check, id, hits, Cause::Split),
                _ => Correction::release_oldest(check, hits, Cause::Split),
            });
            outcome.remaining = outcome.remaining.saturating_add(hits);
            outcome.holds.open = outcome.holds.open.saturating_sub(hits);
            continue;
        }
        let hits = match check.hits {
            Hits::Acquire(hits) => hits,
            Hits::Settle { hits, .. } if failed && !outcome.holds.repeated => hits,
            Hits::SettleOldest { hits, .. } if failed => hits,
            Hits::Debit(hits) if failed => hits,
            _ => 0,
        };
        if *counted && hits > 0 {
            correct(Correction::give_back(check, outcome, hits, Cause::Split));
            outcome.remaining = outcome.remaining.saturating_add(hits);
            (outcome.delay_us, outcome.slice) = (0, 0);
        }
    }
}

/// Parts in the order of their first check.
fn split<P: PartialEq + Copy>(
    transaction: &Transaction,
    leases: Option<&Transaction<Op>>,
    place_of: impl Fn(&CounterKey, &Limit) -> P,
) -> SmallVec<[ShardPart<P>; 4]> {
    let mut parts: SmallVec<[ShardPart<P>; 4]> = SmallVec::new();
    for (position, check) in transaction.checks.iter().enumerate() {
        let part = part_of(&mut parts, place_of(&check.key, &check.limit));
        part.positions.push(position);
        part.checks.push(Check {
            key: check.key.clone(),
            limit: check.limit,
            hits: check.hits.into(),
            // Whether all quota checks are over is only known over all parts, so no part decides by its own.
            enforcement: match check.enforcement {
                Enforcement::Quota(_) => Enforcement::Shadow,
                other => other,
            },
        });
    }
    for (position, lease) in leases.into_iter().flat_map(|leases| &leases.checks).enumerate() {
        let part = part_of(&mut parts, place_of(&lease.key, &lease.limit));
        part.lease_positions.push(position);
        part.leases.push(lease.clone());
    }
    parts
}

fn part_of<P: PartialEq>(parts: &mut SmallVec<[ShardPart<P>; 4]>, place: P) -> &mut ShardPart<P> {
    let at = parts.iter().position(|part| part.place == place).unwrap_or_else(|| {
        parts.push(ShardPart {
            place,
            positions: SmallVec::new(),
            checks: SmallVec::new(),
            lease_positions: SmallVec::new(),
            leases: SmallVec::new(),
        });
        parts.len() - 1
    });
    &mut parts[at]
}

/// Puts a part's answers where they belong, and notes which checks have counted hits that may have to be undone.
fn note<P>(part: &ShardPart<P>, answers: &Answers, merged: &mut Outcomes, counted: &mut [bool]) {
    let denies =
        |(check, answer): (&Check<Op>, &Answer)| check.enforcement == Enforcement::Enforce && !answer.outcome.allowed;
    let committed = !part.checks.iter().zip(answers).any(denies);
    for ((check, answer), &position) in part.checks.iter().zip(answers).zip(&part.positions) {
        if let (Some(outcome), Some(counted)) = (merged.get_mut(position), counted.get_mut(position)) {
            *outcome = answer.outcome;
            *counted = match check.hits {
                Op::Acquire(_) => committed && answer.outcome.allowed,
                Op::Hold { .. } | Op::HoldMean(_) => committed && answer.outcome.holds.own > 0,
                Op::Debit(_) | Op::Refund(_) | Op::Settle { .. } | Op::SettleOldest { .. } => true,
                _ => false,
            };
        }
    }
}
