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
use tokio::time::{Instant, sleep, timeout_at};

use super::change::{Change, for_each_change};
use super::{Outcomes, StoreError};
use crate::model::{Check, Enforcement, Hits, Transaction};

/// An answer is waited for so much longer than by its caller.
pub(in crate::store) const PATIENCE: Duration = Duration::from_secs(1);
/// What is older than this part of what was left of its window stays counted, and giving it back is tried for so long at
/// most: once its window is over, that would free somebody else's hits.
const AGE_PART: u32 = 4;
/// Between two tries.
const PAUSE: Duration = Duration::from_millis(20);

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

    /// Answers the caller. If it has given up: what was taken for it is to be given back, and so is what it wanted to
    /// give back if that was not done, since it has to leave that to us.
    pub fn answer(self, answer: Answer, undo: &mut Undo) {
        let Err(answer) = self.caller.send(answer) else {
            return;
        };
        let now = Instant::now();
        if now < self.gives_up {
            // It has not given up but gone away: nobody decided in the server's place.
            return;
        }
        match answer {
            Ok(all) => {
                for (transaction, outcomes) in self.transactions.iter().zip(&all) {
                    undo.add_taken(transaction, outcomes, now - self.start);
                }
            }
            Err(error) if error.may_have_counted() => {}
            Err(_) => self
                .transactions
                .iter()
                .for_each(|transaction| undo.add_given(transaction)),
        }
    }
}

/// Answers those whose transactions went together in one call; what was taken for those who have given up.
pub(in crate::store) fn answer(jobs: Vec<Job>, together: Answer) -> Undo {
    let mut undo = Undo::default();
    match together {
        Ok(all) => {
            let mut all = all.into_iter();
            for job in jobs {
                let own = all.by_ref().take(job.transactions.len()).collect();
                job.answer(Ok(own), &mut undo);
            }
        }
        Err(error) => {
            for job in jobs {
                job.answer(Err(error.clone()), &mut undo);
            }
        }
    }
    undo
}

/// As calls are made of them.
pub(in crate::store) fn refs(transactions: &Transactions) -> SmallVec<[&Transaction; 4]> {
    transactions.iter().collect()
}

/// What is to be given back, and for how long that may be tried.
#[derive(Default)]
pub(in crate::store) struct Undo {
    transactions: Transactions,
    until: Option<Instant>,
    tries: u32,
}

impl Undo {
    /// Whether it has to be told (again): at once the first time, then after a pause.
    pub async fn is_due(&mut self) -> bool {
        let Some(until) = self.until.filter(|_| !self.is_empty()) else {
            return false;
        };
        if self.tries > 0 {
            if Instant::now() + PAUSE > until {
                tracing::debug!(tries = self.tries, "what late calls had taken could not be given back");
                return false;
            }
            sleep(PAUSE).await;
        }
        self.tries += 1;
        true
    }

    /// Whether there is nothing to give back.
    pub fn is_empty(&self) -> bool {
        self.transactions.is_empty()
    }

    /// What gives it back.
    pub const fn transactions(&self) -> &Transactions {
        &self.transactions
    }

    /// Takes the answer to it. What may have been given back is not given back again.
    pub fn heard(&mut self, answer: &Answer) {
        if answer.as_ref().err().is_none_or(StoreError::may_have_counted) {
            self.transactions.clear();
        }
    }

    /// Adds what a call wanted to give back.
    fn add_given(&mut self, transaction: &Transaction) {
        let gives = |check: &&Check| matches!(check.hits, Hits::Refund(_) | Hits::Return { .. });
        for check in transaction.checks.iter().filter(gives) {
            let patience = Duration::from_micros(check.limit.window_us) / AGE_PART;
            self.add(check, check.hits, patience);
        }
    }

    /// Adds what a call of this age has taken.
    fn add_taken(&mut self, transaction: &Transaction, outcomes: &Outcomes, age: Duration) {
        for_each_change(transaction, outcomes, |check, outcome, change| {
            let Change::Counted(hits) = change else {
                return;
            };
            let may_age = Duration::from_micros(outcome.reset_after_us) / AGE_PART;
            let (hits, patience) = match outcome.grant {
                // Leased hits go back to the slice that they are from, if it is still there.
                Some(grant) => (Hits::from(grant), PATIENCE),
                None if age <= may_age => (Hits::Refund(hits), may_age),
                None => return,
            };
            self.add(check, hits, patience);
        });
    }

    fn add(&mut self, check: &Check, hits: Hits, patience: Duration) {
        let until = Instant::now() + patience.min(PATIENCE);
        self.until = Some(self.until.map_or(until, |earlier| earlier.min(until)));
        let give = Check {
            hits,
            enforcement: Enforcement::Shadow,
            ..check.clone()
        };
        self.transactions.push(Transaction {
            checks: [give].into_iter().collect(),
            ..Transaction::default()
        });
    }
}
