//! All or nothing over several servers: check and commit each group of keys, give back where another group denied.
//!
//! For keys that cannot go in one call: slots of a Redis Cluster, or pools for different units. A moment of
//! over-counting between the two steps can deny a request too many, never admit one.

use std::future::Future;

use futures::future::join_all;
use smallvec::{SmallVec, smallvec};

use super::{Outcomes, StoreError};
use crate::model::{Check, Enforcement, Hits, Outcome, RetryAfter, Transaction};

/// The checks of a transaction that go together.
struct Group {
    place: u64,
    /// Where each of them stands in the whole transaction.
    positions: SmallVec<[usize; 2]>,
    checks: SmallVec<[Check; 2]>,
}

/// Decides a transaction whose checks live in several places: `place_of` says where each does, and `call` decides
/// those of one place as one transaction.
///
/// The second step's calls outlive the caller's interest: what was taken in vain is given back even if this future
/// is dropped meanwhile.
///
/// # Errors
/// The first group's that could not decide; what other groups took is given back.
pub async fn check<C, F>(
    transaction: &Transaction,
    place_of: impl Fn(&Check) -> u64,
    call: C,
) -> Result<Outcomes, StoreError>
where
    C: Fn(u64, Transaction) -> F + Clone + Send + 'static,
    F: Future<Output = Result<Outcomes, StoreError>> + Send,
{
    let groups = split(transaction, place_of);
    let calls = groups.iter().map(|group| {
        let checks = group.checks.clone();
        call(group.place, with(checks, transaction))
    });
    let answers: SmallVec<[_; 4]> = join_all(calls).await.into_iter().collect();
    let mut merged = Outcomes::from_elem(UNKNOWN, transaction.checks.len());
    let mut failed = None;
    let mut taken: SmallVec<[bool; 4]> = smallvec![false; transaction.checks.len()];
    for (group, answer) in groups.iter().zip(answers) {
        match answer {
            Ok(outcomes) if outcomes.len() == group.checks.len() => {
                note(group, &outcomes, &mut merged, &mut taken);
            }
            Ok(_) => failed = Some(StoreError::Protocol("an answer is missing".to_owned())),
            Err(error) => failed = failed.or(Some(error)),
        }
    }
    for (check, outcome) in transaction.checks.iter().zip(&mut merged) {
        if gives(check.hits) {
            (outcome.allowed, outcome.retry_after) = (true, RetryAfter::Now);
        }
    }
    let passes = failed.is_none() && transaction.passes(merged.iter().map(|o| o.allowed));
    let second: SmallVec<[Option<Hits>; 4]> = transaction
        .checks
        .iter()
        .zip(&merged)
        .zip(&taken)
        .map(|((check, outcome), &taken)| match check.hits {
            Hits::Acquire(hits) if !passes && taken => Some(Hits::Refund(hits)),
            Hits::Lease(_) if !passes && taken => outcome.grant.map(Hits::from),
            give @ (Hits::Refund(_) | Hits::Return { .. }) if failed.is_none() => Some(give),
            _ => None,
        })
        .collect();
    settle(transaction, &groups, &second, &call, &mut merged).await;
    failed.map_or(Ok(merged), Err)
}

/// Stands where no answer has come.
const UNKNOWN: Outcome = Outcome::refused(0, RetryAfter::Never, 0);

const fn gives(hits: Hits) -> bool {
    matches!(hits, Hits::Refund(_) | Hits::Return { .. })
}

fn with(checks: SmallVec<[Check; 2]>, transaction: &Transaction) -> Transaction {
    Transaction {
        checks,
        deadline: transaction.deadline,
        exact: transaction.exact,
    }
}

/// Groups in the order of their first check.
fn split(transaction: &Transaction, place_of: impl Fn(&Check) -> u64) -> SmallVec<[Group; 4]> {
    let mut groups: SmallVec<[Group; 4]> = SmallVec::new();
    for (position, check) in transaction.checks.iter().enumerate() {
        let place = place_of(check);
        let check = Check {
            // Whether all quota checks are over is only known over all groups, so no group decides by its own.
            enforcement: match check.enforcement {
                Enforcement::Enforce if !gives(check.hits) => Enforcement::Enforce,
                _ => Enforcement::Shadow,
            },
            // What is given must not be taken again when the transaction is denied: it waits for the second step.
            hits: if gives(check.hits) { Hits::Peek } else { check.hits },
            ..check.clone()
        };
        match groups.iter_mut().find(|group| group.place == place) {
            Some(group) => {
                group.checks.push(check);
                group.positions.push(position);
            }
            None => groups.push(Group {
                place,
                positions: smallvec![position],
                checks: smallvec![check],
            }),
        }
    }
    groups
}

/// Puts a group's answers where they belong, and notes which checks have taken hits that may have to go back.
fn note(group: &Group, outcomes: &Outcomes, merged: &mut Outcomes, taken: &mut [bool]) {
    let committed = group
        .checks
        .iter()
        .zip(outcomes)
        .all(|(check, outcome)| check.enforcement != Enforcement::Enforce || outcome.allowed);
    for ((check, outcome), &position) in group.checks.iter().zip(outcomes).zip(&group.positions) {
        merged[position] = *outcome;
        taken[position] = committed && outcome.allowed && matches!(check.hits, Hits::Acquire(_) | Hits::Lease(_));
    }
}

/// The second step: what `second` says for each check, in one call for each group; corrects what the caller is told.
async fn settle<C, F>(
    transaction: &Transaction,
    groups: &[Group],
    second: &[Option<Hits>],
    call: &C,
    merged: &mut Outcomes,
) where
    C: Fn(u64, Transaction) -> F + Clone + Send + 'static,
    F: Future<Output = Result<Outcomes, StoreError>> + Send,
{
    let mut tasks: SmallVec<[_; 4]> = SmallVec::new();
    for group in groups {
        let gives: SmallVec<[(usize, Hits); 2]> = group
            .positions
            .iter()
            .filter_map(|&position| Some((position, second[position]?)))
            .collect();
        if gives.is_empty() {
            continue;
        }
        let checks = gives
            .iter()
            .map(|&(position, hits)| Check {
                hits,
                enforcement: Enforcement::Shadow,
                ..transaction.checks[position].clone()
            })
            .collect();
        let (call, place) = (call.clone(), group.place);
        // Without the caller's deadline: it must happen also when the caller has given up.
        let gives_only = Transaction {
            checks,
            ..Transaction::default()
        };
        let task = tokio::spawn(async move { call(place, gives_only).await });
        tasks.push((gives, task));
    }
    for (gives, task) in tasks {
        let answers = task.await.ok().and_then(Result::ok).unwrap_or_default();
        for (n, (position, hits)) in gives.into_iter().enumerate() {
            let outcome = &mut merged[position];
            (outcome.delay_us, outcome.grant) = (0, None);
            match (answers.get(n), hits) {
                (Some(after), _) => {
                    outcome.remaining = after.remaining;
                    outcome.reset_after_us = after.reset_after_us;
                }
                (None, Hits::Refund(hits) | Hits::Return { hits, .. }) => {
                    outcome.remaining = outcome.remaining.saturating_add(hits);
                }
                (None, _) => {}
            }
        }
    }
}
