//! Permits of `concurrency` limits and holds: which of them a request has, and how they are given back when its caller
//! disconnects before the answer.

use std::sync::Arc;

use smallvec::SmallVec;

use crate::model::{Algorithm, Check, Hits, Transaction};
use crate::rules::OnStoreError;
use crate::store::{Cause, Correction, Outcomes, Store};

use super::failure;
use super::plan::{Plan, PlanEntry};
use super::status::{Status, StatusLimit};

/// An answer with the permits and holds that it grants. If it is dropped before it was [disarmed](Self::disarm), the
/// caller has disconnected and will never give them back, so this does.
pub(super) struct Granted {
    pub outcomes: Outcomes,
    permits: Option<(Arc<dyn Store>, SmallVec<[Correction; 1]>)>,
}

impl Granted {
    /// An answer that grants nothing that has to be given back.
    const fn nothing(outcomes: Outcomes) -> Self {
        Self {
            outcomes,
            permits: None,
        }
    }

    /// The answer of a store, or of fallback counters, to a transaction.
    ///
    /// `modes` has a failure mode for each check; `None` = the store decided.
    pub fn of(
        store: &Arc<dyn Store>,
        transaction: &Transaction,
        outcomes: Outcomes,
        modes: Option<&[OnStoreError]>,
    ) -> Self {
        // Permits that fallback counters grant expire.
        let is_given_back = |check: &Check, cause: Cause| {
            modes.is_none() || cause == Cause::Hold && !failure::is_local_mean(modes, check)
        };
        let cause = |check: &Check| cause(check).filter(|cause| is_given_back(check, *cause));
        let grants = |check: &Check| cause(check).is_some();
        if !transaction.checks.iter().any(grants) || !transaction.passes(outcomes.iter().map(|o| o.allowed)) {
            return Self::nothing(outcomes);
        }
        let allowed = transaction.checks.iter().zip(&outcomes).filter(|(_, o)| o.allowed);
        let permits = allowed.filter_map(|(check, outcome)| Correction::undo(check, outcome, cause(check)?));
        let permits = permits.collect();
        Self {
            outcomes,
            permits: Some((Arc::clone(store), permits)),
        }
    }

    /// Whether it grants permits or holds.
    pub const fn grants(&self) -> bool {
        self.permits.is_some()
    }

    /// The answer reaches the caller, which has to give them back from now on.
    pub fn disarm(&mut self) {
        self.permits = None;
    }
}

impl Drop for Granted {
    fn drop(&mut self) {
        if let Some((store, permits)) = self.permits.take() {
            permits.into_iter().for_each(|permit| store.correct(permit));
        }
    }
}

/// The cause under which what a check is granted is given back; `None` if it asks for neither permits nor a hold.
const fn cause(check: &Check) -> Option<Cause> {
    match check.hits {
        Hits::Hold { .. } | Hits::HoldMean(_) => Some(Cause::Hold),
        _ if permits(check).is_some() => Some(Cause::Permit),
        _ => None,
    }
}

/// The permits that a check asks for.
const fn permits(check: &Check) -> Option<u64> {
    match (check.limit.algorithm, check.hits) {
        (Algorithm::Concurrency, Hits::Acquire(permits)) => Some(permits),
        _ => None,
    }
}

/// Writes into the statuses which permits the request holds. `modes` has a failure mode for each check; `None` = the store
/// decided.
pub(super) fn note(plan: &Plan, modes: Option<&[OnStoreError]>, over_limit: bool, statuses: &mut [Status]) {
    for (entry, status) in plan.entries.iter().zip(statuses) {
        let (PlanEntry::Counted { check: at, .. }, StatusLimit::Counted(counted)) = (entry, &mut status.limit) else {
            continue;
        };
        let asks = plan.transaction.checks.get(*at).map(|check| check.hits);
        counted.holds = matches!(asks, Some(Hits::Hold { .. })) && counted.outcome.holds.own > 0;
        if let Some(permits) = plan.transaction.checks.get(*at).and_then(permits) {
            let holds = !over_limit && !counted.denied && failure::is_counted(modes, *at);
            counted.permits = Some(if holds { permits } else { 0 });
        }
    }
}
