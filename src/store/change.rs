//! What a decision has changed in the counters.

use super::Outcomes;
use crate::model::{Check, Hits, Outcome, Transaction};

/// What a check has changed in its counter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change {
    /// Nothing.
    None,
    /// So many hits were counted.
    Counted(u64),
    /// So many were given back.
    Given(u64),
}

/// Goes through what a decision has changed.
pub(super) fn for_each_change(
    transaction: &Transaction,
    outcomes: &Outcomes,
    mut each: impl FnMut(&Check, &Outcome, Change),
) {
    let passes = transaction.passes(outcomes.iter().map(|outcome| outcome.allowed));
    for (check, outcome) in transaction.checks.iter().zip(outcomes) {
        let change = match check.hits {
            Hits::Acquire(hits) if passes && outcome.allowed => Change::Counted(hits),
            Hits::Debit(hits) => Change::Counted(hits),
            Hits::Lease(_) if passes => outcome.grant.map_or(Change::None, |grant| Change::Counted(grant.hits)),
            Hits::Refund(hits) | Hits::Return { hits, .. } => Change::Given(hits),
            _ => Change::None,
        };
        each(check, outcome, change);
    }
}
