//! Servers that take over from each other: Sentinel and Cluster.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use sluicegate::config::settings::RedisSettings;
use sluicegate::model::{Enforcement, Hits, Limit, Transaction};
use sluicegate::store::Store;

use super::{PATIENCE, RedisStore, TIMEOUT, all_up, connect, connect_with, hit, patient, recover, settings};
use crate::limits::{all, gated, sliding, take};
use crate::support::redis::cluster::{Cluster, wait_for};
use crate::support::redis::sentinel::Sentinel;

async fn left(store: &RedisStore, name: &str, limit: Limit) -> u64 {
    let mut peek = take(name, limit, 1);
    peek.hits = Hits::Peek;
    store.check(&all([peek])).await.expect("an answer")[0].remaining
}

#[tokio::test(flavor = "multi_thread")]
async fn sentinel_finds_the_master_before_and_after_a_failover() {
    let mut pair = Sentinel::start();
    let (store, _) = connect(&pair.url());
    all_up(&store).await;
    let limit = sliding(1000);
    for _ in 0..10 {
        recover(&store, &all([take("k", limit, 1)])).await;
    }
    wait_for("a replica in step", || pair.replica.cli(&["DBSIZE"]) == "1");
    pair.master.kill();
    let took = recover(&store, &all([take("k", limit, 1)])).await;
    assert!(pair.replica.cli(&["ROLE"]).starts_with("master"));
    assert_eq!(
        left(&store, "k", limit).await,
        989,
        "the new master knows the count ({took:?})"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_master_that_steps_down_is_left_before_it_is_demoted() {
    let pair = Sentinel::start();
    let (store, events) = connect(&pair.url());
    all_up(&store).await;
    let limit = sliding(1000);
    recover(&store, &all([take("before", limit, 1)])).await;
    pair.step_down();
    wait_for("a new master", || pair.replica.cli(&["ROLE"]).starts_with("master"));
    let start = Instant::now();
    for n in 0.. {
        // Keys of their own: a copy by replication is not taken for a call.
        let name = format!("after{n}");
        let answered = hit(&store, &name, limit).await.is_ok();
        if answered && pair.replica.cli(&["EXISTS", &format!("test:{{{name}}}")]) == "1" {
            break;
        }
        assert!(
            start.elapsed() < PATIENCE,
            "still at the old master: {:?}",
            events.lock()
        );
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let role = pair.master.cli(&["ROLE"]);
    assert!(role.starts_with("master"), "it would go on taking writes: {role}");
    assert!(format!("{:?}", events.lock()).contains("the sentinels name another master"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_master_and_a_sentinel_that_fall_silent_keep_nobody() {
    let pair = Sentinel::start();
    let patient = RedisSettings {
        // Who waits for either of them waits longer than this test.
        connect_timeout: 10 * PATIENCE,
        ..settings(&pair.url())
    };
    let (store, _) = connect_with(&patient, TIMEOUT);
    all_up(&store).await;
    pair.freeze_first();
    pair.master.process.signal("STOP");
    recover(&store, &all([take("k", sliding(1000), 1)])).await;
    assert!(pair.replica.cli(&["ROLE"]).starts_with("master"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_over_several_slots_is_all_or_nothing() {
    let cluster = Cluster::start(3, false);
    let store = patient(&cluster.url());
    all_up(&store).await;
    let (few, many) = (sliding(2), sliding(100));
    // Slots of these names are on all three masters.
    let names = ["a", "b", "c", "d"];
    let mut checks: Vec<_> = names.iter().map(|name| take(name, many, 1)).collect();
    checks.push(take("few", few, 1));
    let together = all(checks);
    let mut admitted = 0;
    for _ in 0..5 {
        let outcomes = store.check(&together).await.expect("an answer");
        admitted += usize::from(outcomes[4].allowed);
        if !outcomes[4].allowed {
            assert!(
                outcomes.iter().take(4).all(|o| o.allowed && o.remaining == 98),
                "{outcomes:?}"
            );
        }
    }
    assert_eq!(admitted, 2);
    for name in names {
        assert_eq!(left(&store, name, many).await, 98, "{name}");
    }
    let on_nodes: Vec<_> = cluster.masters.iter().map(|m| m.cli(&["DBSIZE"])).collect();
    assert!(on_nodes.iter().filter(|keys| *keys != "0").count() >= 2, "{on_nodes:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn gates_and_gives_mean_the_same_over_several_slots() {
    let cluster = Cluster::start(3, false);
    let store = patient(&cluster.url());
    all_up(&store).await;
    let (ban, many) = (sliding(0), sliding(100));
    // Shadow mode: a denial alone, the others count.
    let shadow = all([
        gated(Enforcement::Shadow, take("ban", ban, 1)),
        take("a", many, 1),
        take("b", many, 1),
    ]);
    let outcomes = store.check(&shadow).await.expect("an answer");
    assert_eq!(
        (outcomes[0].allowed, outcomes[1].remaining, outcomes[2].remaining),
        (false, 99, 99)
    );
    // One quota of two is left: it passes, also where they are on different nodes.
    let quota = |second: Limit| {
        all([
            gated(Enforcement::Quota(0), take("ban", ban, 1)),
            gated(Enforcement::Quota(1), take("b2", second, 1)),
            take("a", many, 1),
        ])
    };
    let outcomes = store.check(&quota(many)).await.expect("an answer");
    assert_eq!((outcomes[1].remaining, outcomes[2].remaining), (99, 98));
    let outcomes = store.check(&quota(ban)).await.expect("an answer");
    assert_eq!(
        (outcomes[1].allowed, outcomes[2].remaining),
        (false, 98),
        "nothing was taken"
    );
    // What is given back is given whatever else the request comes to.
    let give = |last: Limit| {
        let mut give = take("a", many, 1);
        give.hits = Hits::Refund(2);
        all([give, take("b", last, 1), take("c", last, 1)])
    };
    let outcomes = store.check(&give(ban)).await.expect("an answer");
    assert_eq!((outcomes[0].allowed, outcomes[0].remaining), (true, 100));
    let outcomes = store.check(&give(many)).await.expect("an answer");
    assert_eq!((outcomes[0].remaining, outcomes[1].remaining), (100, 98));
}

#[tokio::test(flavor = "multi_thread")]
async fn racing_transactions_over_slots_never_pass_a_limit_and_leave_nothing_taken() {
    let cluster = Cluster::start(3, false);
    let stores = [patient(&cluster.url()), patient(&cluster.url())].map(Arc::new);
    for store in &stores {
        all_up(store).await;
    }
    let limit = sliding(40);
    let passed = Arc::new(AtomicU64::new(0));
    let tasks: Vec<_> = (0..16_usize)
        .map(|n| {
            let (store, passed) = (stores[n % 2].clone(), passed.clone());
            tokio::spawn(async move {
                for round in 0..20 {
                    let names = [n + round, n + round * 3 + 1].map(|n| format!("k{}", n % 6));
                    let pair: Transaction = all(names.iter().map(|name| take(name, limit, 1)));
                    let outcomes = store.check(&pair).await.expect("an answer");
                    if outcomes.iter().all(|outcome| outcome.allowed) {
                        passed.fetch_add(1, Ordering::SeqCst);
                    }
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.expect("no panic");
    }
    // What denied requests had taken on the way is given back by the ledgers.
    let start = Instant::now();
    loop {
        let mut taken = 0;
        for n in 0..6 {
            taken += 40 - left(&stores[0], &format!("k{n}"), limit).await;
        }
        if taken == 2 * passed.load(Ordering::SeqCst) {
            return;
        }
        assert!(
            start.elapsed() < PATIENCE,
            "{taken} are taken, {passed:?} requests passed"
        );
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Moves a slot with its one key from one master to another as a resharding does, with a pause in the midst of it.
async fn move_slot(cluster: &Cluster, slot: &str, key: &str, from: usize, to: usize) {
    let id = |n: usize| cluster.masters[n].cli(&["CLUSTER", "MYID"]);
    let (source, target) = (&cluster.masters[from], &cluster.masters[to]);
    assert_eq!(target.cli(&["CLUSTER", "SETSLOT", slot, "IMPORTING", &id(from)]), "OK");
    assert_eq!(source.cli(&["CLUSTER", "SETSLOT", slot, "MIGRATING", &id(to)]), "OK");
    let port = target.port.to_string();
    assert_eq!(source.cli(&["MIGRATE", "127.0.0.1", &port, key, "0", "1000"]), "OK");
    // Now the source says ASK; afterwards it says MOVED.
    tokio::time::sleep(Duration::from_millis(100)).await;
    for node in [target, source, &cluster.masters[3 - from - to]] {
        assert_eq!(node.cli(&["CLUSTER", "SETSLOT", slot, "NODE", &id(to)]), "OK");
    }
}

/// The master that has this key.
fn owner(cluster: &Cluster, key: &str) -> usize {
    let slot = cluster.masters[0].cli(&["CLUSTER", "KEYSLOT", key]);
    let has = |n: &usize| cluster.masters[*n].cli(&["CLUSTER", "COUNTKEYSINSLOT", &slot]) != "0";
    (0..cluster.masters.len()).find(has).expect("the key is somewhere")
}

#[tokio::test(flavor = "multi_thread")]
async fn slots_that_move_under_load_lose_no_hit_and_no_call() {
    let cluster = Cluster::start(3, false);
    let store = Arc::new(patient(&cluster.url()));
    all_up(&store).await;
    let limit = sliding(1_000_000);
    let (stop, counted) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let hits = |name: String| {
        let (store, stop, counted) = (store.clone(), stop.clone(), counted.clone());
        tokio::spawn(async move {
            let mut own = 0;
            while !stop.load(Ordering::SeqCst) {
                hit(&store, &name, limit).await.expect("an answer");
                counted.fetch_add(u64::from(name == "moving"), Ordering::SeqCst);
                own += 1;
            }
            (name, own)
        })
    };
    // Beside it others that leave in the same calls.
    let names = (0..4)
        .map(|_| "moving".to_owned())
        .chain((0..16).map(|n| format!("k{n}")));
    let tasks: Vec<_> = names.map(hits).collect();
    let key = "test:{moving}";
    wait_for("hits", || counted.load(Ordering::SeqCst) > 0);
    let slot = cluster.masters[0].cli(&["CLUSTER", "KEYSLOT", key]);
    let mut from = owner(&cluster, key);
    for _ in 0..4 {
        let to = (from + 1) % 3;
        move_slot(&cluster, &slot, key, from, to).await;
        from = to;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    stop.store(true, Ordering::SeqCst);
    for task in tasks {
        let (name, own) = task.await.expect("no panic");
        if name != "moving" {
            assert_eq!(1_000_000 - left(&store, &name, limit).await, own, "{name}");
        }
    }
    assert_eq!(owner(&cluster, key), from);
    let taken = 1_000_000 - left(&store, "moving", limit).await;
    assert_eq!(taken, counted.load(Ordering::SeqCst));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_that_loses_a_master_goes_on_with_the_others_until_its_failover() {
    let mut cluster = Cluster::start(3, true);
    let store = patient(&cluster.url());
    all_up(&store).await;
    let limit = sliding(1_000_000);
    let names: Vec<String> = (0..12).map(|n| format!("k{n}")).collect();
    for name in &names {
        hit(&store, name, limit).await.expect("an answer");
    }
    let of_first = |name: &&String| owner(&cluster, &format!("test:{{{name}}}")) == 0;
    let (dead, alive): (Vec<_>, Vec<_>) = names.iter().partition(of_first);
    assert!(!dead.is_empty() && !alive.is_empty());
    wait_for("replicas in step", || {
        cluster
            .masters
            .iter()
            .zip(&cluster.replicas)
            .all(|(master, replica)| master.cli(&["DBSIZE"]) == replica.cli(&["DBSIZE"]))
    });
    cluster.masters[0].kill();
    let mut kinds = BTreeSet::new();
    let mut back = 0;
    while back < dead.len() {
        back = 0;
        for name in &dead {
            match hit(&store, name, limit).await {
                Ok(_) => back += 1,
                Err(error) => _ = kinds.insert(error.kind()),
            }
        }
        for name in &alive {
            hit(&store, name, limit).await.expect("its master lives");
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    // A call that is made in the moment of the loss has nobody to end it but its own timeout, which is long here.
    let expected = BTreeSet::from(["timeout", "broken", "unavailable"]);
    assert!(!kinds.is_empty() && kinds.is_subset(&expected), "{kinds:?}");
    for name in &names {
        let taken = 1_000_000 - left(&store, name, limit).await;
        assert!(taken >= 2, "{name}: the new master knows the count");
    }
}
