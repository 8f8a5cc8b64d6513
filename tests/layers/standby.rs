//! The standby counters: outages of the shared store under load, and what passes at their edges.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use sluicegate::model::{AlgorithmKind, Check, Clock, Hits, Limit, Transaction};
use sluicegate::store::breaker::{Breaker, Covers, probe_forever};
use sluicegate::store::memory::MemoryStore;
use sluicegate::store::standby::{Fate, Follow, Standby};
use sluicegate::store::{Outcomes, Refusal, Store, StoreError};
use tokio::time::{Instant, sleep};

use crate::sim::{SimClock, limit, one, take, worst_window};

/// A shared store close by, that can be away, and that now and then loses a call or an answer.
struct Shared {
    store: MemoryStore,
    away: AtomicBool,
    random: Mutex<SmallRng>,
    /// One in so many calls, and one in so many answers; 0 = none.
    loss: u32,
    /// What calls about the counter [`SPOILT`] get.
    spoilt: Mutex<Option<StoreError>>,
}

/// A counter that fails when others do not.
const SPOILT: &str = "spoilt";

/// More than a call takes.
const PATIENCE: Duration = Duration::from_secs(5);
/// There, or back again.
const TRAVEL: Duration = Duration::from_micros(50);

impl Shared {
    fn new(seed: u64, loss: u32) -> Arc<Self> {
        Arc::new(Self {
            store: memory(SimClock::new(1_000_000_000_000)),
            away: AtomicBool::new(false),
            random: Mutex::new(SmallRng::seed_from_u64(seed)),
            loss,
            spoilt: Mutex::default(),
        })
    }

    fn spoils(&self, transaction: &Transaction) -> Option<StoreError> {
        let mut checks = transaction.checks.iter();
        let spoilt = checks.any(|check| check.key == take(&check.limit, SPOILT, 1).key);
        self.spoilt.lock().clone().filter(|_| spoilt)
    }

    async fn travel(&self) -> Result<(), StoreError> {
        sleep(TRAVEL).await;
        if self.away.load(Ordering::Relaxed) {
            return Err(StoreError::Unavailable("away".into()));
        }
        if self.loss > 0 && self.random.lock().random_ratio(1, self.loss) {
            return Err(StoreError::Timeout(Duration::ZERO));
        }
        Ok(())
    }
}

#[async_trait]
impl Store for Shared {
    async fn check(&self, transaction: &Transaction) -> Result<Outcomes, StoreError> {
        self.travel().await?;
        if let Some(error) = self.spoils(transaction) {
            return Err(error);
        }
        let outcomes = self.store.check_now(transaction);
        self.travel().await?;
        Ok(outcomes)
    }
}

fn memory(clock: Arc<dyn Clock>) -> MemoryStore {
    MemoryStore::new(std::num::NonZeroUsize::new(10_000).expect("not zero"), clock)
}

/// One process: the shared store behind a circuit breaker, and the counters that stand by.
#[derive(Clone)]
struct Replica {
    store: Arc<Breaker<Arc<Follow<Arc<Shared>>>>>,
    standby: Arc<Standby>,
}

impl Replica {
    fn start(shared: &Arc<Shared>, offset_us: u64, replicas: u32) -> Self {
        let standby = Arc::new(Standby::new(Arc::new(memory(SimClock::new(offset_us))), replicas));
        let follow = Follow::new(Arc::clone(shared), Arc::clone(&standby), |_| true, PATIENCE);
        let store = Breaker::new(Arc::new(follow), Covers::OneServer);
        let probe = one(take(&limit(AlgorithmKind::FixedWindow, 1_000_000, 1), "probe", 1));
        tokio::spawn(probe_forever(Arc::downgrade(&store), probe));
        Self { store, standby }
    }

    async fn admits(&self, transaction: &Transaction) -> bool {
        let outcomes = match self.store.check(transaction).await {
            Ok(outcomes) => outcomes,
            Err(error) => self.standby.decide(transaction, Fate::of(&error)),
        };
        transaction.passes(outcomes.iter().map(|outcome| outcome.allowed))
    }

    fn is_back(&self) -> bool {
        self.store.state().borrow().is_none()
    }
}

fn peek(rule: &Limit) -> Check {
    Check {
        hits: Hits::Peek,
        ..take(rule, "x", 1)
    }
}

#[derive(Clone, Copy)]
struct Run {
    seed: u64,
    rule: Limit,
    replicas: u32,
    loss: u32,
    /// Requests a second at each replica.
    demand: f64,
}

/// Times of admission under outages of random length, in microseconds; the requests of one replica follow each other.
async fn admitted(run: Run) -> Vec<u64> {
    let shared = Shared::new(run.seed, run.loss);
    let clock = SimClock::new(0);
    let times = Arc::new(Mutex::new(Vec::new()));
    let end = Instant::now() + Duration::from_secs(20);
    let mut drivers = Vec::new();
    for number in 0..run.replicas {
        // A window's grid is the epoch's, so clocks are apart by milliseconds; slices' grids could be anywhere.
        let offset_us = 1_000_000_000_000 + u64::from(number) * 7_777;
        let replica = Replica::start(&shared, offset_us, run.replicas);
        let (times, clock) = (Arc::clone(&times), Arc::clone(&clock));
        drivers.push(tokio::spawn(async move {
            let mut random = SmallRng::seed_from_u64(run.seed * 1000 + u64::from(number));
            while Instant::now() < end {
                let gap = -(1.0 - random.random::<f64>()).ln() / run.demand;
                sleep(Duration::from_secs_f64(gap)).await;
                if replica.admits(&one(take(&run.rule, "x", 1))).await {
                    times.lock().push(clock.now_us());
                }
            }
        }));
    }
    let mut random = SmallRng::seed_from_u64(run.seed);
    while Instant::now() < end {
        sleep(Duration::from_millis(random.random_range(1..3000))).await;
        shared.away.store(true, Ordering::Relaxed);
        sleep(Duration::from_millis(random.random_range(1..3000))).await;
        shared.away.store(false, Ordering::Relaxed);
    }
    for driver in drivers {
        driver.await.expect("no panic");
    }
    std::mem::take(&mut *times.lock())
}

/// A hit is counted up to two trips before its caller hears of it.
const SEEN_LATE_US: u64 = 4 * 50;

async fn worst(run: Run) -> u64 {
    let mut times = admitted(run).await;
    assert!(times.len() > 60, "{} were admitted in 20 s", times.len());
    worst_window(&mut times, run.rule.window_us - SEEN_LATE_US)
}

/// The algorithms that promise never more than L in any window.
const STRICT: [AlgorithmKind; 2] = [AlgorithmKind::SlidingWindow, AlgorithmKind::SlidingLog];

#[tokio::test(start_paused = true)]
async fn a_replica_that_is_alone_never_passes_a_limit() {
    for seed in 0..20 {
        for kind in STRICT {
            for (loss, seconds) in [(0, 1), (20, 1), (0, 5), (7, 2)] {
                let run = Run {
                    seed,
                    rule: limit(kind, 20, seconds),
                    replicas: 1,
                    loss,
                    demand: 60.0,
                };
                assert!(
                    worst(run).await <= 20,
                    "{kind} seed {seed} loss {loss} window {seconds} s"
                );
            }
        }
    }
}

/// More than `burst + rate × T` in some time T, by a bucket that is told of each hit as late as it can have been.
fn is_over_bucket(times: &[u64], burst: u64, hit_us: u64) -> bool {
    let mut full_at = 0;
    times.iter().any(|&time| {
        full_at = time.max(full_at) + hit_us;
        full_at - time > burst * hit_us + SEEN_LATE_US
    })
}

#[tokio::test(start_paused = true)]
async fn a_bucket_is_not_filled_anew_either() {
    for seed in 0..20 {
        for (replicas, loss) in [(1, 0), (1, 10)] {
            let rule = limit(AlgorithmKind::TokenBucket, 20, 1);
            let times = admitted(Run {
                seed,
                rule,
                replicas,
                loss,
                demand: 60.0,
            });
            let times = times.await;
            assert!(times.len() > 300, "{} were admitted in 20 s", times.len());
            assert!(!is_over_bucket(&times, 20, 50_000), "seed {seed} loss {loss}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_admitted_meanwhile_is_charged() {
    for kind in [
        AlgorithmKind::SlidingWindow,
        AlgorithmKind::SlidingLog,
        AlgorithmKind::Concurrency,
    ] {
        let shared = Shared::new(1, 0);
        let replica = Replica::start(&shared, 1_000_000_000_000, 1);
        let rule = limit(kind, 10, 60);
        let ask = async |hits| {
            let mut check = take(&rule, "x", 1);
            check.hits = hits;
            replica.admits(&one(check)).await
        };
        let left = || shared.store.check_now(&one(peek(&rule)))[0].remaining;
        assert!(ask(Hits::Acquire(5)).await, "{kind}");
        shared.away.store(true, Ordering::Relaxed);
        // One of the five is given back; then four are taken, and no third more fits.
        assert!(ask(Hits::Refund(1)).await, "{kind}");
        assert!(ask(Hits::Acquire(4)).await, "{kind}");
        assert!(!ask(Hits::Acquire(3)).await, "{kind}: eight are in use");
        assert_eq!(left(), 5, "{kind}");
        shared.away.store(false, Ordering::Relaxed);
        let start = Instant::now();
        while !replica.is_back() {
            assert!(
                start.elapsed() < Duration::from_secs(1),
                "{kind}: not back within a second"
            );
            sleep(Duration::from_millis(10)).await;
        }
        assert_eq!(left(), 2, "{kind}");
        assert!(!ask(Hits::Acquire(3)).await, "{kind}");
        assert!(ask(Hits::Acquire(2)).await, "{kind}");
        assert_eq!(left(), 0, "{kind}");
    }
}

/// Two debts, one of which cannot be told because of `error`: what is counted of the other, and whether the circuit closes.
async fn told_beside_a_spoilt_one(error: StoreError) -> (u64, bool) {
    let shared = Shared::new(1, 0);
    let replica = Replica::start(&shared, 1_000_000_000_000, 1);
    let rule = limit(AlgorithmKind::SlidingWindow, 100, 3600);
    shared.away.store(true, Ordering::Relaxed);
    assert!(replica.admits(&one(take(&rule, "x", 7))).await);
    assert!(replica.admits(&one(take(&rule, SPOILT, 5))).await);
    *shared.spoilt.lock() = Some(error);
    shared.away.store(false, Ordering::Relaxed);
    // Many probes, and so many times that all is told.
    sleep(Duration::from_secs(2)).await;
    let counted = 100 - shared.store.check_now(&one(peek(&rule)))[0].remaining;
    (counted, replica.is_back())
}

#[tokio::test(start_paused = true)]
async fn a_debt_that_cannot_be_told_is_nobody_elses_business() {
    // A node of a cluster that is away: the others' debts are told once, and once only.
    let away = StoreError::Unavailable("a node is away".into());
    assert_eq!(told_beside_a_spoilt_one(away).await, (7, false));
    // A key that is somebody else's never can be told.
    let foreign = StoreError::Refused {
        kind: Refusal::WrongType,
        text: "WRONGTYPE".into(),
    };
    assert_eq!(told_beside_a_spoilt_one(foreign).await, (7, true));
}

/// What several pass it by is what one has not heard of the others.
#[tokio::test(start_paused = true)]
async fn several_replicas_pass_it_by_little() {
    let mut over = Vec::new();
    for seed in 0..20 {
        for (loss, seconds) in [(0, 1), (20, 1), (0, 5)] {
            let run = Run {
                seed,
                rule: limit(AlgorithmKind::SlidingWindow, 60, seconds),
                replicas: 3,
                loss,
                demand: 60.0,
            };
            over.push(worst(run).await.saturating_sub(60));
        }
    }
    // Fresh counters would have admitted 60 more at each edge.
    assert!(over.iter().all(|over| *over <= 20), "{over:?}");
    assert!(over.iter().sum::<u64>() <= over.len() as u64 * 6, "{over:?}");
}
