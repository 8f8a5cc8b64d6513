//! What holds are in Redis: keys, how long they live, and what they cost.

use std::sync::Arc;

use sluicegate::algorithms::op::Op;
use sluicegate::model::{AlgorithmKind, CounterKey, Enforcement, Hits, HoldId, Limit, Outcome};
use sluicegate::store::Store;
use sluicegate::store::remote::Remote;
use tokio::runtime::Runtime;

use super::{held, id};
use crate::subject::{all, check, connected, fresh_key, redis_at, single};
use crate::support::redis::Redis;

const MINUTE_US: u64 = 60_000_000;
/// Records that have room beside their counter.
const RECORDS: u64 = 12;

/// A Redis of a test's own, which decides by its own clock.
struct Scene {
    server: Arc<Redis>,
    runtime: Runtime,
    store: Arc<Remote<sluicegate::store::redis::RedisTransport>>,
}

impl Scene {
    fn start() -> Self {
        let server = Arc::new(Redis::start());
        let runtime = Runtime::new().expect("a runtime");
        let store = runtime.block_on(connected(&server.url(), None));
        Self { server, runtime, store }
    }

    fn ask(&self, key: &CounterKey, limit: Limit, hits: Hits) -> Outcome {
        let answer = self.runtime.block_on(self.store.check(&single(key, limit, hits)));
        answer.expect("an answer")[0]
    }

    fn hold(&self, key: &CounterKey, limit: Limit, hits: u64, number: u64) -> Outcome {
        self.ask(key, limit, Hits::Hold { hits, id: id(number) })
    }

    fn settle(&self, key: &CounterKey, limit: Limit, hits: u64, number: u64) -> Outcome {
        self.ask(key, limit, Hits::Settle { hits, id: id(number) })
    }

    fn ttl_ms(&self, key: &str) -> i64 {
        self.server.cli(&["pttl", key]).parse().expect("milliseconds")
    }
}

/// Every key of a hold expires, none before it has lost its meaning; somebody else's value is refused and left alone.
#[test]
fn keys_of_holds_expire() {
    let scene = Scene::start();
    for algorithm in [
        AlgorithmKind::SlidingWindow,
        AlgorithmKind::FixedWindow,
        AlgorithmKind::SlidingLog,
    ] {
        let (key, limit) = (fresh_key(), held(algorithm, 100, 3600, MINUTE_US));
        let is_log = algorithm == AlgorithmKind::SlidingLog;
        let holds = if is_log {
            format!("{key}:holds")
        } else {
            key.to_string()
        };
        let record = |number| format!("{key}:{}", id(number));
        for number in 0..=RECORDS {
            assert!(scene.hold(&key, limit, 5, number).allowed);
        }
        let ttl = scene.ttl_ms(&holds);
        assert!((120_000..145_000).contains(&ttl), "{algorithm}: {ttl}");
        assert_eq!(
            scene.ttl_ms(&record(0)),
            -2,
            "{algorithm}: it stands beside the counter"
        );
        let ttl = scene.ttl_ms(&record(RECORDS));
        assert!((55_000..65_000).contains(&ttl), "{algorithm}: {ttl}");
        for number in 0..=RECORDS {
            assert_eq!(scene.settle(&key, limit, 3, number).holds.own, 5, "{algorithm}");
        }
        let ttl = scene.ttl_ms(&record(RECORDS));
        assert!((50_000..65_000).contains(&ttl), "{algorithm}: it is remembered, {ttl}");
        // A fixed window ends with the hour.
        let ends = scene.ask(&key, limit, Hits::Peek).reset_after_us / 1000;
        assert!(i64::try_from(ends).is_ok_and(|ends| scene.ttl_ms(key.as_str()) > ends - 5000));
        // The record first: without its counter nobody looks for it.
        for foreign in [record(RECORDS), holds] {
            scene.server.cli(&["set", &foreign, "hello"]);
            let asked = single(
                &key,
                limit,
                Hits::Settle {
                    hits: 3,
                    id: id(RECORDS),
                },
            );
            let error = scene
                .runtime
                .block_on(scene.store.check(&asked))
                .expect_err("a refusal");
            assert_eq!(error.kind(), "wrongtype", "{algorithm}: {error}");
            assert_eq!(scene.server.cli(&["get", &foreign]), "hello");
            scene.server.cli(&["del", &foreign]);
        }
    }
}

/// A counter that was written by a rule without holds, or by a build that kept holds elsewhere, goes on.
#[test]
fn a_counter_without_holds_in_its_value_goes_on() {
    let subject = redis_at(Arc::new(Redis::start()));
    let now_us = super::NOW_US;
    let kinds = AlgorithmKind::ALL.into_iter().filter(|kind| kind.can_hold());
    for algorithm in kinds {
        let (key, limit) = (fresh_key(), held(algorithm, 100, 36_000, MINUTE_US));
        let plain = Limit { hold_us: 0, ..limit };
        assert_eq!(subject.one(now_us, &key, plain, Hits::Acquire(40)).remaining, 60);
        let holds = subject.one(now_us, &key, limit, Hits::Hold { hits: 50, id: id(1) });
        assert_eq!((holds.allowed, holds.remaining), (true, 10), "{algorithm}");
        assert_eq!(
            subject
                .one(now_us, &key, limit, Hits::Settle { hits: 10, id: id(1) })
                .remaining,
            50
        );
        // As if another call had come first.
        let both = [Op::Hold { hits: 50, id: id(2) }, Op::Settle { hits: 20, id: id(2) }];
        let calls = both.map(|op| all([check(&key, limit, op, Enforcement::Enforce)]));
        assert_eq!(
            subject.decide(now_us, &calls)[1][0].outcome.remaining,
            30,
            "{algorithm}"
        );
    }
}

/// A request with a hold costs two calls, each of as many commands as a plain decision's; on a counter with more holds within
/// a ttl than have room beside it, one command more to hold and two to settle.
#[test]
fn a_hold_and_its_settlement_cost_two_plain_decisions() {
    let scene = Scene::start();
    let kinds = [
        AlgorithmKind::SlidingWindow,
        AlgorithmKind::FixedWindow,
        AlgorithmKind::TokenBucket,
    ];
    for algorithm in kinds {
        let limit = held(algorithm, 4_000_000, 3600, MINUTE_US);
        let plain = Limit { hold_us: 0, ..limit };
        // Calls of scripts, and of commands within them.
        let counts = || {
            let stats = scene.server.cli(&["info", "commandstats"]);
            let calls = |line: &str| line.split("calls=").nth(1)?.split(',').next()?.parse::<u64>().ok();
            let of = |names: &[&str]| {
                let is_one = |line: &&str| names.iter().any(|name| line.starts_with(&format!("cmdstat_{name}:")));
                stats.lines().filter(is_one).filter_map(calls).sum::<u64>()
            };
            (of(&["evalsha"]), of(&["time", "get", "set", "setrange", "del"]))
        };
        let run = |keys: usize, step: &dyn Fn(&CounterKey, u64)| {
            let keys: Vec<_> = (0..keys).map(|_| fresh_key()).collect();
            let round = |number| keys.iter().for_each(|key| step(key, number));
            round(0);
            let before = counts();
            (1..RECORDS).for_each(round);
            let after = counts();
            (after.0 - before.0, after.1 - before.1)
        };
        assert_eq!(
            run(10, &|key, _| assert!(scene.ask(key, plain, Hits::Acquire(1)).allowed)),
            (110, 330)
        );
        let both = |key: &CounterKey, number| {
            assert!(scene.hold(key, limit, 50, number).allowed);
            assert_eq!(scene.settle(key, limit, 45, number).holds.own, 50);
        };
        assert_eq!(run(10, &both), (220, 660), "{algorithm}");
        let busy = |key: &CounterKey, number: u64| (0..100).for_each(|part| both(key, number * 100 + part));
        let (calls, commands) = run(1, &busy);
        assert_eq!(calls, 2200, "{algorithm}");
        assert!(commands <= 10 * 1100, "{algorithm}: {commands} commands");
    }
}

/// What open holds cost in Redis: the record of one beside its counter, and of one that has a key of its own.
#[test]
fn memory_of_a_hold() {
    let scene = Scene::start();
    let limit = held(AlgorithmKind::SlidingWindow, 4_000_000_000, 3600, MINUTE_US);
    let key = fresh_key();
    let bytes = |key: &str| {
        scene
            .server
            .cli(&["memory", "usage", key])
            .parse::<u64>()
            .expect("bytes")
    };
    for number in 0..=RECORDS {
        scene.hold(&key, limit, 500, number);
        if number == 0 {
            assert!(bytes(key.as_str()) <= 160, "{}", bytes(key.as_str()));
        }
    }
    assert!(bytes(key.as_str()) <= 600, "{}", bytes(key.as_str()));
    let record = format!("{key}:{}", id(RECORDS));
    assert!(bytes(&record) <= 160, "{}", bytes(&record));
}

/// Whatever ends holds, no key stays that does not expire.
#[test]
fn no_key_of_a_hold_stays() {
    let server = Arc::new(Redis::start());
    let subject = redis_at(Arc::clone(&server));
    let named = |hits, number| Op::Hold { hits, id: id(number) };
    let settle = |hits, number| Op::Settle { hits, id: id(number) };
    let oldest = |hits| Op::SettleOldest { hits, mean: 5 };
    let unnamed = Op::Release(HoldId::new(0, [1; 9]));
    let force = |hits, number| Op::ForceHold { hits, id: id(number) };
    let lives: [&[Op]; 11] = [
        &[named(5, 1), settle(3, 1), Op::Reset],
        &[named(5, 1), Op::Reset, settle(0, 1)],
        &[named(5, 1), Op::Release(id(1))],
        &[settle(0, 1), settle(3, 1), Op::Refund(3)],
        &[settle(0, 1)],
        &[force(5, 1)],
        &[settle(0, 1), force(5, 1)],
        &[oldest(0)],
        &[Op::HoldMean(5), oldest(0)],
        &[Op::HoldMean(5), oldest(3), Op::Reset],
        &[Op::HoldMean(5), unnamed],
    ];
    let kinds = AlgorithmKind::ALL.into_iter().filter(|kind| kind.can_hold());
    for (algorithm, life) in kinds.flat_map(|kind| lives.map(|life| (kind, life))) {
        for beside in [false, true] {
            let (key, limit) = (fresh_key(), held(algorithm, 100, 36_000, MINUTE_US));
            for op in life {
                let one = |key: &CounterKey, op| all([check(key, limit, op, Enforcement::Enforce)]);
                let mut calls = vec![one(&key, *op)];
                if beside {
                    calls.push(one(&fresh_key(), Op::Peek));
                }
                subject.decide(super::NOW_US, &calls);
            }
        }
    }
    for key in server.cli(&["keys", "*"]).lines() {
        let ttl: i64 = server.cli(&["pttl", key]).parse().expect("milliseconds");
        assert!(ttl > 0, "{key}: {ttl}");
    }
}

/// One that was held and settled within one call, at no cost, keeps nothing but a record of that, until the ttl.
#[test]
fn a_key_that_keeps_only_a_record_expires() {
    let server = Arc::new(Redis::start());
    let subject = redis_at(Arc::clone(&server));
    for algorithm in [
        AlgorithmKind::SlidingWindow,
        AlgorithmKind::FixedWindow,
        AlgorithmKind::SlidingLog,
    ] {
        let (key, limit) = (fresh_key(), held(algorithm, 1000, 3600, MINUTE_US));
        let one = |op| all([check(&key, limit, op, Enforcement::Enforce)]);
        let made = Op::ForceHold { hits: 5, id: id(1) };
        let settled = Op::Settle { hits: 0, id: id(1) };
        subject.decide(super::NOW_US, &[one(made), one(settled)]);
        for name in server.cli(&["keys", &format!("{key}*")]).lines() {
            let left_ms = server.cli(&["pttl", name]).parse::<i64>().expect("a number");
            assert!(left_ms > 0, "{algorithm}: {name} stays for ever");
        }
    }
}
