//! From the store's outcomes to the decision.

use std::sync::Arc;

use smallvec::SmallVec;

use crate::model::{Enforcement, Outcome};
use crate::rules::OnStoreError;

use super::failure::strongest;
use super::options::EngineOptions;
use super::plan::{Plan, PlanEntry};
use super::status::{Counted, Decision, Status, StatusLimit};
use super::{Active, permits};

/// A decision for a request without checks.
pub(super) fn uncounted(active: Arc<Active>, plan: &Plan) -> Decision {
    let statuses = statuses(plan, &[]);
    Decision {
        over_limit: false,
        statuses,
        failure: None,
        hold: None,
        active,
    }
}

/// Lets a request pass without a decision, because of overload.
pub(super) fn shed(active: Arc<Active>, descriptors: usize) -> Decision {
    Decision {
        over_limit: false,
        statuses: (0..descriptors).map(Status::free).collect(),
        failure: None,
        hold: None,
        active,
    }
}

/// The decision on a planned request. `failure` has a failure mode for each check; `None` = the store decided.
pub(super) fn decide(
    options: &EngineOptions,
    active: Arc<Active>,
    plan: &Plan,
    outcomes: &[Outcome],
    failure: Option<&[OnStoreError]>,
) -> Decision {
    let mut statuses = statuses(plan, outcomes);
    // Under the global shadow mode every check is `Shadow`, so the overall code reads OK by itself.
    debug_assert!(!options.shadow_mode || plan.transaction.passes(outcomes.iter().map(|o| o.allowed)));
    let over_limit = !plan.transaction.passes(outcomes.iter().map(|outcome| outcome.allowed));
    permits::note(plan, failure, over_limit, &mut statuses);
    let holds = outcomes.iter().any(|outcome| outcome.holds.own > 0);
    Decision {
        over_limit,
        statuses,
        failure: failure.map(strongest),
        hold: plan.hold.filter(|_| holds && !over_limit),
        active,
    }
}

fn statuses(plan: &Plan, outcomes: &[Outcome]) -> SmallVec<[Status; 2]> {
    let entries = plan.entries.iter().zip(&plan.of);
    entries.map(|(entry, of)| status(entry, *of, outcomes)).collect()
}

fn status(entry: &PlanEntry, descriptor: usize, outcomes: &[Outcome]) -> Status {
    let free = Status::free(descriptor);
    match *entry {
        PlanEntry::Free => free,
        PlanEntry::Unlimited { rule, .. } => Status {
            limit: StatusLimit::Unlimited { rule },
            ..free
        },
        PlanEntry::Counted {
            check,
            rule,
            limit_hits,
            algorithm,
            requests_per_unit,
            window,
            window_seconds,
            enforcement,
            ..
        } => {
            let Some(outcome) = outcomes.get(check).copied() else {
                return free;
            };
            let denied = !outcome.allowed;
            let counted = Counted {
                rule,
                requests_per_unit,
                window,
                window_seconds,
                limit_hits,
                algorithm,
                denied,
                is_quota: matches!(enforcement, Enforcement::Quota(_)),
                permits: None,
                holds: false,
                outcome,
            };
            Status {
                descriptor,
                over_limit: denied && enforcement != Enforcement::Shadow,
                limit: StatusLimit::Counted(counted),
            }
        }
    }
}
