//! Requests that are planned before their turn, so that what they ask for can be brought near together.

use std::sync::Arc;

use crate::model::{Request, Transaction};

use super::plan::{self, Plan, PlanEntry};
use super::{Active, Decision, Engine, RequestError};

/// A request with its rules found, and the rules that they are of.
pub struct Planned {
    active: Arc<Active>,
    /// In a place of its own: it is large, and goes through several hands.
    plan: Box<Plan>,
}

impl Planned {
    /// What the store is going to be asked.
    #[must_use]
    pub const fn transaction(&self) -> &Transaction {
        &self.plan.transaction
    }

    /// For each limit of each descriptor, in order: the descriptor, and the index of the rule that counts it.
    pub fn rules(&self) -> impl Iterator<Item = (usize, Option<usize>)> {
        let rule = |entry: &PlanEntry| match entry {
            PlanEntry::Counted { rule, .. } => *rule,
            PlanEntry::Free | PlanEntry::Unlimited { .. } => None,
        };
        self.plan.of.iter().copied().zip(self.plan.entries.iter().map(rule))
    }
}

impl Engine {
    /// Finds which counters a request asks for. The plan holds whatever is decided before it, with two exceptions: of rules
    /// with holds, and under `charge_after_peek`, it goes by what is known now of how they are asked.
    ///
    /// # Errors
    /// As [`decide`](Self::decide).
    pub fn plan(&self, request: &Request) -> Result<Planned, RequestError> {
        let active = self.active.load_full().ok_or(RequestError::NoConfiguration)?;
        let plan = Box::new(plan::plan(self.asking(&active, request))?);
        Ok(Planned { active, plan })
    }

    /// Decides a request that was planned.
    ///
    /// # Errors
    /// As [`decide`](Self::decide).
    pub async fn decide_planned(&self, mut planned: Planned, request: &Request) -> Result<Decision, RequestError> {
        let Ok(permit) = self.permits.try_acquire() else {
            return self.shed(planned.active, request);
        };
        let decided = self.carry_out(planned.active, &mut planned.plan, permit, request, None);
        Ok(decided.await)
    }
}
