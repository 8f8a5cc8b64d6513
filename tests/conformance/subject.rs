//! What the suite is run against: a store, and the clock that it decides by.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use sluicegate::algorithms::op::{Answer, Op};
use sluicegate::config::settings::RedisSettings;
use sluicegate::model::{Check, Clock, CounterKey, Enforcement, Hits, Limit, ManualClock, Outcome, Transaction};
use sluicegate::store::memory::{DEFAULT_MAX_KEYS, MemoryStore};
use sluicegate::store::redis::RedisTransport;
use sluicegate::store::remote::transport::{Delivery, Transport};
use sluicegate::store::remote::{Options, Remote};
use sluicegate::store::{Outcomes, Store};
use tokio::runtime::Runtime;

use crate::support::redis::Redis;

/// Makes a subject: `open` in each `conformance!` line of `main.rs`.
pub type Open = fn() -> Subject;

/// A store under test.
pub struct Subject {
    /// What the suite asks.
    pub store: Arc<dyn Store>,
    /// The same counters in the vocabulary of the pipeline.
    pub counters: Counters,
    /// The clock that the store decides by.
    pub clock: Arc<ManualClock>,
    /// The server behind the store, if there is one.
    pub server: Option<Arc<Redis>>,
    /// Runs the store's futures.
    pub runtime: Runtime,
}

/// Where counters are.
#[derive(Clone)]
pub enum Counters {
    Memory(Arc<MemoryStore>),
    Redis(Arc<Remote<RedisTransport>>),
}

/// Counters in this process' memory behind the pipeline to a shared store.
struct InMemory(Arc<MemoryStore>);

impl Transport for InMemory {
    async fn send(&self, _shard: u16, calls: &[Transaction<Op>]) -> Delivery {
        Delivery::Answered(Ok(calls.iter().map(|call| self.0.check_ops(call)).collect()))
    }
}

impl Subject {
    /// Asks several things in one trip at a time, of the counters themselves.
    pub fn decide(&self, now_us: u64, calls: &[Transaction<Op>]) -> Vec<Vec<Answer>> {
        self.clock.set(now_us);
        let answers = match &self.counters {
            Counters::Memory(memory) => calls.iter().map(|call| memory.check_ops(call)).collect(),
            Counters::Redis(remote) => {
                let redis = remote.transport(0).expect("one server");
                match self.runtime.block_on(redis.send(0, calls)) {
                    Delivery::Answered(answers) => answers.expect("an answer"),
                    other => panic!("{other:?}"),
                }
            }
        };
        answers.into_iter().map(|answers| answers.to_vec()).collect()
    }

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
pub fn check<H>(key: &CounterKey, limit: Limit, hits: H, enforcement: Enforcement) -> Check<H> {
    Check {
        key: key.clone(),
        limit,
        hits,
        enforcement,
    }
}

/// A transaction.
pub fn all<H>(checks: impl IntoIterator<Item = Check<H>>) -> Transaction<H> {
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
    let memory = Arc::new(MemoryStore::new(DEFAULT_MAX_KEYS, clock.clone()));
    Subject {
        store: memory.clone(),
        counters: Counters::Memory(memory),
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
        store: store.clone(),
        counters: Counters::Redis(store),
        clock,
        server: None,
        runtime,
    }
}

/// No test here is about time that runs out.
const PATIENCE: Duration = Duration::from_secs(60);

/// A store that has its connections.
pub async fn connected(url: &str, clock: Option<Arc<dyn Clock>>) -> Arc<Remote<RedisTransport>> {
    let settings = RedisSettings::from_url(url).expect("a good URL");
    let redis = RedisTransport::with_clock(&settings, PATIENCE, Arc::new(|_| {}), clock).expect("no certificates");
    let start = Instant::now();
    while redis.connections().0 < redis.connections().1 {
        assert!(start.elapsed() < PATIENCE, "no connection to {url}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Remote::plain(redis, PATIENCE, Arc::new(ManualClock::new(0)))
}

/// Counters that a stage keeps in these tests: fewer than the tests use, so that they are evicted too.
const STAGE_KEYS: Option<usize> = Some(50);

/// Puts stages before a subject's counters.
fn staged(mut subject: Subject, options: impl FnOnce(Options) -> Options) -> Subject {
    let clock = Arc::clone(&subject.clock) as Arc<dyn Clock>;
    let options = options(Options::plain(PATIENCE));
    subject.store = match &subject.counters {
        Counters::Memory(memory) => Remote::new([InMemory(memory.clone())], |_| 0, &options, None, clock),
        Counters::Redis(_) => {
            let url = subject.server.as_ref().expect("a server").url();
            let open = async {
                let settings = RedisSettings::from_url(&url).expect("a good URL");
                RedisTransport::with_clock(&settings, PATIENCE, Arc::new(|_| {}), Some(clock.clone()))
            };
            let redis = subject.runtime.block_on(open).expect("no certificates");
            while redis.connections().0 == 0 {
                std::thread::sleep(Duration::from_millis(5));
            }
            Remote::new([redis], |_| 0, &options, None, clock)
        }
    };
    subject
}

/// Cached denials over the store in memory.
pub fn deny_cache() -> Subject {
    staged(memory(), |plain| Options {
        denial_keys: STAGE_KEYS,
        ..plain
    })
}

/// Joined keys over Redis.
pub fn coalesce() -> Subject {
    staged(redis(), |plain| Options { join: true, ..plain })
}

/// Leases over the store in memory.
pub fn lease() -> Subject {
    staged(memory(), |plain| Options {
        lease_keys: STAGE_KEYS,
        ..plain
    })
}

/// All stages over Redis, as a process puts them together.
pub fn layers() -> Subject {
    staged(redis(), |plain| Options {
        join: true,
        lease_keys: STAGE_KEYS,
        denial_keys: STAGE_KEYS,
        ..plain
    })
}
