//! Calls that the server answers when their caller has given up: in the end they have counted nothing.

use std::time::{Duration, Instant};

use sluicegate::model::{AlgorithmKind, Check, Hits, Limit};
use sluicegate::store::Store;

use super::{PATIENCE, RedisStore, all_up, batches::scripts, connect_with, patient, recover, settings};
use crate::limits::{all, per_day, sliding, take};
use crate::support::redis::Redis;
use crate::support::redis::cluster::{Cluster, wait_for};

/// The server is stopped for a little longer: not so long that the connection is given up.
const TIMEOUT: Duration = Duration::from_millis(50);
const ALL: [AlgorithmKind; 6] = [
    AlgorithmKind::SlidingWindow,
    AlgorithmKind::SlidingLog,
    AlgorithmKind::TokenBucket,
    AlgorithmKind::LeakyBucket,
    AlgorithmKind::FixedWindow,
    AlgorithmKind::Concurrency,
];

async fn left(store: &RedisStore, name: &str, limit: Limit) -> u64 {
    let peek = Check {
        hits: Hits::Peek,
        ..take(name, limit, 1)
    };
    store.check(&all([peek])).await.expect("an answer")[0].remaining
}

/// Waits until so much is left of a limit.
async fn wait_for_left(store: &RedisStore, name: &str, limit: Limit, wanted: u64) {
    let start = Instant::now();
    loop {
        let left = left(store, name, limit).await;
        if left == wanted {
            return;
        }
        assert!(start.elapsed() < PATIENCE, "{name}: {left} are left");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// A store with all connections up and the scripts loaded.
async fn warm(url: &str) -> RedisStore {
    let (store, _) = connect_with(&settings(url), TIMEOUT);
    all_up(&store).await;
    recover(&store, &all([take("warm", sliding(1_000_000), 1)])).await;
    store
}

/// Scripts that these servers have run.
fn all_scripts(servers: &[&Redis]) -> u64 {
    servers.iter().map(|redis| scripts(redis)).sum()
}

/// Whether a call that a silent server has not answered in time is of unknown fate; if not, it was not made.
async fn may_have_counted(store: &RedisStore, check: Check, left: Option<Duration>) -> bool {
    let mut transaction = all([check]);
    transaction.deadline = left.map(|left| Instant::now() + left);
    let error = store.check(&transaction).await.expect_err("it hangs");
    assert_eq!(error.kind(), "timeout", "{error}");
    error.is_indeterminate()
}

async fn is_given_back(servers: &[&Redis], url: &str) {
    let (store, observer) = (warm(url).await, patient(url));
    all_up(&observer).await;
    for kind in ALL {
        let (name, limit) = (kind.name(), per_day(kind, 60));
        let hits = if kind == AlgorithmKind::LeakyBucket { 1 } else { 3 };
        let quota = left(&observer, name, limit).await;
        let before = all_scripts(servers);
        for redis in servers {
            redis.process.signal("STOP");
        }
        // A caller of less patience than the store has; on a busy machine none may be left before its call is made.
        let start = Instant::now();
        while !may_have_counted(&store, take(name, limit, hits), Some(Duration::from_millis(10))).await {
            assert!(start.elapsed() < PATIENCE, "{name}: what was sent is said to be unsent");
        }
        assert!(may_have_counted(&store, take(name, limit, hits), None).await, "{name}");
        for redis in servers {
            redis.process.signal("CONT");
        }
        // Both are carried out, and then undone.
        wait_for("both calls", || all_scripts(servers) >= before + 2);
        wait_for_left(&observer, name, limit, quota).await;
        recover(&store, &all([take("warm", sliding(1_000_000), 1)])).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_taken_for_nobody_is_given_back() {
    let redis = Redis::start();
    is_given_back(&[&redis], &redis.url()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_taken_for_nobody_is_given_back_in_a_cluster() {
    let cluster = Cluster::start(3, false);
    let servers: Vec<&Redis> = cluster.nodes().collect();
    is_given_back(&servers, &cluster.url()).await;
}
