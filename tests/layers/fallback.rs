//! The fallback counters: outages of the shared store under load, and what passes at their edges.

mod holds;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use sluicegate::algorithms::op::Op;
use sluicegate::model::{AlgorithmKind, Check, Clock, CounterKey, Hits, Limit, Transaction};
use sluicegate::store::memory::MemoryStore;
use sluicegate::store::remote::transport::{Delivery, Transport};
use sluicegate::store::remote::{CircuitState, Local, Options, Remote};
use sluicegate::store::{Cause, Correction, Refusal, Store, StoreError};
use tokio::task::JoinSet;
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

    fn spoils(&self, calls: &[Transaction<Op>]) -> Option<StoreError> {
        let mut checks = calls.iter().flat_map(|call| &call.checks);
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

struct End(Arc<Shared>);

impl Transport for End {
    /// The counter that fails when others do not is on a node of its own.
    fn shard(&self, key: &CounterKey) -> u16 {
        u16::from(key.as_str().contains(SPOILT))
    }

    async fn send(&self, _shard: u16, calls: &[Transaction<Op>]) -> Delivery {
        if let Err(error) = self.0.travel().await {
            return fate(error);
        }
        match self.0.spoils(calls) {
            Some(error @ StoreError::Refused { .. }) => return Delivery::Answered(Err(error)),
            Some(error) => return Delivery::NotSent(error),
            None => {}
        }
        let answers = calls.iter().map(|call| self.0.store.check_ops(call)).collect();
        match self.0.travel().await {
            Ok(()) => Delivery::Answered(Ok(answers)),
            // It was carried out.
            Err(error) => Delivery::Indeterminate(error),
        }
    }
}

/// That of a call that did not arrive: what was lost may have arrived for all that its sender knows.
fn fate(error: StoreError) -> Delivery {
    match error {
        StoreError::Unavailable(_) => Delivery::NotSent(error),
        _ => Delivery::Indeterminate(error),
    }
}

fn memory(clock: Arc<dyn Clock>) -> MemoryStore {
    MemoryStore::new(std::num::NonZeroUsize::new(10_000).expect("not zero"), clock)
}

/// One process.
#[derive(Clone)]
struct Replica {
    store: Arc<Remote<End>>,
}

impl Replica {
    fn start(shared: &Arc<Shared>, offset_us: u64, replicas: u32) -> Self {
        let clock = SimClock::new(offset_us);
        let local = Local {
            memory: Arc::new(memory(clock.clone())),
            replicas,
        };
        let options = Options {
            circuit: true,
            ..Options::plain(PATIENCE)
        };
        let store = Remote::new([End(Arc::clone(shared))], |_| 0, &options, Some(local), clock);
        let probe = one(take(&limit(AlgorithmKind::FixedWindow, 1_000_000, 1), "probe", 1));
        let mut tasks = JoinSet::new();
        store.spawn(&mut tasks, &probe);
        tasks.detach_all();
        Self { store }
    }

    async fn admits(&self, transaction: &Transaction) -> bool {
        let outcomes = match self.store.check(transaction).await {
            Ok(outcomes) => outcomes,
            Err(_) => self.store.fallback().expect("fallback counters").decide(transaction),
        };
        transaction.passes(outcomes.iter().map(|outcome| outcome.allowed))
    }

    fn is_back(&self) -> bool {
        self.store
            .circuit(0)
            .is_some_and(|circuit| matches!(*circuit.borrow(), CircuitState::Closed { .. }))
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

/// What a lease has left is given back once in the fallback counters, too: what they admit meanwhile is charged in full.
#[tokio::test(start_paused = true)]
async fn a_lease_that_is_given_back_takes_no_charge_along() {
    let shared = Shared::new(1, 0);
    let store = Replica::start(&shared, 1_000_000_000_000, 1).store;
    let rule = limit(AlgorithmKind::SlidingWindow, 100, 3600);
    let lease = one(take(&rule, "x", 6));
    let outcome = store.check(&lease).await.expect("answered")[0];
    store.correct(Correction::give_back(&lease.checks[0], &outcome, 6, Cause::Lease));
    let flush = {
        let store = Arc::clone(&store);
        tokio::spawn(async move { store.flush(PATIENCE).await })
    };
    for _ in 0..10 {
        tokio::task::yield_now().await;
    }
    // It is in flight.
    let fallback = store.fallback().expect("fallback counters");
    assert!(fallback.decide(&one(take(&rule, "x", 1)))[0].allowed);
    flush.await.expect("no panic");
    store.flush(PATIENCE).await;
    let left = store.check(&one(peek(&rule))).await.expect("answered")[0].remaining;
    assert_eq!(left, 99);
}

/// A release that its shard has taken, in a request of which another shard's part fails, is a release once.
#[tokio::test(start_paused = true)]
async fn a_release_beside_a_part_that_fails_is_mirrored_once() {
    let shared = Shared::new(1, 0);
    let store = Replica::start(&shared, 1_000_000_000_000, 1).store;
    let rule = limit(AlgorithmKind::Concurrency, 4, 3600);
    let taken = store.check(&one(take(&rule, "x", 3))).await.expect("answered");
    assert!(taken[0].allowed);
    *shared.spoilt.lock() = Some(StoreError::Timeout(Duration::ZERO));
    let release = Check {
        hits: Hits::Refund(1),
        ..take(&rule, "x", 1)
    };
    let request = Transaction {
        checks: [release, take(&rule, SPOILT, 1)].into_iter().collect(),
        ..Transaction::default()
    };
    assert!(store.check(&request).await.is_err());
    let fallback = store.fallback().expect("fallback counters");
    let _ = fallback.decide(&request);
    assert!(!fallback.decide(&one(take(&rule, "x", 3)))[0].allowed, "two are held");
    assert!(fallback.decide(&one(take(&rule, "x", 2)))[0].allowed);
}
