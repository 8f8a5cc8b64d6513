//! `REDIS_PERSECOND`: one transaction over two real servers, all or nothing.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use sluicegate::algorithms::limit::{LimitSpec, build};
use sluicegate::model::time::SECOND_US;
use sluicegate::model::{
    AlgorithmKind, Check, Clock, Enforcement, Hits, Limit, ManualClock, MonotonicClock, Transaction, Unit, Window,
};
use sluicegate::store::redis::RedisTransport;
use sluicegate::store::remote::{Options, Remote};
use sluicegate::store::{MemoryStore, Outcomes, Store};
use tokio::task::JoinSet;

use super::{PATIENCE, RedisStore, flushed, settings};
use crate::limits::{all, gated, take};
use crate::support::redis::Redis;

const NOON_US: u64 = 1_700_000_000 * SECOND_US;

/// Two servers, and a store over them by this clock.
struct Pair {
    main: Redis,
    seconds: Redis,
    store: RedisStore,
}

impl Pair {
    async fn start(clock: Option<Arc<dyn Clock>>) -> Self {
        let [main, seconds] = [Redis::start(), Redis::start()];
        let connected = async |redis: &Redis| {
            let clock = clock.clone();
            let transport = RedisTransport::with_clock(&settings(&redis.url()), PATIENCE, Arc::new(|_| {}), clock);
            let transport = transport.expect("no certificates");
            let start = Instant::now();
            while transport.connections().0 < transport.connections().1 {
                assert!(start.elapsed() < PATIENCE, "no connection");
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            transport
        };
        let transports = [connected(&main).await, connected(&seconds).await];
        let server_of = |limit: &Limit| usize::from(limit.window_us == SECOND_US);
        let clock = Arc::new(MonotonicClock::new());
        let store = Remote::new(transports, server_of, &Options::plain(PATIENCE), None, clock);
        flushed(&store);
        Self { main, seconds, store }
    }

    async fn check(&self, checks: impl IntoIterator<Item = Check>) -> (bool, Outcomes) {
        let transaction = all(checks);
        let outcomes = self.store.check(&transaction).await.expect("an answer");
        (passes(&transaction, &outcomes), outcomes)
    }

    /// What is left of a limit.
    async fn left(&self, check: &Check) -> u64 {
        self.check([peek(check)]).await.1[0].remaining
    }
}

fn passes(transaction: &Transaction, outcomes: &Outcomes) -> bool {
    transaction.passes(outcomes.iter().map(|outcome| outcome.allowed))
}

fn limit(algorithm: AlgorithmKind, hits: u64, unit: Unit) -> Limit {
    build(&LimitSpec::new(algorithm, hits, Window::of(unit))).expect("a good limit")
}

fn peek(check: &Check) -> Check {
    Check {
        hits: Hits::Peek,
        ..check.clone()
    }
}

/// The server of either limit denies: what was taken at the other one is given back, at once and in full.
#[tokio::test(flavor = "multi_thread")]
async fn what_one_server_took_is_given_back_when_the_other_denies() {
    let clock = Arc::new(ManualClock::new(NOON_US));
    let pair = Pair::start(Some(clock)).await;
    for one in AlgorithmKind::ALL {
        for other in AlgorithmKind::ALL {
            for (taken, denying) in [(Unit::Hour, Unit::Second), (Unit::Second, Unit::Hour)] {
                let name = format!("{one} {other} {taken:?}");
                // A leaky bucket has room for what its longest wait lets through: its own word counts.
                let taken = take(&format!("taken {name}"), limit(one, 5, taken), 1);
                let denying = take(&format!("denying {name}"), limit(other, 5, denying), 1);
                // Something is used before, so that too much given back would show.
                assert!(pair.check([taken.clone()]).await.0, "{name}");
                while pair.check([denying.clone()]).await.0 {}
                let before = [pair.left(&taken).await, pair.left(&denying).await];
                for order in [[&taken, &denying], [&denying, &taken]] {
                    let (passed, _) = pair.check(order.map(Clone::clone)).await;
                    assert!(!passed, "{name}");
                    assert_eq!([pair.left(&taken).await, pair.left(&denying).await], before, "{name}");
                }
            }
        }
    }
    for redis in [&pair.main, &pair.seconds] {
        assert_eq!(redis.cli(&["DBSIZE"]), "72", "each limit on its own server");
    }
}

/// Whatever is asked, in whatever order and with whatever enforcements: the same is decided, told and counted as by one store.
#[tokio::test(flavor = "multi_thread")]
async fn two_servers_decide_as_one_store() {
    const STEPS: usize = 150;
    let clock = Arc::new(ManualClock::new(NOON_US));
    let pair = Pair::start(Some(clock.clone())).await;
    for (seed, algorithm) in (1..).zip(AlgorithmKind::ALL) {
        let keys = NonZeroUsize::new(1000).expect("not zero");
        let memory = MemoryStore::new(keys, clock.clone());
        let mut random = StdRng::seed_from_u64(seed);
        let units = [Unit::Hour, Unit::Second, Unit::Day, Unit::Second];
        let checks: Vec<Check> = (0..)
            .zip(units)
            .map(|(n, unit)| take(&format!("{algorithm} {n}"), limit(algorithm, 20 + n, unit), 1))
            .collect();
        for step in 0..STEPS {
            let mut asked = Vec::new();
            for check in &checks {
                if random.random_ratio(2, 3) {
                    asked.push(any(check, &mut random));
                }
            }
            if asked.is_empty() {
                continue;
            }
            let transaction = all(asked);
            let found = pair.store.check(&transaction).await.expect("an answer");
            let expected = memory.check_now(&transaction);
            let told = |outcomes: &Outcomes| -> Vec<_> {
                let told = outcomes.iter().map(|outcome| (outcome.allowed, outcome.remaining));
                told.collect()
            };
            let what = format!("{algorithm}, step {step}: {:?}", transaction.checks);
            assert_eq!(passes(&transaction, &found), passes(&transaction, &expected), "{what}");
            if passes(&transaction, &found) {
                assert_eq!(told(&found), told(&expected), "{what}");
            }
            for check in &checks {
                let expected = memory.check_now(&all([peek(check)]))[0].remaining;
                assert_eq!(pair.left(check).await, expected, "{:?} after {what}", check.key);
            }
        }
    }
}

/// The check with other hits and another enforcement.
fn any(check: &Check, random: &mut StdRng) -> Check {
    let enforcement = match random.random_range(0..6) {
        0 => Enforcement::Shadow,
        1 | 2 => Enforcement::Quota(random.random_range(0..3)),
        _ => Enforcement::Enforce,
    };
    let hits = match random.random_range(0..8) {
        0 => Hits::Peek,
        1 => Hits::Refund(random.random_range(1..4)),
        _ => Hits::Acquire(random.random_range(1..7)),
    };
    Check {
        hits,
        ..gated(enforcement, check.clone())
    }
}

/// Many at once: between the two steps more may be counted than is admitted, so one too many may be denied, but never
/// is one admitted too many, and in the end exactly what was admitted is counted on both servers.
#[tokio::test(flavor = "multi_thread")]
async fn many_at_once_over_two_servers_never_pass_and_lose_nothing() {
    for algorithm in AlgorithmKind::ALL {
        let pair = Pair::start(Some(Arc::new(ManualClock::new(NOON_US)))).await;
        let scarce = take("scarce", limit(algorithm, 20, Unit::Second), 1);
        let plenty = take("plenty", limit(algorithm, 1000, Unit::Hour), 1);
        let room = pair.left(&scarce).await;
        let start = pair.left(&plenty).await;
        let mut asking = JoinSet::new();
        for _ in 0..20 {
            let (store, transaction) = (Arc::clone(&pair.store), all([plenty.clone(), scarce.clone()]));
            asking.spawn(async move {
                let mut admitted = 0;
                for _ in 0..10 {
                    let outcomes = store.check(&transaction).await.expect("an answer");
                    admitted += u64::from(passes(&transaction, &outcomes));
                    tokio::time::sleep(Duration::from_micros(rand::random_range(0..500))).await;
                }
                admitted
            });
        }
        let admitted: u64 = asking.join_all().await.into_iter().sum();
        assert!(admitted > 0 && admitted <= room, "{algorithm}: {admitted} of {room}");
        assert_eq!(pair.left(&scarce).await, room - admitted, "{algorithm}");
        assert_eq!(pair.left(&plenty).await, start - admitted, "{algorithm}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_one_server_took_is_given_back_when_the_other_is_gone() {
    let mut pair = Pair::start(None).await;
    let there = take("there", limit(AlgorithmKind::SlidingLog, 5, Unit::Hour), 1);
    let gone = take("gone", limit(AlgorithmKind::SlidingLog, 5, Unit::Second), 1);
    assert!(pair.check([there.clone(), gone.clone()]).await.0);
    pair.seconds.kill();
    for _ in 0..3 {
        let asked = pair.store.check(&all([there.clone(), gone.clone()])).await;
        assert!(asked.is_err(), "{asked:?}");
        assert_eq!(pair.left(&there).await, 4);
    }
}
