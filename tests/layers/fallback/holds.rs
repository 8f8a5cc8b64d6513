//! Holds while the shared store is late or away.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use sluicegate::algorithms::op::Op;
use sluicegate::model::{AlgorithmKind, Check, CounterKey, Hits, HoldId, Limit, Outcome, Transaction};
use sluicegate::store::remote::transport::{Delivery, Transport};
use sluicegate::store::remote::{Local, Options, Remote};
use sluicegate::store::{Outcomes, Store};
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::{End, Shared, memory, peek};
use crate::sim::{SimClock, limit, one, take};

const TIMEOUT: Duration = Duration::from_millis(15);
/// Later than callers wait, and within the grace period.
const LATE_MS: u64 = 100;

/// A shared store at some distance; counts the most checks of a call.
struct Far(End, Arc<AtomicU64>, Arc<AtomicUsize>);

impl Transport for Far {
    fn shard(&self, key: &CounterKey) -> u16 {
        self.0.shard(key)
    }

    async fn send(&self, shard: u16, calls: &[Transaction<Op>]) -> Delivery {
        let checks = calls.iter().map(|call| call.checks.len()).sum();
        self.2.fetch_max(checks, Ordering::Relaxed);
        sleep(Duration::from_millis(self.1.load(Ordering::Relaxed))).await;
        self.0.send(shard, calls).await
    }
}

struct Scene {
    shared: Arc<Shared>,
    delay_ms: Arc<AtomicU64>,
    most_checks: Arc<AtomicUsize>,
    store: Arc<Remote<Far>>,
    rule: Limit,
}

impl Scene {
    fn start() -> Self {
        let (shared, delay_ms) = (Shared::new(1, 0), Arc::<AtomicU64>::default());
        let clock = SimClock::new(1_000_000_000_000);
        let local = Local {
            memory: Arc::new(memory(clock.clone())),
            replicas: 1,
        };
        let options = Options {
            circuit: true,
            ..Options::plain(TIMEOUT)
        };
        let most_checks = Arc::<AtomicUsize>::default();
        let far = Far(
            End(Arc::clone(&shared)),
            Arc::clone(&delay_ms),
            Arc::clone(&most_checks),
        );
        let store = Remote::new([far], |_| 0, &options, Some(local), clock);
        let probe = one(take(&limit(AlgorithmKind::FixedWindow, 1_000_000, 1), "probe", 1));
        let mut tasks = JoinSet::new();
        store.spawn(&mut tasks, &probe);
        tasks.detach_all();
        let rule = Limit {
            hold_us: 600_000_000,
            ..limit(AlgorithmKind::SlidingWindow, 1000, 3600)
        };
        Self {
            shared,
            delay_ms,
            most_checks,
            store,
            rule,
        }
    }

    /// As the engine asks: the store, or else the fallback counters.
    async fn ask(&self, hits: Hits) -> Outcome {
        self.ask_all(&[hits]).await[0]
    }

    /// Several in one request.
    async fn ask_all(&self, hits: &[Hits]) -> Outcomes {
        let check = |hits: &Hits| Check {
            hits: *hits,
            ..take(&self.rule, "x", 1)
        };
        let request = Transaction {
            checks: hits.iter().map(check).collect(),
            ..Transaction::default()
        };
        match self.store.check(&request).await {
            Ok(outcomes) => outcomes,
            Err(_) => self.store.fallback().expect("fallback counters").decide(&request),
        }
    }

    /// What the shared store says is neither used nor held.
    fn left(&self) -> u64 {
        self.shared.store.check_now(&one(peek(&self.rule)))[0].remaining
    }
}

fn id(number: u64) -> HoldId {
    HoldId::new(1_000_000_000_000 + number, [7; 9])
}

/// A hold that the store makes too late, and that the failure mode has granted meanwhile, is one hold.
#[tokio::test(start_paused = true)]
async fn a_hold_that_is_answered_too_late_stays() {
    let scene = Scene::start();
    scene.delay_ms.store(LATE_MS, Ordering::Relaxed);
    assert!(scene.ask(Hits::Hold { hits: 500, id: id(1) }).await.allowed);
    sleep(Duration::from_millis(LATE_MS * 3)).await;
    scene.delay_ms.store(0, Ordering::Relaxed);
    sleep(Duration::from_secs(2)).await;
    assert_eq!(scene.left(), 500, "it is held in the shared store");
    let settled = scene.ask(Hits::Settle { hits: 300, id: id(1) }).await;
    assert_eq!((settled.holds.own, scene.left()), (500, 700));
}

/// A settlement that the store makes too late, and the failure mode as well, is charged once; also of a hold that only the store
/// knows, or nobody.
#[tokio::test(start_paused = true)]
async fn a_settlement_that_is_answered_too_late_is_charged_once() {
    for (hold, own) in [(id(1), 500), (id(2), 0)] {
        let scene = Scene::start();
        assert!(scene.ask(Hits::Hold { hits: 500, id: id(1) }).await.allowed);
        scene.delay_ms.store(LATE_MS, Ordering::Relaxed);
        scene.ask(Hits::Settle { hits: 300, id: hold }).await;
        sleep(Duration::from_millis(LATE_MS * 3)).await;
        scene.delay_ms.store(0, Ordering::Relaxed);
        sleep(Duration::from_secs(2)).await;
        assert_eq!(scene.left(), 1000 - 300 - (500 - own), "{own} were held under this id");
    }
}

/// The same of one that the failure mode has not granted: nobody could settle it.
#[tokio::test(start_paused = true)]
async fn a_hold_that_nobody_has_is_ended() {
    let scene = Scene::start();
    assert!(scene.ask(Hits::Hold { hits: 600, id: id(1) }).await.allowed);
    scene.ask(Hits::Settle { hits: 0, id: id(1) }).await;
    scene.delay_ms.store(LATE_MS, Ordering::Relaxed);
    let request = one(Check {
        hits: Hits::Hold { hits: 500, id: id(2) },
        ..take(&scene.rule, "x", 1)
    });
    assert!(scene.store.check(&request).await.is_err());
    sleep(Duration::from_millis(LATE_MS * 3)).await;
    scene.delay_ms.store(0, Ordering::Relaxed);
    sleep(Duration::from_secs(2)).await;
    assert_eq!(scene.left(), 1000);
}

/// A hold that the failure mode grants while the store is away is held there when it is back.
#[tokio::test(start_paused = true)]
async fn a_hold_meanwhile_is_held() {
    let scene = Scene::start();
    scene.shared.away.store(true, Ordering::Relaxed);
    for number in 1..=4 {
        let is_held = scene
            .ask(Hits::Hold {
                hits: 300,
                id: id(number),
            })
            .await
            .allowed;
        assert_eq!(is_held, number <= 3);
    }
    // One that is settled meanwhile is charged, and nothing is held of it.
    scene.ask(Hits::Settle { hits: 250, id: id(3) }).await;
    scene.shared.away.store(false, Ordering::Relaxed);
    sleep(Duration::from_secs(2)).await;
    assert_eq!(scene.left(), 1000 - 300 - 300 - 250);
    assert_eq!(scene.ask(Hits::Settle { hits: 100, id: id(1) }).await.holds.own, 300);
    assert_eq!(scene.left(), 1000 - 100 - 300 - 250);
}

/// What is settled while the store is away ends its hold there, too, and is charged once.
#[tokio::test(start_paused = true)]
async fn a_settlement_meanwhile_ends_the_hold() {
    for (hits, left) in [(350, 650), (0, 1000), (450, 550)] {
        let scene = Scene::start();
        assert!(scene.ask(Hits::Hold { hits: 400, id: id(1) }).await.allowed);
        assert_eq!(scene.left(), 600);
        scene.shared.away.store(true, Ordering::Relaxed);
        assert_eq!(scene.ask(Hits::Settle { hits, id: id(1) }).await.holds.own, 400);
        // Again, which does nothing.
        assert!(scene.ask(Hits::Settle { hits, id: id(1) }).await.holds.repeated);
        scene.shared.away.store(false, Ordering::Relaxed);
        sleep(Duration::from_secs(2)).await;
        assert_eq!(scene.left(), left, "{hits} hits");
    }
}

/// Of a hold that is settled once the store keeps no record (a lease), so what is answered too late is given back.
#[tokio::test(start_paused = true)]
async fn a_settlement_without_a_record_that_is_answered_too_late_is_charged_once() {
    let mut scene = Scene::start();
    scene.rule.settles_once = true;
    assert!(scene.ask(Hits::Hold { hits: 500, id: id(1) }).await.allowed);
    scene.delay_ms.store(LATE_MS, Ordering::Relaxed);
    scene.ask(Hits::Settle { hits: 300, id: id(1) }).await;
    sleep(Duration::from_millis(LATE_MS * 3)).await;
    scene.delay_ms.store(0, Ordering::Relaxed);
    sleep(Duration::from_secs(2)).await;
    assert_eq!(scene.left(), 700);
}

/// Two checks of one request have one id: both are held.
#[tokio::test(start_paused = true)]
async fn a_request_that_holds_a_counter_twice_is_held_twice() {
    let scene = Scene::start();
    scene.shared.away.store(true, Ordering::Relaxed);
    let hold = |hits| Hits::Hold { hits, id: id(1) };
    let held = scene.ask_all(&[hold(300), hold(200)]).await;
    assert!(held.iter().all(|outcome| outcome.allowed));
    scene.shared.away.store(false, Ordering::Relaxed);
    sleep(Duration::from_secs(2)).await;
    assert_eq!(scene.left(), 500);
    assert_eq!(scene.ask(Hits::Settle { hits: 10, id: id(1) }).await.holds.own, 500);
}

/// What a counter is owed after an outage goes in calls of the usual size, and all of it before anything else is decided there.
#[tokio::test(start_paused = true)]
async fn many_holds_of_an_outage_go_in_many_calls() {
    const HOLDS: u64 = 3000;
    let mut scene = Scene::start();
    scene.rule = Limit {
        hold_us: scene.rule.hold_us,
        ..limit(AlgorithmKind::SlidingWindow, 1_000_000, 3600)
    };
    scene.shared.away.store(true, Ordering::Relaxed);
    for number in 0..HOLDS {
        let hold = Hits::Hold {
            hits: 10,
            id: id(number),
        };
        assert!(scene.ask(hold).await.allowed);
        if number % 2 == 0 {
            scene
                .ask(Hits::Settle {
                    hits: 4,
                    id: id(number),
                })
                .await;
        }
    }
    scene.delay_ms.store(1, Ordering::Relaxed);
    scene.shared.away.store(false, Ordering::Relaxed);
    sleep(Duration::from_secs(2)).await;
    let most = scene.most_checks.load(Ordering::Relaxed);
    assert!(most <= 128, "{most} checks in a call");
    assert_eq!(scene.left(), 1_000_000 - HOLDS / 2 * (10 + 4));
}

/// Costs of windows that are over are not charged to the next.
#[tokio::test(start_paused = true)]
async fn a_cost_is_charged_to_its_own_window() {
    let mut scene = Scene::start();
    scene.rule = Limit {
        hold_us: 10_000_000,
        ..limit(AlgorithmKind::SlidingWindow, 1000, 10)
    };
    for number in 0..10 {
        assert!(
            scene
                .ask(Hits::Hold {
                    hits: 50,
                    id: id(number)
                })
                .await
                .allowed
        );
    }
    scene.shared.away.store(true, Ordering::Relaxed);
    for number in 0..10 {
        scene
            .ask(Hits::Settle {
                hits: 50,
                id: id(number),
            })
            .await;
        sleep(Duration::from_secs(2)).await;
    }
    scene.shared.away.store(false, Ordering::Relaxed);
    sleep(Duration::from_millis(700)).await;
    let left = scene.left();
    assert!((700..=750).contains(&left), "{left}: the last five or six count");
}
