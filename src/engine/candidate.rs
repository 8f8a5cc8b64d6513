//! Candidate limits: decided beside the limits in force, on counters of their own. They never deny, and no answer waits
//! for them: their checks go to the store together with the request's own, and are counted when they are answered.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use futures::future::{Either, select};
use smallvec::SmallVec;

use crate::model::{Check, Hits, Outcome, Transaction};
use crate::store::{Outcomes, Store, StoreError};
use crate::telemetry::{Activity, CandidateStats};

use super::active::Active;

use super::status::{Decision, StatusLimit};

/// The candidates of one request.
#[derive(Default)]
pub(super) struct Trial {
    /// One check for each candidate. They are in shadow mode, so that each is decided by itself.
    pub transaction: Transaction,
    /// For each check, the descriptor that it belongs to and the rule.
    pub of: SmallVec<[(usize, usize); 2]>,
}

/// A trial on its way.
pub(super) struct RunningTrial {
    answer: Pin<Box<dyn Future<Output = Result<Outcomes, StoreError>> + Send>>,
    checks: SmallVec<[Check; 2]>,
    of: SmallVec<[(usize, usize); 2]>,
}

/// Where a trial stands when the request has been answered.
pub(super) struct Tried {
    running: RunningTrial,
    outcomes: Option<Result<Outcomes, StoreError>>,
}

impl Trial {
    pub fn start(self, store: &Arc<dyn Store>) -> RunningTrial {
        let store = Arc::clone(store);
        let checks = self.transaction.checks.clone();
        let transaction = self.transaction;
        RunningTrial {
            answer: Box::pin(async move { store.check(&transaction).await }),
            checks,
            of: self.of,
        }
    }
}

impl RunningTrial {
    /// Lets the trial go on for as long as `live` takes.
    pub async fn beside<T>(mut self, live: impl Future<Output = T>) -> (T, Tried) {
        let live = std::pin::pin!(live);
        // The trial first: a store in memory answers it at once.
        let (answer, outcomes) = match select(self.answer.as_mut(), live).await {
            Either::Left((outcomes, live)) => (live.await, Some(outcomes)),
            Either::Right((answer, _)) => (answer, None),
        };
        let tried = Tried {
            running: self,
            outcomes,
        };
        (answer, tried)
    }
}

impl Tried {
    /// Counts what the candidates decided, at once or when the store has answered.
    pub fn count(self, decision: &Decision, activity: Option<&Arc<Activity>>) {
        let RunningTrial { answer, checks, of } = self.running;
        let live_denied = of.iter().map(|(descriptor, _)| denied(decision, *descriptor)).collect();
        let counting = TrialCount {
            active: Arc::clone(&decision.active),
            activity: activity.map(Arc::clone),
            live_denied,
            checks,
            of,
        };
        match self.outcomes {
            Some(outcomes) => counting.count(&outcomes),
            None => {
                // It ends with the store's timeout.
                tokio::spawn(async move { counting.count(&answer.await) });
            }
        }
    }
}

/// What the limit in force said to a descriptor.
fn denied(decision: &Decision, descriptor: usize) -> bool {
    let limit = decision.statuses.get(descriptor).map(|status| status.limit);
    matches!(limit, Some(StatusLimit::Counted(counted)) if counted.denied)
}

struct TrialCount {
    active: Arc<Active>,
    activity: Option<Arc<Activity>>,
    live_denied: SmallVec<[bool; 2]>,
    checks: SmallVec<[Check; 2]>,
    of: SmallVec<[(usize, usize); 2]>,
}

impl TrialCount {
    fn count(&self, outcomes: &Result<Outcomes, StoreError>) {
        for (index, (check, (_, rule))) in self.checks.iter().zip(&self.of).enumerate() {
            let stats = self.active.stats(*rule).and_then(|stats| stats.candidate());
            let live_denied = self.live_denied.get(index).copied().unwrap_or_default();
            let outcome = outcomes.as_ref().ok().and_then(|outcomes| outcomes.get(index));
            let decides = !matches!(check.hits, Hits::Refund(_));
            if let Some(stats) = stats.filter(|_| decides) {
                counter(stats, live_denied, outcome).fetch_add(1, Relaxed);
            }
            if let (Some(activity), Some(outcome), true) = (&self.activity, outcome, decides)
                && let Some(top) = &activity.candidates
            {
                top.record(check.key.as_str(), !outcome.allowed);
            }
        }
    }
}

const fn counter<'s>(stats: &'s CandidateStats, live_denied: bool, outcome: Option<&Outcome>) -> &'s AtomicU64 {
    match (live_denied, outcome) {
        (_, None) => &stats.errors,
        (false, Some(Outcome { allowed: true, .. })) => &stats.both_allow,
        (false, Some(_)) => &stats.would_deny,
        (true, Some(Outcome { allowed: true, .. })) => &stats.would_allow,
        (true, Some(_)) => &stats.both_deny,
    }
}
