//! The calls of one thread: who waits, what is in flight, and what leaves together.
//!
//! - **Batches.** What becomes ready in one turn of a runtime's event loop (the requests of one read from a socket, say)
//!   leaves in one call for each lane of shards, at most [`Bounds::checks`](super::Bounds::checks) long. So the cost of a call is shared when there is
//!   load, and nobody waits longer than that turn when there is none.
//! - **Joined keys.** While a call for a key is in flight, later checks of that key wait and go together in the next one.
//!   Requests for several keys never wait: their keys would wait for each other.
//! - **Corrections** of the ledger go in front of the checks of their counters, in the same call; of a counter that has more than
//!   fit a call, the others wait for the next, and the checks for the last.
//! - **Late answers.** A caller stops waiting at its deadline and decides otherwise; the call stays in flight for the
//!   grace period. If it turns out to have counted, what it counted is recorded in the ledger as a correction.
//!
//! Whatever ends a job (an answer, an error, a panic of the task that carries it), its key's next call follows: the key is
//! freed when the job is dropped.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use futures::future::join_all;
use parking_lot::Mutex;
use tokio::sync::futures::OwnedNotified;
use tokio::task::yield_now;
use tokio::time::timeout_at;

use super::bounds::Bound;
use super::carried::Carried;
use super::context::Context;
use super::job::{Calls, Job, Reply, gives_up, job};
use super::queued::{Lead, Queued, Successors};
use super::send::Batch;
use super::transport::Transport;
use crate::model::CounterKey;
use crate::store::StoreError;

/// See the module's docs.
pub(super) struct Dispatch<T: Transport> {
    context: Arc<Context<T>>,
    queue: Mutex<JobQueue>,
    /// Number of calls that have been sent and have not ended.
    in_flight: AtomicUsize,
}

struct JobQueue {
    /// Jobs that are sent at the end of this turn of the event loop.
    ready: Vec<Queued>,
    /// Keys with a call in flight, each with the jobs that wait for the next one.
    joined: HashMap<CounterKey, Vec<Queued>>,
    /// Jobs in both.
    waiting: usize,
    scheduled: bool,
}

/// Counts calls as in flight until this is dropped.
struct InFlight<'d>(&'d AtomicUsize, usize);

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(self.1, Relaxed);
    }
}

impl<T: Transport> Successors for Dispatch<T> {
    fn free(self: Arc<Self>, key: &CounterKey) {
        let mut queue = self.queue.lock();
        let Some(waiting) = queue.joined.get_mut(key) else {
            return;
        };
        if waiting.is_empty() {
            queue.joined.remove(key);
            return;
        }
        let mut checks = 0;
        let fits = |queued: &&Queued| {
            checks += queued.job.checks();
            checks <= self.context.bounds.checks
        };
        let count = waiting.iter().take_while(fits).count().max(1);
        if count < waiting.len() {
            self.context.reached.reached(Bound::Checks);
        }
        let mut next: Vec<_> = waiting.drain(..count).collect();
        if let Some(first) = next.first_mut() {
            first.lead = Some(Lead::new(self.clone(), key.clone()));
        }
        queue.waiting -= next.len();
        self.push(&mut queue, next);
    }
}

impl<T: Transport> Dispatch<T> {
    pub(super) fn new(context: Arc<Context<T>>) -> Self {
        let queue = JobQueue {
            ready: Vec::new(),
            joined: HashMap::new(),
            waiting: 0,
            scheduled: false,
        };
        Self {
            context,
            queue: Mutex::new(queue),
            in_flight: AtomicUsize::new(0),
        }
    }

    /// Sends one caller's transactions, whose counters are all of `shard`, and waits for the answer for `patience` (the
    /// store's timeout, for decisions) or until the earliest of the transactions' deadlines.
    ///
    /// # Errors
    /// When there was no answer in time, or a refusal; refunds that were not sent are then in the ledger.
    pub(super) async fn call(self: Arc<Self>, shard: u16, calls: Calls, patience: Duration) -> Reply {
        let context = Arc::clone(&self.context);
        let admitted = context.circuit.admit().and_then(|()| gives_up(&calls, patience));
        let gives_up = match admitted {
            Ok(gives_up) => gives_up,
            Err(error) => {
                context.record_refunds(&calls);
                return Err(error);
            }
        };
        let (job, waiter) = job(calls, gives_up, &context.ledger);
        self.enqueue(shard, job)?;
        waiter.wait().await
    }

    fn enqueue(self: Arc<Self>, shard: u16, job: Job) -> Result<(), StoreError> {
        let one_key = self.context.join.then(|| job.one_key().cloned()).flatten();
        let mut queue = self.queue.lock();
        if queue.waiting >= self.context.bounds.waiting {
            drop(queue);
            self.context.reached.reached(Bound::Waiting);
            self.context.record_refunds(&job.calls);
            return Err(StoreError::Overloaded);
        }
        let mut queued = Queued { shard, job, lead: None };
        if let Some(key) = one_key {
            match queue.joined.get_mut(&key) {
                Some(waiting) if waiting.len() < self.context.bounds.joined => {
                    waiting.push(queued);
                    queue.waiting += 1;
                    return Ok(());
                }
                Some(_) => self.context.reached.reached(Bound::Joined),
                None => {
                    queue.joined.insert(key.clone(), Vec::new());
                    queued.lead = Some(Lead::new(self.clone(), key));
                }
            }
        }
        self.push(&mut queue, [queued]);
        Ok(())
    }

    /// Adds jobs to those that leave at the end of this turn.
    fn push(self: &Arc<Self>, queue: &mut JobQueue, jobs: impl IntoIterator<Item = Queued>) {
        let before = queue.ready.len();
        queue.ready.extend(jobs);
        queue.waiting += queue.ready.len() - before;
        if !queue.scheduled && !queue.ready.is_empty() {
            queue.scheduled = true;
            // A task of its own, since a caller may disconnect. Without a runtime the process is about to end.
            if let Ok(runtime) = tokio::runtime::Handle::try_current() {
                runtime.spawn(Arc::clone(self).flush());
            }
        }
    }

    /// Sends the jobs that are ready by the end of this turn of the event loop.
    async fn flush(self: Arc<Self>) {
        // Lets all tasks that are ready run first.
        yield_now().await;
        let jobs = {
            let mut queue = self.queue.lock();
            queue.scheduled = false;
            queue.waiting -= queue.ready.len();
            std::mem::take(&mut queue.ready)
        };
        let mut batches = self.batches(jobs);
        let _in_flight = self.begin(&mut batches);
        match batches.len() {
            0 => {}
            1 => {
                if let Some(batch) = batches.pop() {
                    self.send(batch).await;
                }
            }
            _ => {
                join_all(batches.into_iter().map(|batch| self.send(batch))).await;
            }
        }
    }

    /// Sends a batch; then the jobs behind it have their turn, or fail as it has.
    async fn send(self: &Arc<Self>, mut batch: Batch) {
        let behind = std::mem::take(&mut batch.behind);
        match self.context.send(batch).await {
            Some(error) => self.context.fail(behind, &error.not_sent()),
            None if behind.is_empty() => {}
            None => self.push(&mut self.queue.lock(), behind),
        }
    }

    /// Counts these calls as in flight until the guard is dropped; refuses those that would be too many.
    fn begin(&self, batches: &mut Vec<Batch>) -> InFlight<'_> {
        let before = self.in_flight.fetch_add(batches.len(), Relaxed);
        let count = InFlight(&self.in_flight, batches.len());
        let room = self.context.bounds.in_flight.saturating_sub(before);
        for batch in batches.drain(room.min(batches.len())..) {
            self.context.reached.reached(Bound::InFlight);
            self.context.turn_away(batch, &StoreError::Overloaded);
        }
        count
    }

    /// Puts a job back into the queue when corrections in flight have ended, or its deadline has come.
    async fn wait_for_ledger(self: Arc<Self>, queued: Queued, landed: OwnedNotified) {
        let _ = timeout_at(queued.job.gives_up(), landed).await;
        let mut queue = self.queue.lock();
        self.push(&mut queue, [queued]);
    }

    /// Puts jobs into batches by lane and size, with the corrections that their counters are owed.
    fn batches(self: &Arc<Self>, jobs: Vec<Queued>) -> Vec<Batch> {
        let mut batches: Vec<Batch> = Vec::new();
        let mut open: HashMap<u16, usize> = HashMap::new();
        for queued in jobs {
            // The caller has stopped waiting: no hits need to be counted for it.
            if queued.job.is_abandoned() {
                self.context.record_refunds(&queued.job.calls);
                continue;
            }
            let checks = queued.job.checks();
            let lane = self.context.transport.lane(queued.shard);
            let known = open.get(&lane).and_then(|at| batches.get_mut(*at));
            let most = self.context.bounds.checks;
            let batch = match known.filter(|batch| batch.checks + checks <= most && batch.carried.len() < most) {
                Some(batch) => batch,
                None => {
                    if open.insert(lane, batches.len()).is_some() {
                        self.context.reached.reached(Bound::Checks);
                    }
                    batches.push(Batch::new(queued.shard, Carried::nothing(&self.context.ledger)));
                    let last = batches.len() - 1;
                    &mut batches[last]
                }
            };
            if !self.context.ledger.is_empty() {
                let claimed = self
                    .context
                    .ledger
                    .claim(queued.job.counters(), &mut batch.carried, most);
                match claimed {
                    Ok(true) => {}
                    Ok(false) => {
                        batch.behind.push(queued);
                        continue;
                    }
                    Err(landed) => {
                        tokio::spawn(Arc::clone(self).wait_for_ledger(queued, landed));
                        continue;
                    }
                }
            }
            if queued.job.try_start() {
                batch.checks += checks;
                if batch.jobs.is_empty() {
                    batch.shard = queued.shard;
                }
                batch.jobs.push(queued);
            } else {
                self.context.record_refunds(&queued.job.calls);
            }
        }
        batches.retain(|batch| !batch.jobs.is_empty() || !batch.carried.is_empty());
        batches
    }
}
