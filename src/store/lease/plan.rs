//! One transaction: what comes from leases, what is asked of the store, and how both become one answer.

use smallvec::SmallVec;

use crate::model::{Check, CounterKey, Enforcement, Hits, Outcome, Transaction};

use super::held::{Found, Leases, give_back, leasable};
use super::{Outcomes, StoreError};

/// A transaction under way. Dropped before [`finish`](Self::finish), it puts back what it had taken from leases.
pub(super) struct Plan<'a> {
    leases: &'a Leases,
    transaction: &'a Transaction,
    sent: u64,
    /// For each check, the answer from a lease and the slice of that lease.
    local: SmallVec<[Option<(Outcome, u64)>; 2]>,
    /// Give-backs that travel with the call.
    returns: SmallVec<[Check; 1]>,
    /// Leases that travel with it.
    asks: SmallVec<[Check; 1]>,
    finished: bool,
}

impl<'a> Plan<'a> {
    pub(super) fn new(leases: &'a Leases, transaction: &'a Transaction, now: u64) -> Self {
        // The store judges quota checks together: it must see all of them.
        let may_spend = transaction
            .checks
            .iter()
            .all(|check| check.enforcement != Enforcement::Quota);
        let mut plan = Self {
            leases,
            transaction,
            sent: now,
            local: SmallVec::new(),
            returns: SmallVec::new(),
            asks: SmallVec::new(),
            finished: false,
        };
        for check in &transaction.checks {
            let local = plan.look(check, may_spend);
            plan.local.push(local);
        }
        plan
    }

    fn look(&mut self, check: &Check, may_spend: bool) -> Option<(Outcome, u64)> {
        let hits = leased_hits(check)?;
        match self.leases.take(check, hits, may_spend, self.sent) {
            Found::Admitted { outcome, slice } => Some((outcome, slice)),
            Found::Ask { returns, ahead } => {
                let back = |(slice, hits)| give_back(&check.key, check.limit, slice, hits);
                self.returns.extend(returns.into_iter().map(back));
                if ahead > 0 {
                    self.asks.push(Check {
                        hits: Hits::Lease(ahead),
                        enforcement: Enforcement::Shadow,
                        ..check.clone()
                    });
                }
                None
            }
        }
    }

    /// The answer, if leases cover all of it.
    pub(super) fn all_local(&mut self) -> Option<Outcomes> {
        let outcomes = self
            .local
            .iter()
            .map(|local| local.map(|(outcome, _)| outcome))
            .collect::<Option<Outcomes>>()?;
        self.finished = true;
        Some(outcomes)
    }

    /// What to send, in order: what goes back, what is asked, what is leased.
    pub(super) fn calls(&mut self) -> SmallVec<[Transaction; 3]> {
        let deadline = self.transaction.deadline;
        let call = |checks: SmallVec<[Check; 2]>| Transaction {
            checks,
            deadline,
            exact: false,
        };
        let mut calls = SmallVec::new();
        if !self.returns.is_empty() {
            calls.push(call(self.returns.drain(..).collect()));
        }
        calls.push(call(self.remote().cloned().collect()));
        if !self.asks.is_empty() {
            calls.push(call(self.asks.iter().cloned().collect()));
        }
        calls
    }

    /// The checks that no lease covers.
    fn remote(&self) -> impl Iterator<Item = &'a Check> {
        let open = self.local.iter().map(Option::is_none);
        self.transaction
            .checks
            .iter()
            .zip(open)
            .filter(|(_, open)| *open)
            .map(|(check, _)| check)
    }

    /// Takes in the answers to [`calls`](Self::calls).
    pub(super) fn finish(mut self, mut answers: Vec<Outcomes>, now: u64) -> Result<Outcomes, StoreError> {
        let missing = || StoreError::Protocol("no answer to a transaction".into());
        let asked = if self.asks.is_empty() {
            Outcomes::new()
        } else {
            answers.pop().ok_or_else(missing)?
        };
        let remote = answers.pop().ok_or_else(missing)?;
        if remote.len() != self.remote().count() || asked.len() != self.asks.len() {
            return Err(StoreError::Protocol(
                "an answer of another length than its question".into(),
            ));
        }
        for (check, outcome) in self.remote().zip(&remote) {
            if leased_hits(check).is_some() {
                self.leases.learn(&check.key, outcome, self.sent);
            }
        }
        for (check, outcome) in std::mem::take(&mut self.asks).iter().zip(&asked) {
            self.leases.learn(&check.key, outcome, self.sent);
            self.leases.granted(&check.key, outcome.grant, self.sent, now);
        }
        Ok(self.merge(&remote))
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
        // Nothing is consumed: what came from leases goes back, and stands as if it had not been asked.
        let was_local: SmallVec<[bool; 2]> = self.local.iter().map(Option::is_some).collect();
        self.put_back();
        let as_it_stands = |((mut outcome, check), local): ((Outcome, &Check), bool)| {
            if local {
                outcome.remaining += leased_hits(check).unwrap_or(0);
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
                self.leases.put_back(&check.key, slice, hits);
            }
        }
        self.finished = true;
    }
}

impl Drop for Plan<'_> {
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

/// The hits of a check that a lease can serve.
const fn leased_hits(check: &Check) -> Option<u64> {
    match check.hits {
        Hits::Acquire(hits) if leasable(&check.limit) => Some(hits),
        _ => None,
    }
}
