//! One transaction in the lease stage: which checks leases answer, which the store is asked, and the merged answer.

use smallvec::SmallVec;

use super::held::{Leases, Taken};
use crate::algorithms::op::Op;
use crate::model::{Check, CounterKey, Enforcement, Hits, Outcome, Transaction};
use crate::store::remote::transport::Answers;
use crate::store::{Outcomes, StoreError};

/// A transaction in progress. If it is dropped before [`finish`](Self::finish), it puts back what it had taken from leases.
pub(in crate::store::remote) struct LeasePlan<'a> {
    leases: &'a Leases,
    transaction: &'a Transaction,
    sent: u64,
    /// For each check, a lease's answer and the slice of that lease.
    local: SmallVec<[Option<(Outcome, u64)>; 2]>,
    /// Leases to request with the call.
    asks: SmallVec<[Check<Op>; 1]>,
    finished: bool,
}

impl<'a> LeasePlan<'a> {
    pub(in crate::store::remote) fn new(leases: &'a Leases, transaction: &'a Transaction, now: u64) -> Self {
        // The store decides a transaction's quota checks together, so it must get all of them.
        let may_spend = transaction
            .checks
            .iter()
            .all(|check| !matches!(check.enforcement, Enforcement::Quota(_)));
        let mut plan = Self {
            leases,
            transaction,
            sent: now,
            local: SmallVec::new(),
            asks: SmallVec::new(),
            finished: false,
        };
        for check in &transaction.checks {
            let local = plan.take(check, may_spend);
            plan.local.push(local);
        }
        plan
    }

    fn take(&mut self, check: &Check, may_spend: bool) -> Option<(Outcome, u64)> {
        let hits = leased_hits(check)?;
        match self.leases.take(check, hits, may_spend, self.sent) {
            Taken::Admitted { outcome, slice } => Some((outcome, slice)),
            Taken::Ask { ahead } => {
                if ahead > 0 {
                    self.asks.push(Check {
                        key: check.key.clone(),
                        limit: check.limit,
                        hits: Op::Lease(ahead),
                        enforcement: Enforcement::Shadow,
                    });
                }
                None
            }
        }
    }

    /// The answer to the transaction, if leases answer all of its checks.
    pub(in crate::store::remote) fn all_local(&mut self) -> Option<Outcomes> {
        let outcomes = self
            .local
            .iter()
            .map(|local| local.map(|(outcome, _)| outcome))
            .collect::<Option<Outcomes>>()?;
        self.finished = true;
        Some(outcomes)
    }

    /// The checks that no lease answers, as a transaction for the store.
    pub(in crate::store::remote) fn rest(&self) -> Transaction {
        Transaction {
            checks: self.remote().cloned().collect(),
            deadline: self.transaction.deadline,
            exact: self.transaction.exact,
        }
    }

    /// The leases to request, in a transaction after [`rest`](Self::rest).
    pub(in crate::store::remote) fn asks(&self) -> Option<Transaction<Op>> {
        (!self.asks.is_empty()).then(|| Transaction {
            checks: self.asks.iter().cloned().collect(),
            deadline: self.transaction.deadline,
            exact: false,
        })
    }

    /// The checks that no lease answers.
    fn remote(&self) -> impl Iterator<Item = &'a Check> {
        let open = self.local.iter().map(Option::is_none);
        self.transaction
            .checks
            .iter()
            .zip(open)
            .filter(|(_, open)| *open)
            .map(|(check, _)| check)
    }

    /// Records the answer to [`asks`](Self::asks).
    fn granted(&mut self, answers: &Answers, now: u64) {
        for (check, answer) in std::mem::take(&mut self.asks).iter().zip(answers) {
            let grant = answer.grant.map(|grant| (grant, answer.outcome.slice));
            self.leases.observe(&check.key, &answer.outcome, self.sent);
            self.leases.granted(&check.key, grant, self.sent, now);
        }
    }

    /// Records the answers to [`rest`](Self::rest) and to [`asks`](Self::asks), in the order in which the store decided them,
    /// and merges the first with the answers from leases.
    ///
    /// # Errors
    /// [`StoreError::Protocol`] when `remote` has another length than [`rest`](Self::rest).
    pub(in crate::store::remote) fn finish(
        mut self,
        remote: &Outcomes,
        granted: &Answers,
        now: u64,
    ) -> Result<Outcomes, StoreError> {
        if remote.len() != self.remote().count() {
            return Err(StoreError::Protocol(
                "the number of answers is not the number of checks".into(),
            ));
        }
        for (check, outcome) in self.remote().zip(remote) {
            if leased_hits(check).is_some() {
                self.leases.observe(&check.key, outcome, self.sent);
            }
        }
        self.granted(granted, now);
        Ok(self.merge(remote))
    }

    fn merge(&mut self, remote: &Outcomes) -> Outcomes {
        let mut remote = remote.iter().copied();
        let merged: Outcomes = self
            .local
            .iter()
            .filter_map(|local| local.map(|(outcome, _)| outcome).or_else(|| remote.next()))
            .collect();
        if self.transaction.passes(merged.iter().map(|outcome| outcome.allowed)) {
            self.finished = true;
            return merged;
        }
        // The request is denied, so its hits go back to the leases, and their answers are changed to those of a peek.
        let was_local: SmallVec<[bool; 2]> = self.local.iter().map(Option::is_some).collect();
        self.put_back();
        let as_it_stands = |((mut outcome, check), local): ((Outcome, &Check), bool)| {
            if local {
                outcome.remaining += leased_hits(check).unwrap_or(0);
                outcome.slice = 0;
            }
            outcome
        };
        merged
            .into_iter()
            .zip(&self.transaction.checks)
            .zip(was_local)
            .map(as_it_stands)
            .collect()
    }

    fn put_back(&mut self) {
        for (check, local) in self.transaction.checks.iter().zip(&mut self.local) {
            if let (Some(hits), Some((_, slice))) = (leased_hits(check), local.take()) {
                self.leases.put_back(check, slice, hits);
            }
        }
        self.finished = true;
    }
}

impl Drop for LeasePlan<'_> {
    fn drop(&mut self) {
        let asked: SmallVec<[CounterKey; 1]> = self.asks.iter().map(|check| check.key.clone()).collect();
        for key in asked {
            self.leases.granted(&key, None, self.sent, self.sent);
        }
        if !self.finished {
            self.put_back();
        }
    }
}

/// The hits of a check that a lease can answer; `None` if it cannot.
const fn leased_hits(check: &Check) -> Option<u64> {
    match check.hits {
        Hits::Acquire(hits) if check.limit.algorithm.kind().can_lease() => Some(hits),
        _ => None,
    }
}
