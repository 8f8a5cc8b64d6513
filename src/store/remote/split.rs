//! All or nothing over several shards: the slots of a cluster, or two servers for different windows.
//!
//! Each part of a transaction is decided and counted by itself, all parts at the same time. If a part denies or fails, what
//! the others counted is recorded in the ledger as corrections. Until those are applied, a counter has too many hits: it may
//! deny a request too many, and never admits one too many.

use futures::future::join_all;
use smallvec::{SmallVec, smallvec};

use super::job::Calls;
use super::transport::{Answers, Transport};
use super::{Location, Remote};
use crate::algorithms::op::{Answer, Op};
use crate::model::{Check, Enforcement, Hits, Outcome, RetryAfter, Transaction};
use crate::store::correction::{Cause, Correction};
use crate::store::{Outcomes, Store, StoreError};

/// The checks of a transaction whose counters are in one location.
struct ShardPart {
    location: Location,
    /// The position of each of them in the whole transaction.
    positions: SmallVec<[usize; 2]>,
    checks: SmallVec<[Check<Op>; 2]>,
    /// The position of each lease in the whole transaction of leases.
    lease_positions: SmallVec<[usize; 1]>,
    leases: SmallVec<[Check<Op>; 2]>,
}

/// Stands for an answer that has not come.
const UNKNOWN: Outcome = Outcome::refused(0, RetryAfter::Never, 0);

impl<T: Transport> Remote<T> {
    /// Decides a transaction whose counters are in several locations. `leases` are requested in a second transaction of the
    /// calls to their counters' locations.
    ///
    /// # Errors
    /// The error of the first part that could not be decided; what the other parts counted is undone.
    pub(super) async fn ask_split(
        &self,
        transaction: &Transaction,
        leases: Option<Transaction<Op>>,
    ) -> Result<(Outcomes, Answers), StoreError> {
        let parts = self.parts(transaction, leases.as_ref());
        let calls = parts.iter().map(|part| {
            let with = |checks: &SmallVec<[Check<Op>; 2]>| Transaction {
                checks: checks.clone(),
                deadline: transaction.deadline,
                exact: transaction.exact,
            };
            let mut calls: Calls = smallvec![with(&part.checks)];
            calls.extend((!part.leases.is_empty()).then(|| with(&part.leases)));
            self.call(part.location, calls)
        });
        // If this future is dropped before all have answered, the permits in the answers that have come are given back.
        let replies = join_all(calls).await;
        let mut merged = Outcomes::from_elem(UNKNOWN, transaction.checks.len());
        let mut granted = Answers::from_elem(UNKNOWN.into(), leases.as_ref().map_or(0, |leases| leases.checks.len()));
        let mut counted: SmallVec<[bool; 4]> = smallvec![false; transaction.checks.len()];
        let mut failed = None;
        for (part, reply) in parts.iter().zip(replies) {
            match reply {
                Ok((answers, mut permits)) => {
                    permits.disarm();
                    if let Some(answers) = answers.first() {
                        merge(part, answers, &mut merged, &mut counted);
                    }
                    let leased = answers.get(1).into_iter().flatten();
                    for (answer, &position) in leased.zip(&part.lease_positions) {
                        if let Some(granted) = granted.get_mut(position) {
                            *granted = *answer;
                        }
                    }
                }
                // What may have been done is to be known of all.
                Err(error) => failed = failed.filter(StoreError::is_indeterminate).or(Some(error)),
            }
        }
        if failed.is_some() || !transaction.passes(merged.iter().map(|outcome| outcome.allowed)) {
            self.undo(transaction, &mut merged, &counted, failed.is_some());
        }
        let Some(error) = failed else {
            return Ok((merged, granted));
        };
        // The request gets no answer from here, so it cannot use the leases either.
        for (lease, answer) in leases.iter().flat_map(|leases| &leases.checks).zip(&granted) {
            if let Some(grant) = answer.grant {
                self.correct(Correction::give_back(lease, &answer.outcome, grant.hits, Cause::Lease));
            }
        }
        Err(error)
    }

    /// Undoes what the parts of a request that does not pass have counted. Settlements stand; debits and refunds do, unless a part has failed:
    /// the failure mode then decides the whole request again.
    fn undo(&self, transaction: &Transaction, merged: &mut Outcomes, counted: &[bool], failed: bool) {
        let checks = transaction.checks.iter().zip(merged).zip(counted);
        for ((check, outcome), _) in checks.filter(|(_, counted)| **counted) {
            let correction = match check.hits {
                Hits::Refund(hits) => {
                    // The refund stands in the store, and was mirrored. The failure mode's decision makes it once more.
                    if let Some(fallback) = self.fallback.as_ref().filter(|_| failed) {
                        fallback.count_again(check, hits);
                    }
                    None
                }
                // The failure mode has it settled again, which the store does not do a second time.
                Hits::Settle { .. } => None,
                Hits::Debit(hits) | Hits::SettleOldest { hits, .. } => {
                    failed.then(|| Correction::give_back(check, outcome, hits, Cause::Split))
                }
                Hits::Acquire(_) | Hits::Peek | Hits::Hold { .. } | Hits::HoldMean(_) => {
                    Correction::undo(check, outcome, Cause::Split)
                }
            };
            let Some(correction) = correction else { continue };
            let own = std::mem::take(&mut outcome.holds.own);
            outcome.holds.open = outcome.holds.open.saturating_sub(own);
            outcome.remaining = outcome.remaining.saturating_add(correction.delta.unsigned_abs());
            (outcome.delay_us, outcome.slice) = (0, 0);
            self.correct(correction);
        }
    }

    /// Parts in the order of their first check.
    fn parts(&self, transaction: &Transaction, leases: Option<&Transaction<Op>>) -> SmallVec<[ShardPart; 4]> {
        let mut parts: SmallVec<[ShardPart; 4]> = SmallVec::new();
        for (position, check) in transaction.checks.iter().enumerate() {
            let part = part_of(&mut parts, self.place(&check.key, &check.limit));
            part.positions.push(position);
            part.checks.push(Check {
                key: check.key.clone(),
                limit: check.limit,
                hits: check.hits.into(),
                // Whether all quota checks deny is known only once all parts have answered, so no part decides by its own.
                enforcement: match check.enforcement {
                    Enforcement::Quota(_) => Enforcement::Shadow,
                    other => other,
                },
            });
        }
        for (position, lease) in leases.into_iter().flat_map(|leases| &leases.checks).enumerate() {
            let part = part_of(&mut parts, self.place(&lease.key, &lease.limit));
            part.lease_positions.push(position);
            part.leases.push(lease.clone());
        }
        parts
    }
}

fn part_of(parts: &mut SmallVec<[ShardPart; 4]>, location: Location) -> &mut ShardPart {
    let at = parts
        .iter()
        .position(|part| part.location == location)
        .unwrap_or_else(|| {
            parts.push(ShardPart {
                location,
                positions: SmallVec::new(),
                checks: SmallVec::new(),
                lease_positions: SmallVec::new(),
                leases: SmallVec::new(),
            });
            parts.len() - 1
        });
    &mut parts[at]
}

/// Puts a part's answers where they belong, and marks the checks that have counted hits, which may have to be undone.
fn merge(part: &ShardPart, answers: &Answers, merged: &mut Outcomes, counted: &mut [bool]) {
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
