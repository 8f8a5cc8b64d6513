//! Slots of `concurrency` limits: which of them a request holds, and what becomes of them when nobody hears the answer.

use std::sync::Arc;

use tokio::runtime::Handle;

use crate::model::{Algorithm, Check, Enforcement, Hits, Transaction};
use crate::rules::OnStoreError;
use crate::store::standby::{Fate, Standby};
use crate::store::{Outcomes, Store, StoreError};

use super::decision::{Status, StatusLimit};
use super::failure;
use super::plan::{Plan, Slot};

/// A store's answer with the slots that it took. They are given back when it is dropped before it was
/// [heard](Self::heard): the caller has gone away, so its request will never be done.
pub(super) struct Held {
    pub outcomes: Outcomes,
    slots: Option<(Counters, Transaction)>,
}

/// Where hits can be given back to.
#[derive(Clone)]
pub(super) struct Counters {
    pub store: Arc<dyn Store>,
    pub standby: Option<Arc<Standby>>,
}

impl Counters {
    /// Gives back what was counted. While the store is away the counters that stand by for it take that, and tell it
    /// when it is back.
    ///
    /// # Errors
    /// The store's; without counters that stand by nothing was given back then.
    pub async fn give(&self, give: &Transaction) -> Result<(), StoreError> {
        let given = self.store.check(give).await.map(drop);
        if let (Err(error), Some(standby)) = (&given, &self.standby) {
            let _ = standby.decide(give, Fate::of(error));
        }
        given
    }
}

impl Held {
    /// An answer whose slots, if any, somebody else looks after.
    pub const fn nothing(outcomes: Outcomes) -> Self {
        Self { outcomes, slots: None }
    }

    /// From here on the caller gives them back.
    pub fn heard(&mut self) {
        self.slots = None;
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // Without a runtime the process is about to end, and the slots free themselves.
        let (Some((counters, give)), Ok(runtime)) = (self.slots.take(), Handle::try_current()) else {
            return;
        };
        runtime.spawn(async move {
            if let Err(error) = counters.give(&give).await {
                tracing::debug!(%error, "the store could not be told of slots that a caller left");
            }
        });
    }
}

/// Asks the store. A call that takes slots is seen to its end even if the caller goes away meanwhile, since only its
/// answer says whether there is something to give back.
///
/// # Errors
/// The store's.
pub(super) async fn ask(counters: &Counters, transaction: &Transaction) -> Result<Held, StoreError> {
    if !transaction.checks.iter().any(|check| asked(check).is_some()) {
        return counters.store.check(transaction).await.map(Held::nothing);
    }
    let (counters, transaction) = (counters.clone(), transaction.clone());
    let call = tokio::spawn(async move {
        let outcomes = counters.store.check(&transaction).await?;
        let slots = taken(&transaction, &outcomes).map(|give| (counters, give));
        Ok(Held { outcomes, slots })
    });
    call.await.unwrap_or_else(|error| {
        Err(StoreError::Protocol(format!(
            "the call ended without an answer: {error}"
        )))
    })
}

/// The slots that a check asks for.
const fn asked(check: &Check) -> Option<u64> {
    match (check.limit.algorithm, check.hits) {
        (Algorithm::Concurrency, Hits::Acquire(slots)) => Some(slots),
        _ => None,
    }
}

/// What gives back the slots that a transaction took.
fn taken(transaction: &Transaction, outcomes: &Outcomes) -> Option<Transaction> {
    if !transaction.passes(outcomes.iter().map(|outcome| outcome.allowed)) {
        return None;
    }
    let allowed = transaction.checks.iter().zip(outcomes).filter(|(_, o)| o.allowed);
    let give = allowed.filter_map(|(check, _)| {
        Some(Check {
            hits: Hits::Refund(asked(check)?),
            enforcement: Enforcement::Shadow,
            ..check.clone()
        })
    });
    let checks = give.collect();
    Some(Transaction {
        checks,
        ..Transaction::default()
    })
}

/// Writes into the statuses which slots the request holds. `modes` has a failure mode for each check.
pub(super) fn note(plan: &Plan, modes: Option<&[OnStoreError]>, over_limit: bool, statuses: &mut [Status]) {
    for (slot, status) in plan.slots.iter().zip(statuses) {
        let (Slot::Counted { check: at, .. }, StatusLimit::Counted(counted)) = (slot, &mut status.limit) else {
            continue;
        };
        if let Some(slots) = plan.transaction.checks.get(*at).and_then(asked) {
            let holds = !over_limit && !counted.denied && failure::is_counted(modes, *at);
            counted.slots = Some(if holds { slots } else { 0 });
        }
    }
}
