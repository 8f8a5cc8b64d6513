//! What is answered when the store cannot: `on_store_error`, rule by rule.

use std::sync::Arc;

use smallvec::SmallVec;

use crate::algorithms::limit;
use crate::model::{Check, Gate, Hits, Limit, Outcome, RetryAfter, Transaction};
use crate::rules::OnStoreError;
use crate::store::{Outcomes, Store};

/// How long a caller that `deny` turned away is told to wait, in microseconds.
const DENY_RETRY_US: u64 = crate::model::time::SECOND_US;

/// A store of this process alone that counts while the shared one is away.
pub struct LocalFallback {
    /// Counts.
    pub store: Arc<dyn Store>,
    /// Each of so many replicas enforces its part of a limit; at least 1.
    pub replicas: u32,
}

/// The mode that a metric names when a request's rules differ: the strictest.
pub(super) fn strongest(modes: &[OnStoreError]) -> OnStoreError {
    let has = |mode| modes.contains(&mode);
    match () {
        () if has(OnStoreError::Deny) => OnStoreError::Deny,
        () if has(OnStoreError::Local) => OnStoreError::Local,
        () => OnStoreError::Allow,
    }
}

/// Outcomes in place of the store's; `modes` holds one for each check.
pub(super) async fn answer(
    fallback: Option<&LocalFallback>,
    transaction: &Transaction,
    modes: &[OnStoreError],
) -> Outcomes {
    let denies = |(check, mode): (&Check, &OnStoreError)| *mode == OnStoreError::Deny && check.gate == Gate::Enforce;
    let refused = transaction.checks.iter().zip(modes).any(denies);
    let local = match fallback {
        Some(fallback) => ask_local(fallback, transaction, modes, refused).await,
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
async fn ask_local(
    fallback: &LocalFallback,
    transaction: &Transaction,
    modes: &[OnStoreError],
    refused: bool,
) -> Outcomes {
    let local = transaction
        .checks
        .iter()
        .zip(modes)
        .filter(|(_, mode)| **mode == OnStoreError::Local);
    let checks: SmallVec<[Check; 2]> = local
        .map(|(check, _)| Check {
            key: check.key.clone(),
            limit: limit::share(&check.limit, fallback.replicas),
            hits: if refused { Hits::Peek } else { check.hits },
            gate: check.gate,
        })
        .collect();
    if checks.is_empty() {
        return SmallVec::new();
    }
    // The memory store does not fail; should it ever, `answer` lets these checks pass.
    fallback
        .store
        .check(&Transaction {
            checks,
            deadline: transaction.deadline,
            no_lease: true,
        })
        .await
        .unwrap_or_default()
}

const fn passed(limit: &Limit) -> Outcome {
    Outcome {
        allowed: true,
        remaining: limit.hits,
        retry_after: RetryAfter::Now,
        reset_after_us: 0,
        delay_us: 0,
        grant: None,
    }
}

const fn turned_away() -> Outcome {
    let retry_after = RetryAfter::Micros(DENY_RETRY_US);
    Outcome {
        allowed: false,
        remaining: 0,
        retry_after,
        reset_after_us: DENY_RETRY_US,
        delay_us: 0,
        grant: None,
    }
}
