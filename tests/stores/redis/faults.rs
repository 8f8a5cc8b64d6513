//! What goes wrong with a Redis, done to a real one.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use sluicegate::store::redis::{RedisChange, RedisEvent};
use sluicegate::store::{Refusal, Store, StoreError};

use super::{TIMEOUT, all_up, connect, connections, hit, patient, recover};
use crate::limits::{all, sliding, take};
use crate::support::process::free_port;
use crate::support::redis::Redis;

/// Room for the scheduler of a busy machine on top of a bound.
const SLACK: Duration = Duration::from_millis(100);

/// Calls, and how many of them took longer than they may. A busy machine delays a few; a fault of ours delays many.
#[derive(Default)]
struct Punctuality {
    calls: usize,
    late: usize,
}

impl Punctuality {
    fn note(&mut self, start: Instant, bound: Duration) {
        self.calls += 1;
        self.late += usize::from(start.elapsed() > bound + SLACK);
    }

    fn check(&self) {
        assert!(
            self.late * 20 <= self.calls,
            "{} of {} calls were late",
            self.late,
            self.calls
        );
    }
}

/// A server that answers again is used again within a second; here with room for a busy machine.
const RECOVERY: Duration = Duration::from_millis(2500);

fn refusal(error: &StoreError) -> Option<Refusal> {
    match error {
        StoreError::Refused { kind, .. } => Some(*kind),
        _ => None,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_loses_its_scripts_gets_them_again() {
    let redis = Redis::start();
    let store = patient(&redis.url());
    all_up(&store).await;
    for round in 0..3 {
        assert_eq!(redis.cli(&["SCRIPT", "FLUSH"]), "OK");
        let outcome = hit(&store, "k", sliding(10)).await.expect("an answer");
        assert_eq!(outcome.remaining, 9 - round, "each hit counts once");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_absent_at_the_start_is_found_when_it_appears() {
    let port = free_port();
    let start = Instant::now();
    let (store, events) = connect(&format!("redis://127.0.0.1:{port}"));
    assert!(start.elapsed() < SLACK, "connecting must not wait");
    let mut punctuality = Punctuality::default();
    for _ in 0..20 {
        let start = Instant::now();
        let error = hit(&store, "k", sliding(10)).await.expect_err("nobody is there");
        assert_eq!(error.kind(), "unavailable");
        punctuality.note(start, Duration::ZERO);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    punctuality.check();
    assert!(events.lock().iter().any(|event| matches!(
        event.change,
        RedisChange::ConnectFailed {
            failed_attempts: 2..,
            ..
        }
    )));
    let _redis = Redis::start_on(port, &[]);
    let took = recover(&store, &all([take("k", sliding(10), 1)])).await;
    assert!(took < RECOVERY, "{took:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_server_is_noticed_at_once_and_found_again_within_a_second() {
    let mut redis = Redis::start();
    let (store, events) = connect(&redis.url());
    all_up(&store).await;
    for _ in 0..3 {
        recover(&store, &all([take("k", sliding(1000), 1)])).await;
        redis.kill();
        let mut punctuality = Punctuality::default();
        for _ in 0..200 {
            let start = Instant::now();
            hit(&store, "k", sliding(1000)).await.expect_err("it is dead");
            // At once, without waiting for the timeout.
            punctuality.note(start, Duration::ZERO);
        }
        punctuality.check();
        redis.restart();
        let took = recover(&store, &all([take("k", sliding(10), 1)])).await;
        assert!(took < RECOVERY, "{took:?}");
    }
    let events = events.lock();
    let lost = events
        .iter()
        .filter(|event| matches!(event.change, RedisChange::Disconnected(_)));
    assert!(lost.count() >= 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_hangs_costs_no_call_more_than_the_timeout() {
    let redis = Redis::start();
    let (store, _) = connect(&redis.url());
    all_up(&store).await;
    recover(&store, &all([take("k", sliding(1000), 1)])).await;
    redis.process.signal("STOP");
    let hanging = Instant::now();
    let mut kinds = Vec::new();
    let mut punctuality = Punctuality::default();
    while hanging.elapsed() < Duration::from_secs(3) {
        let start = Instant::now();
        let error = hit(&store, "k", sliding(1000)).await.expect_err("it hangs");
        punctuality.note(start, TIMEOUT);
        kinds.push(error.kind());
        if start.elapsed() < Duration::from_millis(5) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
    assert_eq!(kinds.first(), Some(&"timeout"));
    assert!(
        kinds.len() > 60,
        "after a few timeouts calls fail at once: {}",
        kinds.len()
    );
    redis.process.signal("CONT");
    let took = recover(&store, &all([take("k", sliding(1000), 1)])).await;
    assert!(took < RECOVERY, "{took:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_callers_deadline_ends_a_call() {
    let redis = Redis::start();
    let (store, _) = connect(&redis.url());
    all_up(&store).await;
    let mut transaction = all([take("k", sliding(10), 1)]);
    transaction.deadline = Some(Instant::now());
    let error = store.check(&transaction).await.expect_err("it is over");
    assert_eq!(error.kind(), "timeout");
    redis.process.signal("STOP");
    for wanted in [10, 40] {
        let wanted = Duration::from_millis(wanted);
        let start = Instant::now();
        transaction.deadline = Some(start + wanted);
        let error = store.check(&transaction).await.expect_err("it hangs");
        assert!(
            matches!(error, StoreError::Timeout(budget) if budget <= wanted),
            "{error}"
        );
        assert!(start.elapsed() >= wanted);
    }
    // Impatient callers do not speak against the server: it is not given up.
    assert_eq!(connections(&store).0, connections(&store).1);
    redis.process.signal("CONT");
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_are_told_apart() {
    let redis = Redis::start();
    let store = patient(&redis.url());
    all_up(&store).await;
    let limit = sliding(10);
    redis.cli(&["LPUSH", "test:{list}", "x"]);
    redis.cli(&["SET", "test:{text}", "somebody else's"]);
    for foreign in ["list", "text"] {
        let error = hit(&store, foreign, limit).await.expect_err("not ours");
        assert_eq!(refusal(&error), Some(Refusal::WrongType), "{error}");
    }
    assert_eq!(redis.cli(&["GET", "test:{text}"]), "somebody else's");

    redis.cli(&["CONFIG", "SET", "maxmemory", "1"]);
    let error = hit(&store, "k", limit).await.expect_err("no room");
    assert_eq!(refusal(&error), Some(Refusal::OutOfMemory), "{error}");
    redis.cli(&["CONFIG", "SET", "maxmemory", "0"]);

    redis.cli(&["CONFIG", "SET", "min-replicas-to-write", "1"]);
    let error = hit(&store, "k", limit).await.expect_err("no replicas");
    assert_eq!(refusal(&error), Some(Refusal::NoReplicas), "{error}");
    redis.cli(&["CONFIG", "SET", "min-replicas-to-write", "0"]);

    redis.cli(&["ACL", "SETUSER", "default", "-evalsha", "-eval"]);
    let error = hit(&store, "k", limit).await.expect_err("not allowed");
    assert_eq!(refusal(&error), Some(Refusal::NoPermission), "{error}");
    redis.cli(&["ACL", "SETUSER", "default", "+@all"]);

    let outcome = hit(&store, "k", limit).await.expect("all is well");
    assert_eq!(outcome.remaining, 9, "a refusal counts nothing");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_script_that_hogs_the_server_is_busy_then_over() {
    let redis = Redis::start_with(&["--busy-reply-threshold", "100"]);
    let (store, _) = connect(&redis.url());
    all_up(&store).await;
    let port = redis.port;
    let hog = std::thread::spawn(move || crate::support::redis::cli(port, &["EVAL", "while true do end", "0"]));
    let start = Instant::now();
    let mut kinds = BTreeSet::new();
    let mut punctuality = Punctuality::default();
    while start.elapsed() < Duration::from_secs(1) {
        let call = Instant::now();
        if let Err(error) = hit(&store, "k", sliding(100_000)).await {
            kinds.insert(error.kind());
        }
        punctuality.note(call, TIMEOUT);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    punctuality.check();
    assert!(kinds.contains("busy"), "{kinds:?}");
    assert_eq!(redis.cli(&["SCRIPT", "KILL"]), "OK");
    hog.join().expect("redis-cli");
    let took = recover(&store, &all([take("k", sliding(10), 1)])).await;
    assert!(took < RECOVERY, "{took:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_demoted_master_is_left_for_whoever_is_master() {
    let redis = Redis::start();
    let other = Redis::start();
    let (store, events) = connect(&redis.url());
    all_up(&store).await;
    // It becomes a replica under our feet, without closing our connections.
    redis.cli(&["REPLICAOF", "127.0.0.1", &other.port.to_string()]);
    let mut kinds = BTreeSet::new();
    let start = Instant::now();
    while start.elapsed() < Duration::from_millis(500) {
        if let Err(error) = hit(&store, "k", sliding(10)).await {
            kinds.insert(error.kind());
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    assert!(kinds.contains("readonly"), "{kinds:?}");
    let lost = |events: &[RedisEvent]| {
        events
            .iter()
            .filter(
                |event| matches!(&event.change, RedisChange::Disconnected(e) if refusal(e) == Some(Refusal::ReadOnly)),
            )
            .count()
    };
    assert!(lost(&events.lock()) >= 1, "it connects anew to find the master");
    redis.cli(&["REPLICAOF", "NO", "ONE"]);
    let took = recover(&store, &all([take("k", sliding(10), 1)])).await;
    assert!(took < RECOVERY, "{took:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn dropping_the_store_ends_its_connections() {
    let redis = Redis::start();
    let (store, _) = connect(&redis.url());
    all_up(&store).await;
    let clients = || redis.cli(&["CLIENT", "LIST"]).lines().count();
    assert!(clients() > 1);
    drop(store);
    let start = Instant::now();
    while clients() > 1 {
        assert!(
            start.elapsed() < Duration::from_secs(10),
            "{}",
            redis.cli(&["CLIENT", "LIST"])
        );
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
