//! What a Redis may say instead of an answer, said by real ones; `faults.rs` has those that need no setting of their own.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use fred::util::redis_keyslot;
use sluicegate::model::Limit;
use sluicegate::store::redis::RedisChange;
use sluicegate::store::{Refusal, Store, StoreError};

use super::{Events, PATIENCE, RedisStore, TIMEOUT, all_up, connect, connect_with, hit, patient, recover, settings};
use crate::limits::{all, sliding, take};
use crate::support::process::free_port;
use crate::support::redis::cluster::{Cluster, wait_for};
use crate::support::redis::{Redis, cli};

/// Hits until an error of this kind comes, from a call or from an attempt to connect.
async fn until_it_says(word: &str, store: &RedisStore, events: &Events, limit: Limit) {
    let (start, mut kinds) = (Instant::now(), BTreeSet::new());
    while !kinds.contains(word) {
        assert!(start.elapsed() < PATIENCE, "only {kinds:?}");
        if let Err(error) = hit(store, "k", limit).await {
            kinds.insert(error.kind());
        }
        for event in events.lock().iter() {
            if let RedisChange::ConnectFailed { error, .. } | RedisChange::Disconnected(error) = &event.change {
                kinds.insert(error.kind());
            }
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn refused(store: &RedisStore, wanted: Refusal) {
    match hit(store, "k", sliding(10)).await {
        Err(StoreError::Refused { kind, .. }) => assert_eq!(kind, wanted),
        other => panic!("{wanted:?}: {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn loading_ends_and_what_was_counted_is_there() {
    let mut redis = Redis::start_with(&[
        "--appendonly",
        "yes",
        "--appendfsync",
        "always",
        "--loading-process-events-interval-bytes",
        "1024",
    ]);
    let (store, events) = connect(&redis.url());
    all_up(&store).await;
    let limit = sliding(1_000_000);
    for _ in 0..5 {
        recover(&store, &all([take("k", limit, 1)])).await;
    }
    let fill = "for i = 1, 2000 do redis.call('SET', 'x' .. i, 'y') end return 'OK'";
    assert_eq!(redis.cli(&["EVAL", fill, "0"]), "OK");
    redis.kill();
    // A millisecond for each key that it reads back.
    let port = redis.port;
    let loading = std::thread::spawn(move || {
        redis.restart_with(&["--key-load-delay", "1000"]);
        redis
    });
    until_it_says("loading", &store, &events, limit).await;
    let redis = loading.join().expect("it loads");
    recover(&store, &all([take("k", limit, 1)])).await;
    let store = patient(&redis.url());
    all_up(&store).await;
    let left = hit(&store, "k", limit).await.expect("an answer").remaining;
    assert!(left <= 1_000_000 - 7, "{left}: hits from before the restart are known");
    assert_eq!(cli(port, &["PING"]), "PONG");
    drop(redis);
}

#[tokio::test(flavor = "multi_thread")]
async fn misconf_takes_no_hit() {
    let redis = Redis::start_with(&["--enable-protected-configs", "yes"]);
    let store = patient(&redis.url());
    all_up(&store).await;
    let broken = redis.break_snapshots();
    refused(&store, Refusal::Misconf).await;
    drop(broken);
    assert_eq!(redis.cli(&["CONFIG", "SET", "save", ""]), "OK");
    assert_eq!(hit(&store, "k", sliding(10)).await.expect("an answer").remaining, 9);
}

#[tokio::test(flavor = "multi_thread")]
async fn noauth_is_told_until_there_is_no_password() {
    let redis = Redis::start_with(&["--requirepass", "s3cret"]);
    let (store, events) = connect_with(&settings(&redis.url()), TIMEOUT);
    until_it_says("auth", &store, &events, sliding(10)).await;
    let with = |arguments: &[&str]| redis.cli(&[&["-a", "s3cret", "--no-auth-warning"], arguments].concat());
    assert_eq!(with(&["CONFIG", "SET", "requirepass", ""]), "OK");
    recover(&store, &all([take("k", sliding(10), 1)])).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn masterdown_from_a_replica_that_must_not_serve_what_is_stale() {
    let redis = Redis::start_with(&["--replica-serve-stale-data", "no", "--replica-read-only", "no"]);
    let store = patient(&redis.url());
    all_up(&store).await;
    let nobody = free_port().to_string();
    assert_eq!(redis.cli(&["REPLICAOF", "127.0.0.1", &nobody]), "OK");
    refused(&store, Refusal::MasterDown).await;
    assert_eq!(redis.cli(&["REPLICAOF", "NO", "ONE"]), "OK");
    recover(&store, &all([take("k", sliding(10), 1)])).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn clusterdown_while_nobody_has_the_slot() {
    let cluster = Cluster::start(3, false);
    let (store, events) = connect(&cluster.url());
    all_up(&store).await;
    let limit = sliding(1_000_000);
    recover(&store, &all([take("k", limit, 1)])).await;
    let slot = cluster.masters[0].cli(&["CLUSTER", "KEYSLOT", "test:{k}"]);
    for node in &cluster.masters {
        assert_eq!(node.cli(&["CLUSTER", "DELSLOTS", &slot]), "OK");
    }
    until_it_says("clusterdown", &store, &events, limit).await;
    // Others are served all the while.
    let other = ["a", "b", "c", "d"]
        .iter()
        .find(|name| cluster.masters[0].cli(&["CLUSTER", "KEYSLOT", &format!("test:{{{name}}}")]) != slot);
    recover(&store, &all([take(other.expect("another slot"), limit, 1)])).await;
    assert_eq!(cluster.masters[1].cli(&["CLUSTER", "ADDSLOTS", &slot]), "OK");
    wait_for("the slot's new owner known to all", || {
        cluster
            .masters
            .iter()
            .all(|node| node.cli(&["CLUSTER", "INFO"]).contains("cluster_slots_assigned:16384"))
    });
    recover(&store, &all([take("k", limit, 1)])).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tryagain_while_two_counters_of_a_slot_are_on_two_nodes() {
    let cluster = Cluster::start(3, false);
    let store = patient(&cluster.url());
    all_up(&store).await;
    let (limit, slot) = (sliding(100), redis_keyslot(b"first"));
    let second = (0..)
        .map(|n| format!("n{n}"))
        .find(|name| redis_keyslot(name.as_bytes()) == slot);
    let second = second.expect("names go on for ever");
    let both = all([take("first", limit, 1), take(&second, limit, 1)]);
    store.check(&both).await.expect("an answer");

    let slot = slot.to_string();
    let keys = |node: &Redis| node.cli(&["CLUSTER", "COUNTKEYSINSLOT", &slot]);
    let from = cluster
        .masters
        .iter()
        .position(|node| keys(node) == "2")
        .expect("both are somewhere");
    let (source, target) = (&cluster.masters[from], &cluster.masters[(from + 1) % 3]);
    let [source_id, target_id] = [source, target].map(|node| node.cli(&["CLUSTER", "MYID"]));
    let moves = |name: &str| {
        let (port, key) = (target.port.to_string(), format!("test:{{{name}}}"));
        assert_eq!(source.cli(&["MIGRATE", "127.0.0.1", &port, &key, "0", "1000"]), "OK");
    };
    assert_eq!(
        target.cli(&["CLUSTER", "SETSLOT", &slot, "IMPORTING", &source_id]),
        "OK"
    );
    assert_eq!(
        source.cli(&["CLUSTER", "SETSLOT", &slot, "MIGRATING", &target_id]),
        "OK"
    );
    moves("first");
    match store.check(&both).await {
        Err(StoreError::Refused {
            kind: Refusal::TryAgain,
            ..
        }) => {}
        other => panic!("{other:?}"),
    }
    // One of them alone is found where it is.
    assert_eq!(hit(&store, "first", limit).await.expect("an answer").remaining, 98);
    assert_eq!(hit(&store, &second, limit).await.expect("an answer").remaining, 98);
    moves(&second);
    for node in [target, source, &cluster.masters[(from + 2) % 3]] {
        assert_eq!(node.cli(&["CLUSTER", "SETSLOT", &slot, "NODE", &target_id]), "OK");
    }
    let outcomes = store.check(&both).await.expect("an answer");
    assert!(
        outcomes.iter().all(|o| o.remaining == 97),
        "{outcomes:?}: a refusal counts nothing"
    );
}
