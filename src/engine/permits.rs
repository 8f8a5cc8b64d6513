//! Permits of `concurrency` limits and holds: which of them a request has, and how they are given back when
//! the answer reaches nobody.

use std::sync::Arc;

use smallvec::SmallVec;

use crate::model::{Algorithm, Check, Hits, Outcome, Transaction};
use crate::rules::OnStoreError;
use crate::store::{Cause, Correction, Outcomes, Store};

use super::failure;
use super::plan::{Plan, PlanEntry};
use super::status::{Status, StatusLimit};

/// A store's answer with the permits and holds that it grants. They are given back when it is dropped before it was
/// [disarmed](Self::disarm): the caller has gone away, so its request will never be done.
pub(super) struct Granted {
    pub outcomes: Outcomes,
    permits: Option<(Arc<dyn Store>, SmallVec<[Correction; 1]>)>,
}

impl Granted {
    /// An answer whose permits, if any, free themselves.
    pub const fn nothing(outcomes: Outcomes) -> Self {
        Self {
            outcomes,
            permits: None,
        }
    }

    /// A store's answer to a transaction.
    pub fn of(store: &Arc<dyn Store>, transaction: &Transaction, outcomes: Outcomes) -> Self {
        let asks =
            |check: &Check| asked(check).is_some() || matches!(check.hits, Hits::Hold { .. } | Hits::HoldMean(_));
        if !transaction.checks.iter().any(asks) || !transaction.passes(outcomes.iter().map(|o| o.allowed)) {
            return Self::nothing(outcomes);
        }
        let allowed = transaction.checks.iter().zip(&outcomes).filter(|(_, o)| o.allowed);
        let permits = allowed.filter_map(|(check, outcome)| granted(check, outcome)).collect();
        Self {
            outcomes,
            permits: Some((Arc::clone(store), permits)),
        }
    }

    /// Whether there is something to be given back.
    pub const fn grants(&self) -> bool {
        self.permits.is_some()
    }

    /// The answer reaches the caller, which gives them back from here on.
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

/// What gives back what an allowed check has been granted.
fn granted(check: &Check, outcome: &Outcome) -> Option<Correction> {
    match check.hits {
        Hits::Hold { id, .. } if outcome.holds.own > 0 => {
            Some(Correction::release(check, id, outcome.holds.own, Cause::Hold))
        }
        Hits::HoldMean(_) if outcome.holds.own > 0 => {
            Some(Correction::release_oldest(check, outcome.holds.own, Cause::Hold))
        }
        _ => Some(Correction::give_back(check, outcome, asked(check)?, Cause::Permit)),
    }
}

/// The permits that a check asks for.
const fn asked(check: &Check) -> Option<u64> {
    match (check.limit.algorithm, check.hits) {
        (Algorithm::Concurrency, Hits::Acquire(permits)) => Some(permits),
        _ => None,
    }
}

/// Writes into the statuses which permits the request holds. `modes` has a failure mode for each check.
pub(super) fn note(plan: &Plan, modes: Option<&[OnStoreError]>, over_limit: bool, statuses: &mut [Status]) {
    for (entry, status) in plan.entries.iter().zip(statuses) {
        let (PlanEntry::Counted { check: at, .. }, StatusLimit::Counted(counted)) = (entry, &mut status.limit) else {
            continue;
        };
        let asks = plan.transaction.checks.get(*at).map(|check| check.hits);
        counted.holds = matches!(asks, Some(Hits::Hold { .. })) && counted.outcome.holds.own > 0;
        if let Some(permits) = plan.transaction.checks.get(*at).and_then(asked) {
            let holds = !over_limit && !counted.denied && failure::is_counted(modes, *at);
            counted.permits = Some(if holds { permits } else { 0 });
        }
    }
}
