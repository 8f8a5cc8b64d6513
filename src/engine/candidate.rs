//! Candidate limits: decided beside the limits in force, on counters of their own, to be compared with them. They never deny
//! and never delay an answer: their checks go to the store at the same time as the request's own, in a call of their own.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use futures::future::{Either, select};
use smallvec::SmallVec;

use crate::model::{Check, Hits, Outcome, Transaction};
use crate::store::{Outcomes, Store, StoreError};
use crate::telemetry::activity::Noted;
use crate::telemetry::{Activity, CandidateStats};

use super::active::Active;
use super::status::{Decision, StatusLimit};

/// The checks of the candidates of one request.
#[derive(Default)]
pub(super) struct CandidateChecks {
    /// One check for each candidate. They are in shadow mode, so that each is decided by itself.
    pub transaction: Transaction,
    /// For each check, the index of the plan's entry for the limit in force (and so of its status), and of the rule.
    pub of: SmallVec<[(usize, usize); 2]>,
}

/// The call to the store for the candidates of one request.
pub(super) struct CandidateCall {
    answer: Pin<Box<dyn Future<Output = Result<Outcomes, StoreError>> + Send>>,
    checks: SmallVec<[Check; 2]>,
    of: SmallVec<[(usize, usize); 2]>,
}

/// The candidates' call at the time when the request's own call has ended.
pub(super) struct CandidateResult {
    call: CandidateCall,
    /// `None` while the call is in flight.
    outcomes: Option<Result<Outcomes, StoreError>>,
}

impl CandidateChecks {
    /// Prepares the call. It is sent when it is first polled.
    pub fn start(self, store: &Arc<dyn Store>) -> CandidateCall {
        let store = Arc::clone(store);
        let checks = self.transaction.checks.clone();
        let transaction = self.transaction;
        CandidateCall {
            answer: Box::pin(async move { store.check(&transaction).await }),
            checks,
            of: self.of,
        }
    }
}

impl CandidateCall {
    /// Runs the call until `live`, the request's own call, has ended.
    pub async fn beside<T>(mut self, live: impl Future<Output = T>) -> (T, CandidateResult) {
        let live = std::pin::pin!(live);
        // This call is polled first: a memory store answers it at once.
        let (answer, outcomes) = match select(self.answer.as_mut(), live).await {
            Either::Left((outcomes, live)) => (live.await, Some(outcomes)),
            Either::Right((answer, _)) => (answer, None),
        };
        (answer, CandidateResult { call: self, outcomes })
    }
}

impl CandidateResult {
    /// Counts what the candidates decided: now, or in a task that waits for the store's answer.
    pub fn count(self, decision: &Decision, activity: Option<&Arc<Activity>>) {
        let CandidateCall { answer, checks, of } = self.call;
        let live_denied = of.iter().map(|(entry, _)| denied(decision, *entry)).collect();
        let counting = CandidateCount {
            active: Arc::clone(&decision.active),
            activity: activity.map(Arc::clone),
            live_denied,
            checks,
            of,
        };
        match self.outcomes {
            Some(outcomes) => counting.count(&outcomes),
            None => {
                // The store's timeout bounds the task.
                tokio::spawn(async move { counting.count(&answer.await) });
            }
        }
    }
}

/// Whether the limit in force denied, by the index of its status.
fn denied(decision: &Decision, entry: usize) -> bool {
    let limit = decision.statuses.get(entry).map(|status| status.limit);
    matches!(limit, Some(StatusLimit::Counted(counted)) if counted.denied)
}

/// What is needed to count the candidates' decisions.
struct CandidateCount {
    active: Arc<Active>,
    activity: Option<Arc<Activity>>,
    live_denied: SmallVec<[bool; 2]>,
    checks: SmallVec<[Check; 2]>,
    of: SmallVec<[(usize, usize); 2]>,
}

impl CandidateCount {
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
                top.record(
                    Noted::new(&check.key, || self.active.path(Some(*rule))),
                    !outcome.allowed,
                );
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
