//! A layer that keeps one call under way for each key: checks of the key that come meanwhile wait and go together in
//! the next one, answered in arrival order as if they had come one by one.
//!
//! A waiter leaves when its time is up; what is then counted for it all the same is given back. Requests for several
//! counters go straight through: their keys would wait for each other.

use std::collections::HashMap;
use std::collections::hash_map::{Entry, RandomState};
use std::hash::BuildHasher;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;

use crate::model::{CounterKey, Transaction};

use super::late::{self, Caller, Job};
use super::{Outcomes, Store, StoreError};

/// Those that wait on one key; more go straight through.
const MAX_WAITING: usize = 1024;
/// Checks that go in one call; a script that runs longer would hold everybody up.
const MAX_BATCH: usize = 256;
/// Locks over the keys under way.
const SHARDS: usize = 64;

/// The layer.
pub struct Coalesce<S> {
    shared: Arc<Shared<S>>,
}

struct Shared<S> {
    inner: S,
    /// Longest that one waits.
    timeout: Duration,
    shards: Box<[Mutex<UnderWay>]>,
    hasher: RandomState,
}

/// Keys with a call under way, each with those that wait for the next one.
type UnderWay = HashMap<CounterKey, Vec<Job>>;

impl<S: Store> Coalesce<S> {
    /// A layer over `inner`; a waiter gives up after `timeout`.
    pub fn new(inner: S, timeout: Duration) -> Self {
        let shards = (0..SHARDS).map(|_| Mutex::default()).collect();
        Self {
            shared: Arc::new(Shared {
                inner,
                timeout,
                shards,
                hasher: RandomState::new(),
            }),
        }
    }
}

impl<S: Store> Shared<S> {
    fn shard(&self, key: &CounterKey) -> &Mutex<UnderWay> {
        let index = usize::try_from(self.hasher.hash_one(key) % SHARDS as u64).unwrap_or(0);
        // Below SHARDS by the remainder.
        &self.shards[index]
    }

    /// Joins the call that comes next on this key, if one is under way; else the caller now leads.
    ///
    /// # Errors
    /// When there is no time to wait.
    fn join(&self, key: &CounterKey, transactions: &[Transaction]) -> Result<Joined, StoreError> {
        let mut keys = self.shard(key).lock();
        match keys.entry(key.clone()) {
            Entry::Vacant(vacant) => {
                vacant.insert(Vec::new());
                Ok(Joined::Leads)
            }
            Entry::Occupied(waiting) if waiting.get().len() >= MAX_WAITING => Ok(Joined::Full),
            Entry::Occupied(mut waiting) => {
                let (job, caller) = late::call(transactions.into(), self.timeout)?;
                waiting.get_mut().push(job);
                Ok(Joined::Waits(caller))
            }
        }
    }

    /// Those that go next; forgets the key when there are none.
    fn next(&self, key: &CounterKey) -> Vec<Job> {
        let mut keys = self.shard(key).lock();
        let Some(waiting) = keys.get_mut(key) else {
            return Vec::new();
        };
        if waiting.is_empty() {
            keys.remove(key);
            return Vec::new();
        }
        let mut transactions = 0;
        let fits = |job: &&Job| {
            transactions += job.transactions.len();
            transactions <= MAX_BATCH
        };
        let count = waiting.iter().take_while(fits).count().max(1);
        waiting.drain(..count).collect()
    }

    /// Calls for those that wait until there are none.
    async fn drain(self: &Arc<Self>, key: &CounterKey) {
        loop {
            let mut jobs = self.next(key);
            if jobs.is_empty() {
                return;
            }
            // Those who left need no answer, and their hits need not be counted.
            jobs.retain(Job::leaves);
            // One caller's haste must not end the others' call: each leaves by itself.
            let patient = |transaction: &Transaction| Transaction {
                deadline: None,
                ..transaction.clone()
            };
            let together: Vec<_> = jobs
                .iter()
                .flat_map(|job| job.transactions.iter().map(patient))
                .collect();
            if together.is_empty() {
                continue;
            }
            let mut undo = late::answer(jobs, self.inner.check_many(&together).await);
            if undo.is_empty() {
                continue;
            }
            // The key's next call does not wait for it.
            let shared = Arc::clone(self);
            tokio::spawn(async move {
                while undo.is_due().await {
                    let answer = shared.inner.check_many(undo.transactions()).await;
                    undo.heard(&answer);
                }
            });
        }
    }
}

enum Joined {
    Leads,
    Waits(Caller),
    Full,
}

/// Whoever leads a key hands its waiters on when it is done, also when it is dropped half-way.
struct Lead<S: Store> {
    shared: Arc<Shared<S>>,
    key: CounterKey,
}

impl<S: Store> Drop for Lead<S> {
    fn drop(&mut self) {
        let mut keys = self.shared.shard(&self.key).lock();
        if keys.get(&self.key).is_some_and(Vec::is_empty) {
            keys.remove(&self.key);
            return;
        }
        drop(keys);
        let (shared, key) = (Arc::clone(&self.shared), self.key.clone());
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move { shared.drain(&key).await });
        }
    }
}

/// The one key that all the transactions are about.
fn one_key(transactions: &[Transaction]) -> Option<&CounterKey> {
    let mut checks = transactions.iter().flat_map(|transaction| &transaction.checks);
    let first = checks.next()?;
    checks.all(|check| check.key == first.key).then_some(&first.key)
}

#[async_trait]
impl<S: Store> Store for Coalesce<S> {
    async fn check(&self, transaction: &Transaction) -> Result<Outcomes, StoreError> {
        let mut all = self.check_many(std::slice::from_ref(transaction)).await?;
        all.pop()
            .ok_or_else(|| StoreError::Protocol("no answer to a transaction".into()))
    }

    async fn check_many(&self, transactions: &[Transaction]) -> Result<Vec<Outcomes>, StoreError> {
        let Some(key) = one_key(transactions) else {
            return self.shared.inner.check_many(transactions).await;
        };
        match self.shared.join(key, transactions)? {
            Joined::Full => self.shared.inner.check_many(transactions).await,
            Joined::Waits(caller) => caller.wait().await,
            Joined::Leads => {
                let _lead = Lead {
                    shared: Arc::clone(&self.shared),
                    key: key.clone(),
                };
                self.shared.inner.check_many(transactions).await
            }
        }
    }
}
