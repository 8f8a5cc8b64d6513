//! One call: what a batch carries out and back, and what its fate means for the jobs and the corrections in it.

use std::time::Duration;

use futures::future::join_all;
use smallvec::SmallVec;
use tokio::time::{Instant, timeout};

use super::bounds::Bound;
use super::carried::{Carried, Fate};
use super::context::Context;
use super::job::Calls;
use super::queued::Queued;
use super::transport::{Answers, Delivery, Transport};
use crate::algorithms::op::Op;
use crate::model::{Check, CounterKey, Transaction};
use crate::store::StoreError;
use crate::store::change::Change;
use crate::store::correction::Correction;

/// The grace period: a call that is not answered within the store's timeout stays in flight for this much longer. If its answer
/// still does not come, its fate is unknown.
pub const GRACE: Duration = Duration::from_secs(1);

/// A caller that gives up has asked the failure mode by then.
const DECIDED: Duration = Duration::from_millis(100);

/// What leaves in one call.
pub(super) struct Batch {
    /// That of its first job, or else of its first correction; the others are of shards of the same lane.
    pub shard: u16,
    pub carried: Carried,
    pub jobs: Vec<Queued>,
    pub checks: usize,
    /// Jobs whose counters have more corrections than fit: they do not go with this call, but after it.
    pub behind: Vec<Queued>,
}

impl Batch {
    /// A batch of corrections.
    pub(super) const fn new(shard: u16, carried: Carried) -> Self {
        Self {
            shard,
            carried,
            jobs: Vec::new(),
            checks: 0,
            behind: Vec::new(),
        }
    }
}

impl<T: Transport> Context<T> {
    /// Sends a batch and answers its jobs. What came of it for the corrections in it.
    ///
    /// # Errors
    /// The call's.
    pub(super) async fn send(&self, mut batch: Batch) -> Option<StoreError> {
        let used = |key: &CounterKey, limit: &_| self.fallback.as_ref().map(|fallback| fallback.used(key, limit));
        let corrections = batch.carried.transaction(used);
        let with_corrections = !corrections.checks.is_empty();
        let mut calls: Vec<Transaction<_>> = Vec::with_capacity(batch.jobs.len() + 1);
        calls.extend(with_corrections.then_some(corrections));
        for queued in &mut batch.jobs {
            calls.extend(queued.job.take_calls());
        }
        if calls.is_empty() {
            batch.carried.end(Fate::Applied);
            return None;
        }
        batch.carried.sent();
        let error = match self.deliver(batch.shard, &calls).await {
            Delivery::Answered(Ok(answers)) => {
                self.circuit.succeeded();
                self.applied(&batch.carried);
                batch.carried.end(Fate::Applied);
                let from = usize::from(with_corrections).min(answers.len());
                let calls = calls.split_off(from);
                self.answer(batch.jobs, calls, answers.into_iter().skip(from));
                return None;
            }
            // Nothing was counted. A key that is somebody else's, or on another node by now, spoils the call that it is in: each
            // part by itself, then.
            Delivery::Answered(Err(error))
                if error.is_about_one_key() || error.is_cross_slot() && self.is_mixed(&batch) =>
            {
                return self.send_apart(batch, calls, with_corrections, error).await;
            }
            Delivery::Answered(Err(error)) => {
                batch.carried.end(Fate::NotApplied);
                self.refuse(batch.jobs, &calls, &error);
                error
            }
            Delivery::NotSent(error) => {
                batch.carried.end(Fate::NotApplied);
                let error = error.not_sent();
                self.refuse(batch.jobs, &calls, &error);
                error
            }
            Delivery::Indeterminate(error) => {
                batch.carried.end(Fate::Unknown);
                self.end_holds(&batch.jobs, &calls);
                for queued in batch.jobs {
                    queued.job.fail(error.clone());
                }
                error
            }
        };
        self.circuit.failed(&error);
        Some(error)
    }

    /// Sends the parts of a batch that was refused as a whole: those of each shard in a call of their own, or, if they are all of
    /// one, each job.
    async fn send_apart(
        &self,
        mut batch: Batch,
        calls: Vec<Transaction<Op>>,
        with_corrections: bool,
        error: StoreError,
    ) -> Option<StoreError> {
        let is_of_one = batch.jobs.is_empty() && !batch.carried.is_of_several();
        if is_of_one || batch.jobs.len() == 1 && batch.carried.is_empty() {
            // Another application uses the key: no correction of it can ever be applied.
            batch.carried.end(Fate::Hopeless);
            for queued in batch.jobs {
                queued.job.fail(error.clone());
            }
            return None;
        }
        let mut calls = calls.into_iter().skip(usize::from(with_corrections));
        for queued in &mut batch.jobs {
            queued.job.calls = calls.by_ref().take(queued.job.count).collect();
        }
        if self.is_mixed(&batch) {
            self.send_shards(batch).await
        } else {
            self.send_jobs(batch).await;
            None
        }
    }

    /// Whether it has parts of several shards.
    fn is_mixed(&self, batch: &Batch) -> bool {
        let of_another = |key: &CounterKey| self.transport.shard(key) != batch.shard;
        batch.jobs.iter().any(|queued| queued.shard != batch.shard) || batch.carried.counters().any(of_another)
    }

    async fn send_shards(&self, mut batch: Batch) -> Option<StoreError> {
        let mut parts: Vec<Batch> = Vec::new();
        for queued in std::mem::take(&mut batch.jobs) {
            let known = parts.iter().position(|part| part.shard == queued.shard);
            let at = known.unwrap_or_else(|| {
                let corrections = |key: &CounterKey| self.transport.shard(key) == queued.shard;
                parts.push(Batch::new(queued.shard, batch.carried.split_off(corrections)));
                parts.len() - 1
            });
            parts[at].jobs.push(queued);
        }
        while let Some(key) = batch.carried.first() {
            let shard = self.transport.shard(&key);
            let corrections = batch.carried.split_off(|key| self.transport.shard(key) == shard);
            parts.push(Batch::new(shard, corrections));
        }
        let sent = join_all(parts.into_iter().map(|part| Box::pin(self.send(part)))).await;
        sent.into_iter().flatten().next()
    }

    /// One after the other, so that corrections are applied before whatever else is decided of their counters.
    async fn send_jobs(&self, mut batch: Batch) {
        for queued in std::mem::take(&mut batch.jobs) {
            let counters: Vec<CounterKey> = queued.job.counters().cloned().collect();
            let mut alone = Batch::new(batch.shard, batch.carried.split_off(|key| counters.contains(key)));
            alone.jobs.push(queued);
            Box::pin(self.send_one(alone)).await;
        }
        while let Some(key) = batch.carried.first() {
            let alone = Batch::new(batch.shard, batch.carried.split_off(|other| *other == key));
            Box::pin(self.send_one(alone)).await;
        }
    }

    /// A batch that cannot be taken further apart.
    async fn send_one(&self, mut batch: Batch) {
        if batch.jobs.len() == 1 && !batch.carried.is_empty() {
            let corrections = Batch::new(batch.shard, batch.carried.split_off(|_| true));
            Box::pin(self.send(corrections)).await;
        }
        self.send(batch).await;
    }

    /// Sends one call, and waits for its answer until the grace period has passed too, longer than its callers wait.
    pub(super) async fn deliver(&self, shard: u16, calls: &[Transaction<Op>]) -> Delivery {
        let mut sending = std::pin::pin!(self.transport.send(shard, calls));
        if let Ok(delivery) = timeout(self.timeout, &mut sending).await {
            return delivery;
        }
        let late = StoreError::Timeout(self.timeout);
        self.circuit.failed(&late);
        timeout(GRACE, sending).await.unwrap_or_else(|_| {
            self.reached.reached(Bound::Grace);
            Delivery::Indeterminate(late)
        })
    }

    /// Updates the stages above after corrections have been applied: cached denials of their counters are no longer certain.
    fn applied(&self, carried: &Carried) {
        if let Some(denials) = &self.denials {
            carried.counters().for_each(|key| denials.forget(key));
        }
        if let Some(fallback) = &self.fallback {
            carried.mirror(fallback);
        }
    }

    fn answer(&self, jobs: Vec<Queued>, calls: Vec<Transaction<Op>>, answers: impl Iterator<Item = Answers>) {
        let mut calls = calls.into_iter();
        let mut answers = answers.fuse();
        for queued in jobs {
            let count = queued.job.count;
            let own: Calls = calls.by_ref().take(count).collect();
            let own_answers: SmallVec<[Answers; 2]> = answers.by_ref().take(count).collect();
            let fits = own_answers.len() == count
                && own
                    .iter()
                    .zip(&own_answers)
                    .all(|(call, answers)| call.checks.len() == answers.len());
            if !fits {
                queued.job.fail(StoreError::Protocol(
                    "an answer of another length than its question".into(),
                ));
                continue;
            }
            let stays = |check: &_, change| self.stays(check, change);
            let holds = queued.job.answer(&own, own_answers.clone(), stays);
            // If the caller gave up, the fallback counters have decided its request themselves.
            if let Some(fallback) = self.fallback.as_ref().filter(|_| holds) {
                own.iter()
                    .zip(&own_answers)
                    .for_each(|(call, answers)| fallback.mirror(call, answers));
            }
        }
    }

    /// Ends the holds that a call of an unknown fate may have made for callers that have gone. Of those that still wait, the failure
    /// mode decides.
    fn end_holds(&self, jobs: &[Queued], calls: &[Transaction<Op>]) {
        let count: usize = jobs.iter().map(|queued| queued.job.count).sum();
        let mut calls = calls.iter().skip(calls.len() - count);
        for queued in jobs {
            let own: SmallVec<[_; 1]> = calls.by_ref().take(queued.job.count).collect();
            if !queued.job.is_abandoned() {
                continue;
            }
            let checks = own.iter().flat_map(|call| &call.checks).map(|check| {
                let is_granted = match check.hits {
                    Op::Hold { hits, id } => self.stays(check, Change::Held(id, hits)),
                    _ => false,
                };
                (check, is_granted)
            });
            // Else fallback counters may grant the hold just now.
            let is_final = Instant::now() >= queued.job.gives_up() + DECIDED;
            let ended = Correction::end_unknown(checks, is_final);
            ended.into_iter().for_each(|ended| self.ledger.record(ended));
        }
    }

    /// Whether what the server has done for a caller that waits no more stays done.
    fn stays(&self, check: &Check<Op>, change: Change) -> bool {
        let fallback = self.fallback.as_ref();
        fallback.is_some_and(|fallback| fallback.agrees(check, change))
    }

    /// Answers the jobs of a batch that is not sent at all.
    pub(super) fn turn_away(&self, batch: Batch, error: &StoreError) {
        batch.carried.end(Fate::NotApplied);
        self.fail(batch.jobs.into_iter().chain(batch.behind), error);
    }

    /// Answers jobs that were not sent.
    pub(super) fn fail(&self, jobs: impl IntoIterator<Item = Queued>, error: &StoreError) {
        for queued in jobs {
            self.record_refunds(&queued.job.calls);
            queued.job.fail(error.clone());
        }
    }

    /// Answers jobs whose call certainly counted nothing, and records its refunds in the ledger.
    fn refuse(&self, jobs: Vec<Queued>, calls: &[Transaction<Op>], error: &StoreError) {
        let from = calls.len() - jobs.iter().map(|queued| queued.job.count).sum::<usize>();
        self.record_refunds(&calls[from..]);
        for queued in jobs {
            queued.job.fail(error.clone());
        }
    }
}
