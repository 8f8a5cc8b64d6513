//! A layer that keeps one call under way for each key: checks of the key that come meanwhile wait and go together in
//! the next one, answered in arrival order as if they had come one by one.
//!
//! A waiter leaves when its time is up; its hits may then be counted all the same, as with any call whose answer is
//! lost. Requests for several counters go straight through: their keys would wait for each other.

use std::collections::HashMap;
use std::collections::hash_map::{Entry, RandomState};
use std::hash::BuildHasher;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::model::{CounterKey, Transaction};

use super::{Outcomes, Store, StoreError};

/// Waiters of one key; more go straight through.
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
    /// Longest that a waiter waits.
    timeout: Duration,
    shards: Box<[Mutex<UnderWay>]>,
    hasher: RandomState,
}

/// Keys with a call under way, each with those that wait for the next one.
type UnderWay = HashMap<CounterKey, Vec<Waiter>>;

struct Waiter {
    transaction: Transaction,
    answer: oneshot::Sender<Result<Outcomes, StoreError>>,
}

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

    /// Joins the call that comes next on this key, if one is under way. `Ok(None)`: there is none, and the caller
    /// now leads.
    fn join(&self, key: &CounterKey, transactions: &[Transaction]) -> Joined {
        let mut keys = self.shard(key).lock();
        match keys.entry(key.clone()) {
            Entry::Vacant(vacant) => {
                vacant.insert(Vec::new());
                Joined::Leads
            }
            Entry::Occupied(mut waiting) => {
                if waiting.get().len() + transactions.len() > MAX_WAITING {
                    return Joined::Full;
                }
                let wait = |transaction: &Transaction| {
                    let (answer, answered) = oneshot::channel();
                    waiting.get_mut().push(Waiter {
                        transaction: transaction.clone(),
                        answer,
                    });
                    answered
                };
                Joined::Waits(transactions.iter().map(wait).collect())
            }
        }
    }

    /// The waiters that go next; forgets the key when there are none.
    fn next(&self, key: &CounterKey) -> Vec<Waiter> {
        let mut keys = self.shard(key).lock();
        let Some(waiting) = keys.get_mut(key) else {
            return Vec::new();
        };
        if waiting.is_empty() {
            keys.remove(key);
            return Vec::new();
        }
        let count = waiting.len().min(MAX_BATCH);
        waiting.drain(..count).collect()
    }

    /// Calls for waiters until there are none.
    async fn drain(&self, key: &CounterKey) {
        loop {
            let mut waiters = self.next(key);
            if waiters.is_empty() {
                return;
            }
            // Those who left need no answer, and their hits need not be counted.
            waiters.retain(|waiter| !waiter.answer.is_closed());
            let (transactions, answers): (Vec<_>, Vec<_>) = waiters
                .into_iter()
                .map(|waiter| (waiter.transaction, waiter.answer))
                .unzip();
            if transactions.is_empty() {
                continue;
            }
            match self.inner.check_many(&transactions).await {
                Ok(outcomes) => answers.into_iter().zip(outcomes).for_each(|(answer, outcomes)| {
                    // A waiter that has just left does not mind.
                    let _ = answer.send(Ok(outcomes));
                }),
                Err(error) => answers.into_iter().for_each(|answer| {
                    let _ = answer.send(Err(error.clone()));
                }),
            }
        }
    }

    async fn wait(
        &self,
        deadline: Option<Instant>,
        answers: Vec<oneshot::Receiver<Result<Outcomes, StoreError>>>,
    ) -> Result<Vec<Outcomes>, StoreError> {
        let left = deadline.map_or(self.timeout, |deadline| {
            deadline.saturating_duration_since(Instant::now()).min(self.timeout)
        });
        let all = async {
            let mut all = Vec::with_capacity(answers.len());
            for answer in answers {
                let lost = |_| {
                    Err(StoreError::Broken(
                        "the call that this one waited for was dropped".into(),
                    ))
                };
                all.push(answer.await.unwrap_or_else(lost)?);
            }
            Ok(all)
        };
        tokio::time::timeout(left, all)
            .await
            .unwrap_or(Err(StoreError::Timeout(left)))
    }
}

enum Joined {
    Leads,
    Waits(Vec<oneshot::Receiver<Result<Outcomes, StoreError>>>),
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
        match self.shared.join(key, transactions) {
            Joined::Full => self.shared.inner.check_many(transactions).await,
            Joined::Waits(answers) => {
                let deadline = transactions.iter().filter_map(|transaction| transaction.deadline).min();
                self.shared.wait(deadline, answers).await
            }
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
