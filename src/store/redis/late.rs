//! Calls that are answered when their caller has given up: what they took is given back.
//!
//! A caller that hears nothing in time goes on as if nothing had been counted (`on_store_error`). If the server was only
//! slow, it counts all the same, and says so a moment later. Without this a server that hesitates for a few milliseconds
//! would count those hits twice, and slots of `concurrency` limits would stay taken until they end by themselves.

use std::time::{Duration, Instant};

use smallvec::SmallVec;
use tokio::sync::oneshot;
use tokio::time::timeout_at;

use crate::model::{Check, Gate, Hits, Outcome, Transaction};
use crate::store::change::{Change, for_each_change};
use crate::store::{Outcomes, StoreError};

/// An answer is waited for so much longer than by its caller.
pub(super) const PATIENCE: Duration = Duration::from_secs(1);
/// What would come back with an age of more than this part of what is left of its window stays counted: given back once
/// its window is over, it would free somebody else's hits.
const AGE_PART: u32 = 4;

pub(super) type Transactions = SmallVec<[Transaction; 1]>;
pub(super) type Answer = Result<Vec<Outcomes>, StoreError>;

/// One caller's transactions on their way.
pub(super) struct Job {
    pub transactions: Transactions,
    start: Instant,
    gives_up: Instant,
    caller: oneshot::Sender<Answer>,
}

/// The caller's end of it.
pub(super) struct Caller {
    start: Instant,
    gives_up: Instant,
    answer: oneshot::Receiver<Answer>,
}

/// Both ends of a call. The caller gives up after `timeout`, or at the earliest of the transactions' deadlines.
///
/// # Errors
/// When that is over already.
pub(super) fn call(transactions: Transactions, timeout: Duration) -> Result<(Job, Caller), StoreError> {
    let start = Instant::now();
    let deadlines = transactions.iter().filter_map(|transaction| transaction.deadline);
    let gives_up = deadlines.fold(start + timeout, Instant::min);
    if gives_up <= start {
        return Err(StoreError::Timeout(Duration::ZERO));
    }
    let (sender, answer) = oneshot::channel();
    let job = Job {
        transactions,
        start,
        gives_up,
        caller: sender,
    };
    Ok((
        job,
        Caller {
            start,
            gives_up,
            answer,
        },
    ))
}

impl Caller {
    /// Waits for the answer.
    pub async fn wait(self) -> Answer {
        match timeout_at(self.gives_up.into(), self.answer).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => Err(StoreError::Broken("the call was given up".to_owned())),
            Err(_) => Err(StoreError::Timeout(self.gives_up - self.start)),
        }
    }
}

impl Job {
    /// Whether nobody waits for it any more.
    pub fn is_abandoned(&self) -> bool {
        self.caller.is_closed()
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

/// As calls are made of them.
pub(super) fn refs(transactions: &Transactions) -> SmallVec<[&Transaction; 4]> {
    transactions.iter().collect()
}

/// Takes the answer to what gave back what late calls had taken.
pub(super) fn given_back(answer: &Answer) {
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
