//! Requests that are planned before they are decided, so that their counters can be prefetched together.

use std::sync::Arc;

use crate::model::{Request, Transaction};

use super::plan::{self, Plan, PlanEntry};
use super::{Active, Decision, Engine, RequestError};

/// A planned request, and the rules by which it was planned.
pub struct Planned {
    active: Arc<Active>,
    /// Boxed: it is large, and is moved several times.
    plan: Box<Plan>,
}

impl Planned {
    /// The transaction for the store.
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
    /// Plans a request. Decisions of other requests do not change the plan, with two exceptions: rules with adaptive holds, and
    /// `charge_after_peek`, depend on how requests have used the rule until now.
    ///
    /// # Errors
    /// As [`decide`](Self::decide).
    pub fn plan(&self, request: &Request) -> Result<Planned, RequestError> {
        let active = self.active.load_full().ok_or(RequestError::NoConfiguration)?;
        let plan = Box::new(plan::plan(self.plan_input(&active, request))?);
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
