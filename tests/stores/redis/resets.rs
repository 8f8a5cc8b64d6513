//! The log of resets and the names of counters, on a server and on a cluster.

use std::sync::Arc;
use std::time::Instant;

use sluicegate::model::{Check, CounterKey, MonotonicClock};
use sluicegate::store::Store;
use sluicegate::store::redis::RedisTransport;
use sluicegate::store::remote::transport::Transport;
use sluicegate::store::remote::{Options, Remote};
use sluicegate::store::reset::{Cursor, Named};
use tokio::task::JoinSet;

use super::{PATIENCE, RedisStore, all_up, settings};
use crate::limits::{all, per_day, sliding, take};
use crate::support::redis::Redis;
use crate::support::redis::cluster::Cluster;

/// A process' pipeline with its background tasks.
async fn process(url: &str) -> (RedisStore, JoinSet<()>) {
    let transport = RedisTransport::connect(&settings(url), PATIENCE, Arc::new(|_| {})).expect("no certificates");
    let options = Options {
        denial_keys: Some(1000),
        reset_log: Some(CounterKey::from_raw("test:resets")),
        ..Options::plain(PATIENCE)
    };
    let store = Remote::new([transport], |_| 0, &options, None, Arc::new(MonotonicClock::new()));
    let mut tasks = JoinSet::new();
    store.spawn(&mut tasks, &all([take("probe", sliding(1000), 1)]));
    all_up(&store).await;
    (store, tasks)
}

async fn allowed(store: &RedisStore, check: &Check) -> bool {
    let start = Instant::now();
    loop {
        match store.check(&all([check.clone()])).await {
            Ok(outcomes) => return outcomes[0].allowed,
            // A cluster whose map is being read.
            Err(error) => assert!(start.elapsed() < PATIENCE, "{error}"),
        }
    }
}

/// Both deny many keys from their caches; one resets them, the other hears of each.
async fn reset_everywhere(url: &str) {
    let (here, _tasks) = process(url).await;
    let (there, _more) = process(url).await;
    let limit = per_day(sluicegate::model::AlgorithmKind::SlidingWindow, 1);
    let checks: Vec<Check> = (0..200).map(|n| take(&format!("key-{n}"), limit, 1)).collect();
    for check in &checks {
        assert!(allowed(&here, check).await);
        assert!(!allowed(&here, check).await && !allowed(&there, check).await);
    }
    let mut names = Vec::new();
    let mut from = Some(Cursor::default());
    while let Some(at) = from {
        let page = here
            .names(&limit, "test:{key-1", at)
            .await
            .expect("a page")
            .expect("names");
        names.extend(page.keys);
        from = page.next;
    }
    names.sort();
    names.dedup();
    assert_eq!(names.len(), 111, "1, 10 to 19, 100 to 199");
    let counters: Vec<Named> = names.into_iter().map(|key| (key, limit)).collect();
    let done = here.reset(&counters).await;
    assert_eq!(
        (done.counters, done.hits, done.announced, done.failed),
        (111, 111, true, None)
    );
    let is_reset = |check: &Check| counters.iter().any(|(key, _)| *key == check.key);
    let start = Instant::now();
    for check in &checks {
        if is_reset(check) {
            while !allowed(&there, check).await {
                assert!(start.elapsed() < PATIENCE, "{} is not heard of", check.key);
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            }
        } else {
            assert!(!allowed(&there, check).await && !allowed(&here, check).await);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_server() {
    reset_everywhere(&Redis::start().url()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster() {
    let cluster = Cluster::start(3, false);
    reset_everywhere(&cluster.url()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_is_in_order_bounded_and_read_in_parts() {
    let redis = Redis::start();
    let (store, _tasks) = process(&redis.url()).await;
    let transport = store.transport(0).expect("one server");
    let log = CounterKey::from_raw("test:another log");
    let key = |n: usize| CounterKey::from_raw(&format!("test:{{{n}}}"));
    for from in (0..10_500).step_by(500) {
        let keys: Vec<CounterKey> = (from..from + 500).map(key).collect();
        transport.announce(&log, &keys).await.expect("room");
    }
    // Once more: it moves to the end.
    transport.announce(&log, &[key(9_000)]).await.expect("room");
    let (mut heard, mut since) = (Vec::new(), 0);
    loop {
        let part = transport.resets(&log, since, 1000).await.expect("a part");
        let Some((_, last)) = part.last() else { break };
        since = *last;
        heard.extend(part.into_iter().map(|(key, _)| key));
    }
    let expected = (500..10_500).filter(|n| *n != 9_000).chain([9_000]).map(key);
    assert!(heard.into_iter().eq(expected), "the newest 10,000");
    assert!(redis.cli(&["PTTL", "test:another log"]).parse::<i64>().expect("a time") > 0);
}
