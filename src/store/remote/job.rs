//! One caller's call: its transactions, and the two ends of the wait for their answer.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use smallvec::SmallVec;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};

use super::ledger::Ledger;
use super::transport::Answers;
use crate::algorithms::op::Op;
use crate::model::{Algorithm, Check, CounterKey, Outcome, Transaction};
use crate::store::StoreError;
use crate::store::change::{Change, for_each_change};
use crate::store::correction::{Cause, Correction};

/// The transactions of one call, in order.
pub(super) type Calls = SmallVec<[Transaction<Op>; 1]>;
/// The answer to them.
pub(super) type Reply = Result<(SmallVec<[Answers; 2]>, Permits), StoreError>;

/// The call waits to be sent.
const WAITS: u8 = 0;
/// The call has been sent.
const STARTED: u8 = 1;
/// The caller gave up before the call was sent.
const GIVEN_UP: u8 = 2;

/// The end that the dispatcher has.
pub(super) struct Job {
    /// Empty once they have been [taken](Self::take_calls) to be sent.
    pub calls: Calls,
    /// The number of transactions.
    pub count: usize,
    gives_up: Instant,
    state: Arc<AtomicU8>,
    ledger: Arc<Ledger>,
    caller: oneshot::Sender<Reply>,
}

/// The caller's end.
pub(super) struct Waiter {
    start: Instant,
    gives_up: Instant,
    state: Arc<AtomicU8>,
    answer: oneshot::Receiver<Reply>,
}

/// The time at which the caller of these transactions gives up: after `timeout`, or at the earliest of their deadlines.
///
/// # Errors
/// When that time has passed.
pub(super) fn gives_up(calls: &Calls, timeout: Duration) -> Result<Instant, StoreError> {
    let now = Instant::now();
    let deadline = calls
        .iter()
        .filter_map(|call| call.deadline)
        .min()
        .map(Instant::from_std);
    let left = deadline.map_or(timeout, |deadline| deadline.saturating_duration_since(now).min(timeout));
    if left.is_zero() {
        return Err(StoreError::Timeout(left).not_sent());
    }
    Ok(now + left)
}

/// Both ends of a call.
pub(super) fn job(calls: Calls, gives_up: Instant, ledger: &Arc<Ledger>) -> (Job, Waiter) {
    let state = Arc::new(AtomicU8::new(WAITS));
    let (caller, answer) = oneshot::channel();
    let job = Job {
        count: calls.len(),
        calls,
        gives_up,
        state: Arc::clone(&state),
        ledger: Arc::clone(ledger),
        caller,
    };
    let waiter = Waiter {
        start: Instant::now(),
        gives_up,
        state,
        answer,
    };
    (job, waiter)
}

/// Changes the state from [`WAITS`] to `new`; returns whether it was [`WAITS`].
fn leave_waiting(state: &AtomicU8, new: u8) -> bool {
    let changed = state.compare_exchange(WAITS, new, Ordering::AcqRel, Ordering::Relaxed);
    changed.is_ok()
}

impl Waiter {
    /// Waits for the answer.
    pub(super) async fn wait(mut self) -> Reply {
        if let Ok(answered) = timeout_at(self.gives_up, &mut self.answer).await {
            return answered.unwrap_or_else(|_| Err(StoreError::Broken("the call ended without an answer".into())));
        }
        // Closed first: an answer that comes at this moment is either received here, or `Job::answer` gives it back.
        self.answer.close();
        if let Ok(answer) = self.answer.try_recv() {
            return answer;
        }
        let error = StoreError::Timeout(self.gives_up - self.start);
        let unsent = leave_waiting(&self.state, GIVEN_UP);
        Err(if unsent { error.not_sent() } else { error })
    }
}

impl Job {
    /// Marks the call as sent, unless its caller has given up; returns whether it is to be sent.
    pub(super) fn try_start(&self) -> bool {
        !self.caller.is_closed() && leave_waiting(&self.state, STARTED)
    }

    /// Whether its caller has stopped waiting.
    pub(super) fn is_abandoned(&self) -> bool {
        self.caller.is_closed()
    }

    /// The time at which its caller gives up.
    pub(super) const fn gives_up(&self) -> Instant {
        self.gives_up
    }

    /// Takes the transactions, to be sent in one batch with those of other jobs.
    pub(super) fn take_calls(&mut self) -> Calls {
        std::mem::take(&mut self.calls)
    }

    pub(super) fn checks(&self) -> usize {
        self.calls.iter().map(|call| call.checks.len()).sum()
    }

    /// Its counters.
    pub(super) fn counters(&self) -> impl Iterator<Item = &CounterKey> + Clone {
        self.calls.iter().flat_map(|call| &call.checks).map(|check| &check.key)
    }

    /// Its only counter; `None` if it has several.
    pub(super) fn one_key(&self) -> Option<&CounterKey> {
        let mut counters = self.counters();
        let first = counters.next()?;
        counters.all(|key| key == first).then_some(first)
    }

    /// Answers the caller with an error.
    pub(super) fn fail(self, error: StoreError) {
        let _ = self.caller.send(Err(error));
    }

    /// Answers the caller; returns whether the server's decision stands.
    ///
    /// If the caller has given up, the failure mode has decided in the server's place: what was counted is given back, unless it
    /// `stays`. If it has disconnected before its deadline, only its permits, leases and holds are given back.
    pub(super) fn answer(
        self,
        calls: &Calls,
        answers: SmallVec<[Answers; 2]>,
        stays: impl Fn(&Check<Op>, Change) -> bool,
    ) -> bool {
        let permits = Permits::of(&self.ledger, calls, &answers);
        let Err(undelivered) = self.caller.send(Ok((answers, permits))) else {
            return true;
        };
        let Ok((answers, mut permits)) = undelivered else {
            return true;
        };
        if Instant::now() >= self.gives_up {
            permits.disarm();
            counted(calls, &answers, |check, outcome, change| {
                let undone = undo(check, outcome, change, Cause::Late).filter(|_| !stays(check, change));
                undone.into_iter().for_each(|undone| self.ledger.record(undone));
            });
            return false;
        }
        true
    }
}

/// Calls `each` for every check of a call, with what it changed.
fn counted(calls: &[Transaction<Op>], answers: &[Answers], mut each: impl FnMut(&Check<Op>, &Outcome, Change)) {
    for (call, answers) in calls.iter().zip(answers) {
        let passes = call.passes(answers.iter().map(|answer| answer.outcome.allowed));
        let checks = call.checks.iter().zip(answers);
        let checks = checks.map(|(check, answer)| (check, &answer.outcome, answer.grant));
        for_each_change(checks, passes, &mut each);
    }
}

/// The correction that undoes a change; `None` if it took nothing.
fn undo(check: &Check<Op>, outcome: &Outcome, change: Change, cause: Cause) -> Option<Correction> {
    match change {
        // Debits too: the failure mode has charged them a second time.
        Change::Counted(hits) => Some(Correction::give_back(check, outcome, hits, cause)),
        Change::Held(id, hits) => Some(Correction::release(check, id, hits, cause)),
        Change::HeldMean(hits) => Some(Correction::release_oldest(check, hits, cause)),
        // The failure mode has the ledger settle it, which the store does not do a second time, unless it keeps no record of it.
        Change::Settled(_, hits) => {
            (check.limit.settles_once && hits > 0).then(|| Correction::give_back(check, outcome, hits, cause))
        }
        Change::Given(_) | Change::Released(_) | Change::None => None,
    }
}

/// The permits of `concurrency` limits, leases and holds in an answer, which only its caller can use or release. If this is
/// dropped before it was [disarmed](Self::disarm), the answer has not reached the caller, and they are given back.
#[derive(Default)]
pub(super) struct Permits(Option<(Arc<Ledger>, SmallVec<[Correction; 1]>)>);

impl Permits {
    fn of(ledger: &Arc<Ledger>, calls: &[Transaction<Op>], answers: &[Answers]) -> Self {
        let cause = |check: &Check<Op>| match check.hits {
            Op::Acquire(_) if check.limit.algorithm == Algorithm::Concurrency => Some(Cause::Permit),
            Op::Lease(_) => Some(Cause::Lease),
            Op::Hold { .. } | Op::HoldMean(_) => Some(Cause::Hold),
            _ => None,
        };
        let mut checks = calls.iter().flat_map(|call| &call.checks);
        if !checks.any(|check| cause(check).is_some()) {
            return Self(None);
        }
        let mut permits = SmallVec::new();
        counted(calls, answers, |check, outcome, change| {
            if let Some(cause) = cause(check) {
                permits.extend(undo(check, outcome, change, cause));
            }
        });
        Self(Some((Arc::clone(ledger), permits)))
    }

    /// The answer has reached the caller, which has to release them from now on.
    pub(super) fn disarm(&mut self) {
        self.0 = None;
    }
}

impl Drop for Permits {
    fn drop(&mut self) {
        if let Some((ledger, permits)) = self.0.take() {
            permits.into_iter().for_each(|permit| ledger.record(permit));
        }
    }
}
