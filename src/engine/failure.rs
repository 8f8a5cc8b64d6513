//! The failure mode: decisions while the store does not answer, by each rule's `on_store_error`.

use smallvec::SmallVec;

use crate::algorithms::quota;
use crate::model::{Check, Hits, Limit, Outcome, RetryAfter, Transaction};
use crate::rules::OnStoreError;
use crate::store::correction::{Cause, Correction, signed};
use crate::store::remote::Fallback;
use crate::store::{Outcomes, Store};

/// `retry_after` of a denial by `deny`, in microseconds.
const DENY_RETRY_US: u64 = crate::model::time::SECOND_US;

/// The mode for metrics of a request whose rules have several: the strictest.
pub(super) fn strongest(modes: &[OnStoreError]) -> OnStoreError {
    let has = |mode| modes.contains(&mode);
    match () {
        () if has(OnStoreError::Deny) => OnStoreError::Deny,
        () if has(OnStoreError::Local) => OnStoreError::Local,
        () => OnStoreError::Allow,
    }
}

/// Whether the hits of an allowed check were counted, by the store or by fallback counters: `allow` does not count. `modes` has
/// a failure mode for each check; `None` = the store decided.
pub(super) fn is_counted(modes: Option<&[OnStoreError]>, check: usize) -> bool {
    modes.is_none_or(|modes| modes.get(check) == Some(&OnStoreError::Local))
}

/// Whether a check asks for a hold without an id, and fallback counters have made it, not the store: there a release would end the
/// oldest hold of another request. `modes` as in [`is_counted`].
pub(super) fn is_local_mean(modes: Option<&[OnStoreError]>, check: &Check) -> bool {
    modes.is_some() && matches!(check.hits, Hits::HoldMean(_))
}

/// The outcomes by the failure mode of each check.
pub(super) fn answer(fallback: Option<&Fallback>, transaction: &Transaction, modes: &[OnStoreError]) -> Outcomes {
    // `deny` checks deny the request, whatever the fallback counters decide for the others.
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

/// Has the store charge later what it has not charged, or may not have, where no fallback counters have: the costs have arisen.
pub(super) fn charge_later(store: &dyn Store, transaction: &Transaction, modes: &[OnStoreError]) {
    let alone = transaction.checks.iter().zip(modes);
    for (check, _) in alone.filter(|(_, mode)| **mode != OnStoreError::Local) {
        match check.hits {
            Hits::Settle { hits, id } => store.correct(Correction::settle(check, id, hits, Cause::Settlement)),
            Hits::Debit(hits) | Hits::SettleOldest { hits, .. } if hits > 0 => {
                store.correct(Correction::unplaced(check, signed(hits), Cause::Settlement));
            }
            _ => {}
        }
    }
}

/// Ends holds that the store may have made, where the failure mode has granted none.
pub(super) fn end_unknown_holds(store: &dyn Store, transaction: &Transaction, outcomes: &Outcomes) {
    let passes = transaction.passes(outcomes.iter().map(|outcome| outcome.allowed));
    let checks = transaction.checks.iter().zip(outcomes).map(|(check, outcome)| {
        let is_granted = passes && matches!(check.hits, Hits::Hold { .. }) && outcome.holds.own > 0;
        (check, is_granted)
    });
    let ended = Correction::end_unknown(checks, true);
    ended.into_iter().for_each(|ended| store.correct(ended));
}

/// Decides the `local` checks by the fallback counters; only peeks if the request is refused anyway.
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

/// The hits of a check whose request is refused anyway: a peek, unless they have happened already.
const fn as_refused(hits: Hits) -> Hits {
    match hits {
        Hits::Debit(_) | Hits::Refund(_) | Hits::Settle { .. } | Hits::SettleOldest { .. } => hits,
        Hits::Acquire(_) | Hits::Peek | Hits::Hold { .. } | Hits::HoldMean(_) => Hits::Peek,
    }
}

/// The outcome of an unused counter.
fn passed(limit: &Limit) -> Outcome {
    Outcome::admitted(quota(limit), 0)
}

const fn turned_away() -> Outcome {
    Outcome::refused(0, RetryAfter::Micros(DENY_RETRY_US), DENY_RETRY_US)
}
