//! One caller's transactions on their way, and the two ends of the wait for their answer.

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

/// What a caller asks in one call.
pub(super) type Calls = SmallVec<[Transaction<Op>; 1]>;
/// What it is answered.
pub(super) type Reply = Result<(SmallVec<[Answers; 2]>, Permits), StoreError>;

/// The call waits to be sent.
const WAITS: u8 = 0;
/// It has been sent.
const STARTED: u8 = 1;
/// Its caller has given up before.
const GIVEN_UP: u8 = 2;

/// The end that the dispatcher has.
pub(super) struct Job {
    /// Until they are [taken](Self::take_calls) to be sent.
    pub calls: Calls,
    /// How many there are.
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

/// When the caller of these transactions gives up: after `timeout`, or at the earliest of their deadlines.
///
/// # Errors
/// When that is over already.
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

/// Whether the state changes from [`WAITS`] to this.
fn becomes(state: &AtomicU8, new: u8) -> bool {
    let changed = state.compare_exchange(WAITS, new, Ordering::AcqRel, Ordering::Relaxed);
    changed.is_ok()
}

impl Waiter {
    /// Waits for the answer.
    pub(super) async fn wait(mut self) -> Reply {
        if let Ok(answered) = timeout_at(self.gives_up, &mut self.answer).await {
            return answered.unwrap_or_else(|_| Err(StoreError::Broken("the call ended without an answer".into())));
        }
        // Closed before the last look: an answer that comes in this moment is either heard or given back.
        self.answer.close();
        if let Ok(answer) = self.answer.try_recv() {
            return answer;
        }
        let error = StoreError::Timeout(self.gives_up - self.start);
        let unsent = becomes(&self.state, GIVEN_UP);
        Err(if unsent { error.not_sent() } else { error })
    }
}

impl Job {
    /// Whether the call is still wanted; from here on it counts as sent.
    pub(super) fn try_start(&self) -> bool {
        !self.caller.is_closed() && becomes(&self.state, STARTED)
    }

    /// Whether nobody waits for it any more.
    pub(super) fn is_abandoned(&self) -> bool {
        self.caller.is_closed()
    }

    /// When its caller gives up.
    pub(super) const fn gives_up(&self) -> Instant {
        self.gives_up
    }

    /// Takes the calls out, to be sent with those of others.
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

    /// The one counter that it is about.
    pub(super) fn one_key(&self) -> Option<&CounterKey> {
        let mut counters = self.counters();
        let first = counters.next()?;
        counters.all(|key| key == first).then_some(first)
    }

    /// Answers the caller with an error.
    pub(super) fn fail(self, error: StoreError) {
        let _ = self.caller.send(Err(error));
    }

    /// Answers the caller. If it has given up, what was counted for it is given back; if it has gone away, only its permits
    /// and leases are: nobody decided in the server's place. Whether what the server decided holds.
    pub(super) fn answer(self, calls: &Calls, answers: SmallVec<[Answers; 2]>) -> bool {
        let permits = Permits::of(&self.ledger, calls, &answers);
        let Err(unheard) = self.caller.send(Ok((answers, permits))) else {
            return true;
        };
        let Ok((answers, mut permits)) = unheard else {
            return true;
        };
        if Instant::now() >= self.gives_up {
            permits.disarm();
            counted(calls, &answers, |check, outcome, change| {
                let undone = undo(check, outcome, change, Cause::Late);
                undone.into_iter().for_each(|undone| self.ledger.record(undone));
            });
            return false;
        }
        true
    }
}

/// Goes through what a call counted, check by check.
fn counted(calls: &[Transaction<Op>], answers: &[Answers], mut each: impl FnMut(&Check<Op>, &Outcome, Change)) {
    for (call, answers) in calls.iter().zip(answers) {
        let passes = call.passes(answers.iter().map(|answer| answer.outcome.allowed));
        let checks = call.checks.iter().zip(answers);
        let checks = checks.map(|(check, answer)| (check, &answer.outcome, answer.grant));
        for_each_change(checks, passes, &mut each);
    }
}

/// What undoes a change, if it took something.
fn undo(check: &Check<Op>, outcome: &Outcome, change: Change, cause: Cause) -> Option<Correction> {
    match change {
        // A debit has happened, whoever hears of it: the caller that gave up charges it elsewhere, too.
        Change::Counted(hits) => Some(Correction::give_back(check, outcome, hits, cause)),
        // The hold stays settled: the caller that gave up has settled its own of that id, if any.
        Change::Settled(_, hits) if hits > 0 => Some(Correction::give_back(check, outcome, hits, cause)),
        Change::Held(id, hits) => Some(Correction::release(check, id, hits, cause)),
        Change::HeldMean(hits) => Some(Correction::release_oldest(check, hits, cause)),
        Change::Settled(..) | Change::Given(_) | Change::Released(_) | Change::None => None,
    }
}

/// What only the caller of an answer can use up or release: permits of `concurrency` limits, leases, and holds. If it is dropped
/// before it was [disarmed](Self::disarm), nobody ever will, so it is given back.
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

    /// From here on the caller answers for them.
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
