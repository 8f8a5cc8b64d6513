//! Calls that are made at the same moment leave as one.
//!
//! What becomes ready in one turn of a runtime's event loop (the requests of one read from a socket, say) is collected
//! and goes in one `EVALSHA`, which decides in order of arrival. So the cost of a call to Redis, here and there, is
//! shared when there is load, and nobody waits longer than that turn when there is not.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::join_all;
use parking_lot::Mutex;
use smallvec::SmallVec;
use tokio::sync::oneshot;
use tokio::task::yield_now;
use tokio::time::timeout_at;

use super::call::{self, Budget, Mode};
use super::link::Links;
use crate::model::{Clock, Transaction};
use crate::store::{Outcomes, Refusal, StoreError};

/// Transactions in a call at most: a script that runs longer holds everybody up.
const MAX_BATCH: usize = 64;
/// Jobs that wait for the turn's end at most.
const MAX_WAITING: usize = 8192;

type Answer = Result<Vec<Outcomes>, StoreError>;

/// Links to one server, and what waits to go over them.
pub(super) struct Batcher {
    pub links: Links,
    timeout: Duration,
    /// Virtual time, for tests.
    clock: Option<Arc<dyn Clock>>,
    waiting: Mutex<Vec<Job>>,
}

/// Transactions of one caller.
struct Job {
    transactions: SmallVec<[Transaction; 1]>,
    answer: oneshot::Sender<Answer>,
}

impl Batcher {
    pub fn new(links: Links, timeout: Duration, clock: Option<Arc<dyn Clock>>) -> Arc<Self> {
        Arc::new(Self {
            links,
            timeout,
            clock,
            waiting: Mutex::default(),
        })
    }

    /// Decides one caller's transactions with whatever else is asked in this turn.
    pub async fn decide(self: &Arc<Self>, transactions: SmallVec<[Transaction; 1]>) -> Answer {
        // While there is no connection: at once, and why.
        self.links.ready()?;
        let start = Instant::now();
        let deadline = transactions.iter().filter_map(|transaction| transaction.deadline).min();
        // A caller with less time than a call has leaves earlier, its call does not.
        let deadline = deadline.filter(|deadline| *deadline < start + self.timeout);
        if deadline.is_some_and(|deadline| deadline <= start) {
            return Err(StoreError::Timeout(Duration::ZERO));
        }
        let answer = self.enqueue(transactions)?;
        let answered = match deadline {
            None => answer.await,
            Some(deadline) => match timeout_at(deadline.into(), answer).await {
                Ok(answered) => answered,
                Err(_) => return Err(StoreError::Timeout(deadline - start)),
            },
        };
        answered.unwrap_or_else(|_| Err(StoreError::Broken("the call was given up".to_owned())))
    }

    fn enqueue(
        self: &Arc<Self>,
        transactions: SmallVec<[Transaction; 1]>,
    ) -> Result<oneshot::Receiver<Answer>, StoreError> {
        let (answer, answered) = oneshot::channel();
        let mut waiting = self.waiting.lock();
        if waiting.len() >= MAX_WAITING {
            return Err(StoreError::Overloaded);
        }
        waiting.push(Job { transactions, answer });
        if waiting.len() == 1 {
            // The first one of this turn; a task of its own, since the caller may go away.
            tokio::spawn(self.clone().flush());
        }
        Ok(answered)
    }

    /// Sends all that has come by the end of this turn.
    async fn flush(self: Arc<Self>) {
        // To the end of the line of what is ready to run.
        yield_now().await;
        let mut waiting = std::mem::take(&mut *self.waiting.lock());
        // Those who left need no answer, and their hits need not be counted.
        waiting.retain(|job| !job.answer.is_closed());
        if waiting.len() <= MAX_BATCH {
            return self.send(waiting).await;
        }
        let mut batches = Vec::new();
        while !waiting.is_empty() {
            let rest = waiting.split_off(waiting.len().min(MAX_BATCH));
            batches.push(self.send(std::mem::replace(&mut waiting, rest)));
        }
        join_all(batches).await;
    }

    async fn send(&self, jobs: Vec<Job>) {
        if jobs.is_empty() {
            return;
        }
        let together: Vec<&Transaction> = jobs.iter().flat_map(|job| &job.transactions).collect();
        let answer = self.call(&together).await;
        match answer {
            Ok(all) => {
                let mut all = all.into_iter();
                for job in jobs {
                    let own = all.by_ref().take(job.transactions.len()).collect();
                    // A caller that has left needs no answer.
                    let _ = job.answer.send(Ok(own));
                }
            }
            // A key that is not ours spoils the call that it is in. Nothing was counted: each by itself, then.
            Err(StoreError::Refused {
                kind: Refusal::WrongType,
                ..
            }) if jobs.len() > 1 => {
                for job in jobs {
                    let own: Vec<&Transaction> = job.transactions.iter().collect();
                    let _ = job.answer.send(self.call(&own).await);
                }
            }
            Err(error) => {
                for job in jobs {
                    let _ = job.answer.send(Err(error.clone()));
                }
            }
        }
    }

    async fn call(&self, transactions: &[&Transaction]) -> Answer {
        let budget = Budget::whole(self.timeout);
        let now_us = self.clock.as_ref().map_or(0, |clock| clock.now_us());
        let decided = call::decide(self.links.next()?, transactions, &budget, now_us, Mode::Plain).await;
        decided.map_err(StoreError::from)
    }
}
