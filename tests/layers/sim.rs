//! A simulated network in simulated time (tokio's paused clock): a store behind random delays that loses calls and
//! answers, and replicas with clocks of their own.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use sluicegate::algorithms::limit::{self, LimitSpec};
use sluicegate::algorithms::op::Op;
use sluicegate::model::key::{Owner, Part, counter_key};
use sluicegate::model::{AlgorithmKind, Check, Clock, Enforcement, Hits, Limit, Transaction, Unit, Window};
use sluicegate::store::StoreError;
use sluicegate::store::memory::MemoryStore;
use sluicegate::store::remote::transport::{Answers, BreakerScope, Delivery, Transport};
use sluicegate::store::remote::{Options, Remote};
use tokio::time::Instant;

/// Simulated time plus an offset, in microseconds.
pub struct SimClock {
    start: Instant,
    offset_us: u64,
}

impl SimClock {
    pub fn new(offset_us: u64) -> Arc<Self> {
        Arc::new(Self {
            start: Instant::now(),
            offset_us,
        })
    }
}

impl Clock for SimClock {
    fn now_us(&self) -> u64 {
        self.offset_us + u64::try_from(self.start.elapsed().as_micros()).expect("short")
    }
}

/// The store at the other end of a network.
pub struct Network {
    pub store: Arc<MemoryStore>,
    clock: Arc<SimClock>,
    random: Mutex<SmallRng>,
    /// One in so many calls is lost on the way there, and one in so many on the way back; 0 = none.
    loss: u32,
    /// Trips.
    pub calls: AtomicU64,
    /// When each directly asked hit was counted.
    pub counted: Mutex<Vec<u64>>,
}

impl Network {
    pub fn new(seed: u64, loss: u32) -> Arc<Self> {
        // Far from 0, so that windows have a past.
        let clock = SimClock::new(1_000_000_000_000);
        let keys = std::num::NonZeroUsize::new(100_000).expect("not zero");
        Arc::new(Self {
            store: Arc::new(MemoryStore::new(keys, Arc::clone(&clock) as Arc<dyn Clock>)),
            clock,
            random: Mutex::new(SmallRng::seed_from_u64(seed)),
            loss,
            calls: AtomicU64::new(0),
            counted: Mutex::default(),
        })
    }

    pub fn now_us(&self) -> u64 {
        self.clock.now_us()
    }

    async fn travel(&self) -> Result<(), StoreError> {
        let (us, lost) = {
            let mut random = self.random.lock();
            let mean = if random.random_ratio(1, 3) { 20_000.0 } else { 300.0 };
            let us = -mean * (1.0 - random.random::<f64>()).ln();
            (us as u64, self.loss > 0 && random.random_ratio(1, self.loss))
        };
        // Never at once: a driver tells local answers by that.
        tokio::time::sleep(Duration::from_micros(us.max(50))).await;
        if lost {
            Err(StoreError::Timeout(Duration::ZERO))
        } else {
            Ok(())
        }
    }
}

impl Network {
    fn decide(&self, transactions: &[Transaction<Op>]) -> Vec<Answers> {
        let mut all = Vec::new();
        for transaction in transactions {
            let answers = self.store.check_ops(transaction);
            if transaction.passes(answers.iter().map(|answer| answer.outcome.allowed)) {
                for (check, answer) in transaction.checks.iter().zip(&answers) {
                    if let (Op::Acquire(hits), true) = (check.hits, answer.outcome.allowed) {
                        let now = self.now_us();
                        self.counted.lock().extend((0..hits).map(|_| now));
                    }
                }
            }
            all.push(answers);
        }
        all
    }
}

/// One end of the network.
pub struct End(pub Arc<Network>);

impl Transport for End {
    /// A failure says nothing of other calls.
    fn scope(&self) -> BreakerScope {
        BreakerScope::Cluster
    }

    async fn send(&self, _shard: u16, calls: &[Transaction<Op>]) -> Delivery {
        self.0.calls.fetch_add(1, Ordering::Relaxed);
        if let Err(error) = self.0.travel().await {
            return Delivery::Indeterminate(error);
        }
        let answers = self.0.decide(calls);
        match self.0.travel().await {
            Ok(()) => Delivery::Answered(Ok(answers)),
            Err(error) => Delivery::Indeterminate(error),
        }
    }
}

/// A pipeline over the network, with some of its stages.
pub fn pipeline(
    network: &Arc<Network>,
    clock: Arc<dyn Clock>,
    timeout: Duration,
    stages: impl FnOnce(Options) -> Options,
) -> Arc<Remote<End>> {
    let options = stages(Options::plain(timeout));
    Remote::new([End(Arc::clone(network))], |_| 0, &options, None, clock)
}

pub fn limit(algorithm: AlgorithmKind, hits: u64, seconds: u32) -> Limit {
    let window = Window::times(Unit::Second, seconds);
    let spec = LimitSpec::new(algorithm, hits, window);
    limit::build(&spec).expect("a limit")
}

pub fn take(limit: &Limit, value: &str, hits: u64) -> Check {
    let key = counter_key("t:", Owner::Rule, limit, "d", [Part::Own("k", value)]);
    Check {
        key,
        limit: *limit,
        hits: Hits::Acquire(hits),
        enforcement: Enforcement::Enforce,
    }
}

pub fn one(check: Check) -> Transaction {
    Transaction {
        checks: [check].into_iter().collect(),
        ..Transaction::default()
    }
}

/// The most hits in any window `(t - window, t]`.
pub fn worst_window(times: &mut [u64], window_us: u64) -> u64 {
    times.sort_unstable();
    let (mut worst, mut first) = (0, 0);
    for (last, time) in times.iter().enumerate() {
        while times[first] + window_us <= *time {
            first += 1;
        }
        worst = worst.max(last - first + 1);
    }
    worst as u64
}

/// How many of these arrivals an exact log admits.
pub fn ideal(times: &mut [u64], limit: u64, window_us: u64) -> u64 {
    times.sort_unstable();
    let mut log = std::collections::VecDeque::new();
    let mut admitted = 0;
    for time in times {
        while log.front().is_some_and(|first| *first + window_us <= *time) {
            log.pop_front();
        }
        if (log.len() as u64) < limit {
            log.push_back(*time);
            admitted += 1;
        }
    }
    admitted
}
