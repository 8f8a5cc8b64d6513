//! What the suite is run against: a store, and the clock that it decides by.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use sluicegate::config::settings::RedisSettings;
use sluicegate::model::{Check, Clock, CounterKey, Enforcement, Hits, Limit, ManualClock, Outcome, Transaction};
use sluicegate::store::coalesce::Coalesce;
use sluicegate::store::deny_cache::DenyCache;
use sluicegate::store::lease::Lease;
use sluicegate::store::memory::{DEFAULT_MAX_KEYS, MemoryStore};
use sluicegate::store::redis::RedisStore;
use sluicegate::store::{Outcomes, Store};
use tokio::runtime::Runtime;

use crate::support::redis::Redis;

/// Makes a subject: `open` in each `conformance!` line of `main.rs`.
pub type Open = fn() -> Subject;

/// A store under test.
pub struct Subject {
    /// What the suite asks.
    pub store: Arc<dyn Store>,
    /// The clock that the store decides by.
    pub clock: Arc<ManualClock>,
    /// The server behind the store, if there is one.
    pub server: Option<Arc<Redis>>,
    /// Runs the store's futures.
    pub runtime: Runtime,
}

impl Subject {
    /// Asks at a time.
    pub fn check(&self, now_us: u64, transaction: &Transaction) -> Outcomes {
        self.clock.set(now_us);
        let answer = self.runtime.block_on(self.store.check(transaction));
        let mut outcomes = answer.expect("an answer");
        assert_eq!(outcomes.len(), transaction.checks.len());
        // Who has answered is no part of the promise.
        for outcome in &mut outcomes {
            assert!(!(outcome.cached && outcome.allowed), "{outcome:?}");
            outcome.cached = false;
        }
        outcomes
    }

    /// Asks one thing at a time.
    pub fn one(&self, now_us: u64, key: &CounterKey, limit: Limit, hits: Hits) -> Outcome {
        self.check(now_us, &single(key, limit, hits))[0]
    }
}

/// A transaction of one check.
pub fn single(key: &CounterKey, limit: Limit, hits: Hits) -> Transaction {
    all([check(key, limit, hits, Enforcement::Enforce)])
}

/// A check.
pub fn check(key: &CounterKey, limit: Limit, hits: Hits, enforcement: Enforcement) -> Check {
    Check {
        key: key.clone(),
        limit,
        hits,
        enforcement,
    }
}

/// A transaction.
pub fn all(checks: impl IntoIterator<Item = Check>) -> Transaction {
    Transaction {
        checks: checks.into_iter().collect(),
        ..Transaction::default()
    }
}

/// A key that no other test of this process uses; all are of one hash slot.
pub fn fresh_key() -> CounterKey {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    CounterKey::from_raw(&format!("{number}:{{conformance}}"))
}

fn runtime() -> Runtime {
    let built = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build();
    built.expect("a runtime")
}

/// The store in this process' memory.
pub fn memory() -> Subject {
    let clock = Arc::new(ManualClock::new(0));
    Subject {
        store: Arc::new(MemoryStore::new(DEFAULT_MAX_KEYS, clock.clone())),
        clock,
        server: None,
        runtime: runtime(),
    }
}

/// A Redis for all tests that run at the same time; ends with the last of them.
pub fn shared_server() -> Arc<Redis> {
    static SHARED: Mutex<Weak<Redis>> = Mutex::new(Weak::new());
    let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
    shared.upgrade().unwrap_or_else(|| {
        let server = Arc::new(Redis::start());
        *shared = Arc::downgrade(&server);
        server
    })
}

/// The store in Redis.
pub fn redis() -> Subject {
    redis_at(shared_server())
}

/// The store in this Redis.
pub fn redis_at(server: Arc<Redis>) -> Subject {
    let mut subject = redis_client(&server.url());
    subject.server = Some(server);
    subject
}

/// The store in a Redis that somebody else has started.
pub fn redis_client(url: &str) -> Subject {
    let clock = Arc::new(ManualClock::new(0));
    let runtime = runtime();
    let store = runtime.block_on(connected(url, Some(clock.clone())));
    Subject {
        store: Arc::new(store),
        clock,
        server: None,
        runtime,
    }
}

/// A store that has its connections.
pub async fn connected(url: &str, clock: Option<Arc<dyn Clock>>) -> RedisStore {
    // No test here is about time that runs out.
    let patience = Duration::from_secs(60);
    let settings = RedisSettings::from_url(url).expect("a good URL");
    let store = RedisStore::with_clock(&settings, patience, Arc::new(|_| {}), clock).expect("no certificates");
    let start = Instant::now();
    while store.connections().0 < store.connections().1 {
        assert!(start.elapsed() < patience, "no connection to {url}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    store
}

/// Puts layers on a subject.
fn layered(mut subject: Subject, layers: impl FnOnce(Arc<dyn Store>, Arc<dyn Clock>) -> Arc<dyn Store>) -> Subject {
    let clock = Arc::clone(&subject.clock) as Arc<dyn Clock>;
    subject.store = layers(subject.store, clock);
    subject
}

/// Keys that a layer keeps in these tests: fewer than the tests use, so that they are evicted too.
const LAYER_KEYS: usize = 50;

/// The deny cache over the store in memory.
pub fn deny_cache() -> Subject {
    layered(memory(), |store, clock| {
        Arc::new(DenyCache::new(store, LAYER_KEYS, false, clock))
    })
}

/// Coalescing over Redis.
pub fn coalesce() -> Subject {
    layered(redis(), |store, _| {
        Arc::new(Coalesce::new(store, Duration::from_secs(60)))
    })
}

/// Leases over the store in memory.
pub fn lease() -> Subject {
    layered(memory(), |store, clock| Arc::new(Lease::new(store, LAYER_KEYS, clock)))
}

/// All layers over Redis, as a process puts them together.
pub fn layers() -> Subject {
    layered(redis(), |store, clock| {
        let coalesce = Coalesce::new(store, Duration::from_secs(60));
        let lease = Lease::new(coalesce, LAYER_KEYS, Arc::clone(&clock));
        Arc::new(DenyCache::new(lease, LAYER_KEYS, true, clock))
    })
}
