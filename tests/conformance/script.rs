//! What is true of the scripts alone: what they write and when, what they cost, and how they meet foreign data.

use std::collections::HashMap;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use sluicegate::model::key::{Owner, Part, counter_key};
use sluicegate::model::{AlgorithmKind, Hits};
use sluicegate::store::Store;
use sluicegate::store::redis::script::ScriptId;
use tokio::runtime::Runtime;

use crate::golden;
use crate::subject::{connected, fresh_key, redis_at, redis_client, single};
use crate::support::redis::Redis;
use crate::traces;

const NOW_US: u64 = 1_763_000_000_000_000;

/// A Redis of the test's own, since it counts what happens there.
fn own() -> Arc<Redis> {
    Arc::new(Redis::start())
}

fn number(server: &Redis, section: &str, field: &str) -> u64 {
    let info = server.cli(&["info", section]);
    let line = info
        .lines()
        .find_map(|line| line.trim().strip_prefix(field)?.strip_prefix(':'));
    line.and_then(|text| text.parse().ok())
        .unwrap_or_else(|| panic!("{field} in {info}"))
}

/// How often each command has run.
fn calls(server: &Redis) -> HashMap<String, u64> {
    let info = server.cli(&["info", "commandstats"]);
    info.lines()
        .filter_map(|line| line.strip_prefix("cmdstat_")?.split_once(":calls="))
        .filter_map(|(name, rest)| Some((name.to_owned(), rest.split(',').next()?.parse().ok()?)))
        .collect()
}

/// Denials and peeks write nothing.
#[test]
fn a_denial_writes_nothing() {
    let server = own();
    let subject = redis_at(server.clone());
    for kind in AlgorithmKind::ALL {
        let (key, limit) = (fresh_key(), traces::limit(kind, 3, 60));
        let quota = subject.one(NOW_US, &key, limit, Hits::Peek).remaining;
        subject.one(NOW_US, &key, limit, Hits::Acquire(quota));
        let before = number(&server, "persistence", "rdb_changes_since_last_save");
        for at_us in [NOW_US, NOW_US + 1] {
            assert!(!subject.one(at_us, &key, limit, Hits::Acquire(1)).allowed);
            assert!(!subject.one(at_us, &key, limit, Hits::Peek).allowed);
        }
        let after = number(&server, "persistence", "rdb_changes_since_last_save");
        assert_eq!(after, before, "{kind}");
    }
}

/// TIME, one read and one write for a decision; a log reads twice, and cleans up once in a while.
#[test]
fn commands_of_a_decision() {
    const DECISIONS: u64 = 20;
    let server = own();
    let runtime = Runtime::new().expect("a runtime");
    let store = runtime.block_on(connected(&server.url(), None));
    for kind in AlgorithmKind::ALL {
        let limit = traces::limit(kind, 1000, 86_400);
        let transaction = single(&fresh_key(), limit, Hits::Acquire(1));
        // The first of a key may find no script, and writes all of its state.
        runtime.block_on(store.check(&transaction)).expect("an answer");
        let before = calls(&server);
        for _ in 0..DECISIONS {
            runtime.block_on(store.check(&transaction)).expect("an answer");
        }
        let commands = |name: &str| {
            let now = calls(&server);
            now.get(name).copied().unwrap_or(0) - before.get(name).copied().unwrap_or(0)
        };
        assert_eq!(commands("evalsha"), DECISIONS, "{kind}");
        assert_eq!(commands("time"), DECISIONS, "{kind}");
        let reads = commands("get") + commands("zrevrange") + commands("zrangebyscore");
        let writes = commands("set") + commands("setrange") + commands("zadd");
        let is_log = kind == AlgorithmKind::SlidingLog;
        assert_eq!(reads, DECISIONS * if is_log { 2 } else { 1 }, "{kind}");
        // A leaky bucket of 1000 a day holds nobody for a day: it denies all but the first.
        let denies = kind == AlgorithmKind::LeakyBucket;
        assert_eq!(writes, if denies { 0 } else { DECISIONS }, "{kind}");
        assert!(commands("zremrangebyscore") + commands("pexpire") <= 2, "{kind}");
    }
}

/// Every key expires, and not before its state has lost its meaning.
#[test]
fn keys_expire() {
    let server = own();
    let runtime = Runtime::new().expect("a runtime");
    let store = runtime.block_on(connected(&server.url(), None));
    for kind in AlgorithmKind::ALL {
        let key = fresh_key();
        let limit = traces::limit(kind, 10, 60);
        let take = runtime.block_on(store.check(&single(&key, limit, Hits::Acquire(1))));
        let reset_ms = take.expect("an answer")[0].reset_after_us / 1000;
        let left_ms: u64 = server.cli(&["pttl", key.as_str()]).parse().expect("an expiry");
        assert!(left_ms <= 65_000, "{kind}: {left_ms}");
        // What has passed since the answer is not known, but it is less than this.
        assert!(left_ms + 5_000 > reset_ms, "{kind}: {left_ms} of {reset_ms}");
        let full = runtime.block_on(store.check(&single(&key, limit, Hits::Refund(10))));
        assert!(full.is_ok());
        assert_eq!(
            server.cli(&["exists", key.as_str()]),
            "0",
            "{kind}: nothing left is no key"
        );
    }
}

/// Somebody else's value under our key is an error that says so, and is left alone.
#[test]
fn foreign_values_are_refused() {
    let server = own();
    let subject = redis_at(server.clone());
    for kind in AlgorithmKind::ALL {
        for foreign in [
            "set KEY hello",
            "set KEY {\"json\":true}",
            "rpush KEY a b",
            "zadd KEY 1 x",
            "hset KEY f v",
        ] {
            let key = fresh_key();
            let words: Vec<_> = foreign
                .split(' ')
                .map(|word| word.replace("KEY", key.as_str()))
                .collect();
            server.cli(&words.iter().map(String::as_str).collect::<Vec<_>>());
            let before = server.cli(&["dump", key.as_str()]);
            subject.clock.set(NOW_US);
            let transaction = single(&key, traces::limit(kind, 3, 60), Hits::Acquire(1));
            let error = subject
                .runtime
                .block_on(subject.store.check(&transaction))
                .expect_err("a refusal");
            assert_eq!(error.kind(), "wrongtype", "{kind}, {foreign}: {error}");
            assert_eq!(server.cli(&["dump", key.as_str()]), before, "{kind}, {foreign}");
        }
    }
}

/// All that docs/redis.md asks for: the commands of the scripts, and fred's own.
const RIGHTS: &str = "+eval +evalsha +time +get +set +setrange +del +pexpire +zadd +zrem +zcard +zrank +zrange \
                      +zrevrange +zrangebyscore +zremrangebyscore +zremrangebyrank +ping +client|id +info";

/// A user who may do no more, and only with our keys: every algorithm works, so the scripts touch nothing else.
#[test]
fn a_user_with_no_more_rights_than_needed() {
    let server = own();
    let mut words = vec!["acl", "setuser", "enforcement", "on", ">s3cret", "~*:{conformance}"];
    words.extend(RIGHTS.split_whitespace());
    assert_eq!(server.cli(&words), "OK");
    let subject = redis_client(&format!("redis://enforcement:s3cret@127.0.0.1:{}", server.port));
    for kind in AlgorithmKind::ALL {
        golden::trace_on(&subject, kind);
    }
    // A log that is long enough to be searched and cleaned up.
    let (key, limit) = (fresh_key(), traces::limit(AlgorithmKind::SlidingLog, 100, 1));
    for step in 0..200 {
        subject.one(NOW_US + step * 10_000, &key, limit, Hits::Acquire(1));
    }
    assert!(!subject.one(NOW_US + 1_995_000, &key, limit, Hits::Acquire(50)).allowed);
    subject.one(NOW_US + 1_995_000, &key, limit, Hits::Refund(50));
    let documented = include_str!("../../docs/redis.md");
    for right in RIGHTS.split_whitespace() {
        assert!(documented.contains(right), "docs/redis.md does not name {right}");
    }
}

/// `redis-cli --eval`, as the head of call.lua says: words in, integers out.
#[test]
fn scripts_run_by_hand() {
    let server = own();
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), ScriptId::of(AlgorithmKind::SlidingWindow).source()).expect("written");
    let eval = |arguments: &str| by_hand(&server, file.path(), arguments);
    let one = "my-key , 1000 1 0 2 1875000 32 0 0 1 1 1 0 0 1 0";
    assert_eq!(eval(one), "1000 1 1 0 61874000 0");
    assert_eq!(eval(one), "1000 1 0 0 61874000 0");
    assert_eq!(eval(one), "1000 0 0 61874000 61874000 0");
    // A refund, then a lease of as many as there are.
    assert_eq!(
        eval("my-key , 1000 1 0 2 1875000 32 0 0 1 1 1 1 0 1 0 1 1 1 2 2 9 0"),
        "1000 1 1 0 61874000 0 1 0 0 61874000 0 1"
    );
}

fn by_hand(server: &Redis, script: &Path, arguments: &str) -> String {
    let output = Command::new("redis-cli")
        .args(["-p", &server.port.to_string(), "--eval"])
        .arg(script)
        .args(arguments.split(' '))
        .output()
        .expect("redis-cli");
    let text = String::from_utf8(output.stdout).expect("text");
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// What a counter's key and value cost in Redis, however large the limit. Redis' tables come on top: about 70 bytes
/// for each key that expires.
#[test]
fn memory_of_a_key() {
    let server = own();
    let subject = redis_at(server.clone());
    for (kind, hits, steps, most) in [
        (AlgorithmKind::TokenBucket, 100, 1, 88),
        (AlgorithmKind::TokenBucket, 4_000_000_000, 1, 88),
        (AlgorithmKind::FixedWindow, 4_000_000_000, 1, 88),
        (AlgorithmKind::SlidingWindow, 100, 1, 104),
        // All slices in use.
        (AlgorithmKind::SlidingWindow, 1000, 33, 248),
        (AlgorithmKind::SlidingWindow, 4_000_000_000, 33, 248),
    ] {
        let limit = traces::limit(kind, hits, 60);
        let user = format!("{hits}x{steps}");
        let key = counter_key("sg:", Owner::Rule, &limit, "d", [Part::Own("user", &user)]);
        for step in 0..steps {
            let now_us = NOW_US + step * limit.window_us.div_ceil(32);
            assert!(subject.one(now_us, &key, limit, Hits::Acquire(hits / 40)).allowed);
        }
        let bytes: u64 = server.cli(&["memory", "usage", key.as_str()]).parse().expect("bytes");
        assert!(bytes <= most, "{key}: {bytes} bytes");
    }
}
