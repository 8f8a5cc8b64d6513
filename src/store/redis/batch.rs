//! Calls that are made at the same moment leave as one.
//!
//! What becomes ready in one turn of a runtime's event loop (the requests of one read from a socket, say) is collected
//! and goes in one `EVALSHA`, which decides in order of arrival. So the cost of a call to Redis, here and there, is
//! shared when there is load, and nobody waits longer than that turn when there is not.

use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use parking_lot::Mutex;
use tokio::task::yield_now;

use super::call::{self, Budget, Mode};
use super::link::Links;
use crate::model::{Clock, Transaction};
use crate::store::late::{self, Answer, Job, Transactions, Undo};
use crate::store::{Refusal, StoreError};

/// Transactions in a call at most: a script that runs longer holds everybody up.
const MAX_BATCH: usize = 64;
/// Jobs that wait for the turn's end at most.
const MAX_WAITING: usize = 8192;

/// Links to one server, and what waits to go over them.
pub(super) struct Batcher {
    pub links: Links,
    timeout: Duration,
    /// Virtual time, for tests.
    clock: Option<Arc<dyn Clock>>,
    waiting: Mutex<Vec<Job>>,
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
    pub async fn decide(self: &Arc<Self>, transactions: Transactions) -> Answer {
        // While there is no connection: at once, and why.
        self.links.ready()?;
        let (job, caller) = late::call(transactions, self.timeout)?;
        self.enqueue(job)?;
        caller.wait().await
    }

    fn enqueue(self: &Arc<Self>, job: Job) -> Result<(), StoreError> {
        let mut waiting = self.waiting.lock();
        if waiting.len() >= MAX_WAITING {
            return Err(StoreError::Overloaded);
        }
        waiting.push(job);
        if waiting.len() == 1 {
            // The first one of this turn; a task of its own, since the caller may go away.
            tokio::spawn(self.clone().flush());
        }
        Ok(())
    }

    /// Sends all that has come by the end of this turn.
    async fn flush(self: Arc<Self>) {
        // To the end of the line of what is ready to run.
        yield_now().await;
        let mut waiting = std::mem::take(&mut *self.waiting.lock());
        // Those who left need no answer, and their hits need not be counted.
        waiting.retain(Job::leaves);
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
        let mut undo = match self.call(&together).await {
            // A key that is not ours spoils the call that it is in. Nothing was counted: each by itself, then.
            Err(StoreError::Refused {
                kind: Refusal::WrongType,
                ..
            }) if jobs.len() > 1 => {
                let mut undo = Undo::default();
                for job in jobs {
                    let answer = self.call(&late::refs(&job.transactions)).await;
                    job.answer(answer, &mut undo);
                }
                undo
            }
            answer => late::answer(jobs, answer),
        };
        while undo.is_due().await {
            let answer = self.call(&late::refs(undo.transactions())).await;
            undo.heard(&answer);
        }
    }

    async fn call(&self, transactions: &[&Transaction]) -> Answer {
        let budget = Budget::new(self.timeout);
        let now_us = self.clock.as_ref().map_or(0, |clock| clock.now_us());
        let decided = call::decide(self.links.next()?, transactions, &budget, now_us, Mode::Plain).await;
        decided.map_err(StoreError::from)
    }
}
