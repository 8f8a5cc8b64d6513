//! Calls of the same moment leave as one, and yet each has its own answer.

use std::time::{Duration, Instant};

use futures::future::join_all;
use sluicegate::config::settings::RedisSettings;
use sluicegate::model::Transaction;
use sluicegate::store::{Refusal, Store, StoreError};

use super::shapes::acl_line;
use super::{PATIENCE, RedisStore, all_up, connect_with, hit, patient, recover, settings};
use crate::limits::{all, sliding, take};
use crate::support::redis::Redis;
use crate::support::redis::cluster::Cluster;

/// Scripts that the server has run.
pub fn scripts(redis: &Redis) -> u64 {
    let stats = redis.cli(&["INFO", "commandstats"]);
    let calls = |line: &str| -> Option<u64> {
        let counts = line.strip_prefix("cmdstat_evalsha:calls=")?;
        counts.split(',').next()?.parse().ok()
    };
    stats.lines().find_map(calls).unwrap_or(0)
}

/// On this thread's own connection, with the scripts loaded.
async fn warm(store: &RedisStore) {
    recover(store, &all([take("warm", sliding(1_000_000), 1)])).await;
    all_up(store).await;
    hit(store, "warm", sliding(1_000_000)).await.expect("an answer");
}

#[tokio::test]
async fn what_is_asked_in_one_turn_goes_in_few_calls() {
    let redis = Redis::start();
    let store = patient(&redis.url());
    warm(&store).await;
    let before = scripts(&redis);
    let names: Vec<String> = (0..1000).map(|n| format!("k{}", n % 250)).collect();
    let answers = join_all(names.iter().map(|name| hit(&store, name, sliding(3)))).await;
    let admitted = answers
        .iter()
        .filter(|a| a.as_ref().expect("an answer").allowed)
        .count();
    assert_eq!(
        admitted, 750,
        "four hits on each of 250 counters, three of them admitted"
    );
    let calls = scripts(&redis) - before;
    assert!((1..=20).contains(&calls), "{calls} calls");
    // In order of arrival, whichever call they went in.
    for (n, answer) in answers.iter().enumerate() {
        assert_eq!(answer.as_ref().expect("an answer").allowed, n < 750, "{n}");
    }
}

#[tokio::test]
async fn slots_of_one_master_share_a_call() {
    let cluster = Cluster::start(3, false);
    let store = patient(&cluster.url());
    slots_share_calls(&cluster, &store).await;
}

#[tokio::test]
async fn slots_share_calls_of_a_user_with_no_more_rights_than_needed() {
    let cluster = Cluster::start(3, false);
    let line = format!("{} +cluster|slots +asking", acl_line());
    for master in &cluster.masters {
        assert_eq!(master.cli(&line.split(' ').collect::<Vec<_>>()), "OK");
    }
    let url = cluster.url().replace("://", "://sluicegate:s3cret-w0rd@");
    let settings = RedisSettings {
        key_prefix: "test:".into(),
        ..settings(&url)
    };
    let (store, _) = connect_with(&settings, PATIENCE);
    slots_share_calls(&cluster, &store).await;
}

async fn slots_share_calls(cluster: &Cluster, store: &RedisStore) {
    all_up(store).await;
    let names: Vec<String> = (0..256).map(|n| format!("k{n}")).collect();
    let scripts = || cluster.masters.iter().map(scripts).sum::<u64>();
    let start = Instant::now();
    loop {
        let before = scripts();
        let answers = join_all(names.iter().map(|name| hit(store, name, sliding(1_000_000)))).await;
        assert!(
            answers
                .iter()
                .all(|answer| answer.as_ref().is_ok_and(|outcome| outcome.allowed))
        );
        let calls = scripts() - before;
        // Until the nodes have been asked whether they let a script use several slots, each slot is asked by itself.
        if (3..=12).contains(&calls) {
            return;
        }
        assert!(start.elapsed() < PATIENCE, "{calls} calls");
    }
}

#[tokio::test]
async fn a_key_of_one_slot_that_is_not_ours_spoils_no_call_over_several() {
    let cluster = Cluster::start(1, false);
    let store = patient(&cluster.url());
    all_up(&store).await;
    cluster.masters[0].cli(&["LPUSH", "test:{k3}", "x"]);
    for round in 1..=40 {
        let names: Vec<String> = (0..8).map(|n| format!("k{n}")).collect();
        let answers = join_all(names.iter().map(|name| hit(&store, name, sliding(100)))).await;
        for (n, answer) in answers.into_iter().enumerate() {
            match answer {
                Err(StoreError::Refused { kind, .. }) => assert_eq!((n, kind), (3, Refusal::WrongType)),
                Err(error) => panic!("k{n}: {error}"),
                Ok(outcome) => assert_eq!((n == 3, outcome.remaining), (false, 100 - round), "k{n}: counted once"),
            }
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn a_key_that_is_not_ours_spoils_nobody_elses_call() {
    let redis = Redis::start();
    let store = patient(&redis.url());
    warm(&store).await;
    redis.cli(&["LPUSH", "test:{k3}", "x"]);
    let names: Vec<String> = (0..8).map(|n| format!("k{n}")).collect();
    let answers = join_all(names.iter().map(|name| hit(&store, name, sliding(10)))).await;
    for (n, answer) in answers.into_iter().enumerate() {
        match answer {
            Err(StoreError::Refused { kind, .. }) => assert_eq!((n, kind), (3, Refusal::WrongType)),
            Err(error) => panic!("k{n}: {error}"),
            Ok(outcome) => assert_eq!((n == 3, outcome.remaining), (false, 9), "k{n}: counted once"),
        }
    }
}

#[tokio::test]
async fn callers_that_leave_take_nobody_with_them() {
    let redis = Redis::start();
    let store = patient(&redis.url());
    warm(&store).await;
    let limit = sliding(100);
    let transactions: Vec<Transaction> = (0..10).map(|_| all([take("k", limit, 1)])).collect();
    // The first one makes the call for the others, and is dropped as soon as all have asked.
    let mut calls: Vec<_> = transactions.iter().map(|t| store.check(t)).collect();
    for call in &mut calls {
        assert!(futures::poll!(call.as_mut()).is_pending());
    }
    let stay = calls.split_off(3);
    drop(calls);
    for answer in join_all(stay).await {
        assert!(answer.expect("an answer")[0].allowed);
    }
    let left = hit(&store, "k", limit).await.expect("an answer").remaining;
    assert_eq!(left, 100 - 7 - 1, "who left before the call was made counts nothing");
}
