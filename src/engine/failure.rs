//! What is answered when the store cannot: `on_store_error`, rule by rule.

use smallvec::SmallVec;

use crate::algorithms::quota;
use crate::model::{Check, Hits, Limit, Outcome, RetryAfter, Transaction};
use crate::rules::OnStoreError;
use crate::store::Outcomes;
use crate::store::remote::Fallback;

/// How long a caller that `deny` turned away is told to wait, in microseconds.
const DENY_RETRY_US: u64 = crate::model::time::SECOND_US;

/// The mode that a metric names when a request's rules differ: the strictest.
pub(super) fn strongest(modes: &[OnStoreError]) -> OnStoreError {
    let has = |mode| modes.contains(&mode);
    match () {
        () if has(OnStoreError::Deny) => OnStoreError::Deny,
        () if has(OnStoreError::Local) => OnStoreError::Local,
        () => OnStoreError::Allow,
    }
}

/// Whether the hits of a check that was allowed are counted somewhere: not by `allow`. `modes` is `None` where the store
/// has decided.
pub(super) fn is_counted(modes: Option<&[OnStoreError]>, check: usize) -> bool {
    modes.is_none_or(|modes| modes.get(check) == Some(&OnStoreError::Local))
}

/// Outcomes in place of the store's; `modes` holds one for each check.
pub(super) fn answer(fallback: Option<&Fallback>, transaction: &Transaction, modes: &[OnStoreError]) -> Outcomes {
    // Whatever fallback counters say of the rest.
    let refused = !transaction.passes(modes.iter().map(|mode| *mode != OnStoreError::Deny));
    let local = match fallback {
        Some(fallback) => ask_local(fallback, transaction, modes, refused),
        None => SmallVec::new(),
    };
    let mut local = local.into_iter();
    let outcome = |(check, mode): (&Check, &OnStoreError)| match mode {
        OnStoreError::Local => local.next().unwrap_or_else(|| passed(&check.limit)),
        OnStoreError::Allow => passed(&check.limit),
        OnStoreError::Deny => turned_away(),
    };
    transaction.checks.iter().zip(modes).map(outcome).collect()
}

/// Counts the `local` checks; only looks at them when the request is refused anyway.
fn ask_local(fallback: &Fallback, transaction: &Transaction, modes: &[OnStoreError], refused: bool) -> Outcomes {
    let local = transaction
        .checks
        .iter()
        .zip(modes)
        .filter(|(_, mode)| **mode == OnStoreError::Local);
    let checks: SmallVec<[Check; 2]> = local
        .map(|(check, _)| Check {
            hits: if refused { as_refused(check.hits) } else { check.hits },
            ..check.clone()
        })
        .collect();
    if checks.is_empty() {
        return SmallVec::new();
    }
    let transaction = Transaction {
        checks,
        deadline: transaction.deadline,
        exact: true,
    };
    fallback.decide(&transaction)
}

/// What is left of a check when its request is refused anyway: a look, unless it has happened already.
const fn as_refused(hits: Hits) -> Hits {
    match hits {
        Hits::Debit(_) | Hits::Refund(_) | Hits::Settle { .. } | Hits::SettleOldest { .. } => hits,
        Hits::Acquire(_) | Hits::Peek | Hits::Hold { .. } | Hits::HoldMean(_) => Hits::Peek,
    }
}

/// As if its counter were unused.
fn passed(limit: &Limit) -> Outcome {
    Outcome::admitted(quota(limit), 0)
}

const fn turned_away() -> Outcome {
    Outcome::refused(0, RetryAfter::Micros(DENY_RETRY_US), DENY_RETRY_US)
}
