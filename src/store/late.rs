//! Calls that are answered when their caller has given up: what they took is given back.
//!
//! A caller that hears nothing in time goes on as if nothing had been counted (`on_store_error`). If the server was only
//! slow, it counts all the same, and says so a moment later. Without this a server that hesitates for a few milliseconds
//! would count those hits twice, and slots of `concurrency` limits would stay taken until they end by themselves.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use smallvec::SmallVec;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};

use super::change::{Change, for_each_change};
use super::{Outcomes, StoreError};
use crate::model::{Check, Gate, Hits, Outcome, Transaction};

/// An answer is waited for so much longer than by its caller.
pub(in crate::store) const PATIENCE: Duration = Duration::from_secs(1);
/// What would come back with an age of more than this part of what is left of its window stays counted: given back once
/// its window is over, it would free somebody else's hits.
const AGE_PART: u32 = 4;

pub(in crate::store) type Transactions = SmallVec<[Transaction; 1]>;
pub(in crate::store) type Answer = Result<Vec<Outcomes>, StoreError>;

/// A call waits to be made.
const WAITS: u8 = 0;
/// It has been made.
const MADE: u8 = 1;
/// Its caller has given up before.
const GIVEN_UP: u8 = 2;

/// One caller's transactions on their way.
pub(in crate::store) struct Job {
    pub transactions: Transactions,
    start: Instant,
    gives_up: Instant,
    state: Arc<AtomicU8>,
    caller: oneshot::Sender<Answer>,
}

/// The caller's end of it.
pub(in crate::store) struct Caller {
    start: Instant,
    gives_up: Instant,
    state: Arc<AtomicU8>,
    answer: oneshot::Receiver<Answer>,
}

/// Both ends of a call. The caller gives up after `timeout`, or at the earliest of the transactions' deadlines.
///
/// # Errors
/// When that is over already.
pub(in crate::store) fn call(transactions: Transactions, timeout: Duration) -> Result<(Job, Caller), StoreError> {
    let start = Instant::now();
    let deadline = transactions.iter().filter_map(|transaction| transaction.deadline).min();
    let left = deadline.map(|deadline| deadline.saturating_duration_since(std::time::Instant::now()));
    let left = left.map_or(timeout, |left| left.min(timeout));
    if left.is_zero() {
        return Err(StoreError::Timeout(left).not_made());
    }
    let gives_up = start + left;
    let state = Arc::new(AtomicU8::new(WAITS));
    let (caller, answer) = oneshot::channel();
    let job = Job {
        transactions,
        start,
        gives_up,
        state: Arc::clone(&state),
        caller,
    };
    let caller = Caller {
        start,
        gives_up,
        state,
        answer,
    };
    Ok((job, caller))
}

/// Whether the state changes from [`WAITS`] to this.
fn becomes(state: &AtomicU8, new: u8) -> bool {
    let changed = state.compare_exchange(WAITS, new, Ordering::AcqRel, Ordering::Relaxed);
    changed.is_ok()
}

impl Caller {
    /// Waits for the answer.
    pub async fn wait(mut self) -> Answer {
        if let Ok(answered) = timeout_at(self.gives_up, &mut self.answer).await {
            return answered.unwrap_or_else(|_| Err(StoreError::Broken("the call was given up".to_owned())));
        }
        // Closed before the last look: an answer that comes in this moment is either heard or given back.
        self.answer.close();
        if let Ok(answer) = self.answer.try_recv() {
            return answer;
        }
        let error = StoreError::Timeout(self.gives_up - self.start);
        let unmade = becomes(&self.state, GIVEN_UP);
        Err(if unmade { error.not_made() } else { error })
    }
}

impl Job {
    /// Whether the call is still wanted; from here on it counts as made.
    pub fn leaves(&self) -> bool {
        !self.caller.is_closed() && becomes(&self.state, MADE)
    }

    /// Answers the caller. If it has given up: what gives back what was taken for it.
    pub fn answer(self, answer: Answer) -> Transactions {
        let Err(Ok(all)) = self.caller.send(answer) else {
            return Transactions::new();
        };
        let now = Instant::now();
        if now < self.gives_up {
            // It has not given up but gone away: nobody decided in the server's place.
            return Transactions::new();
        }
        let age = now - self.start;
        let taken = self.transactions.iter().zip(&all);
        taken
            .map(|(transaction, outcomes)| undo(transaction, outcomes, age))
            .filter(|undo| !undo.checks.is_empty())
            .collect()
    }
}

/// Answers those whose transactions went together in one call; what gives back what was taken for those who have given up.
pub(in crate::store) fn answer(jobs: Vec<Job>, together: Answer) -> Transactions {
    let mut late = Transactions::new();
    match together {
        Ok(all) => {
            let mut all = all.into_iter();
            for job in jobs {
                let own = all.by_ref().take(job.transactions.len()).collect();
                late.extend(job.answer(Ok(own)));
            }
        }
        Err(error) => {
            for job in jobs {
                job.answer(Err(error.clone()));
            }
        }
    }
    late
}

/// As calls are made of them.
pub(in crate::store) fn refs(transactions: &Transactions) -> SmallVec<[&Transaction; 4]> {
    transactions.iter().collect()
}

/// Takes the answer to what gave back what late calls had taken.
pub(in crate::store) fn given_back(answer: &Answer) {
    if let Err(error) = answer {
        tracing::debug!(%error, "what late calls had taken could not be given back");
    }
}

/// What gives back what a call of this age has taken.
fn undo(transaction: &Transaction, outcomes: &Outcomes, age: Duration) -> Transaction {
    let mut undo = Transaction::default();
    for_each_change(transaction, outcomes, |check, outcome, change| {
        if let Some(hits) = to_give(check, outcome, change, age) {
            undo.checks.push(Check {
                hits,
                gate: Gate::Observe,
                ..check.clone()
            });
        }
    });
    undo
}

fn to_give(check: &Check, outcome: &Outcome, change: Change, age: Duration) -> Option<Hits> {
    match (check.hits, change) {
        // Leased hits go back to the slice that they are from, if it is still there.
        (Hits::Lease(_), Change::Counted(_)) => outcome.grant.map(Hits::from),
        (_, Change::Counted(hits)) if age * AGE_PART <= Duration::from_micros(outcome.reset_after_us) => {
            Some(Hits::Give(hits))
        }
        _ => None,
    }
}
