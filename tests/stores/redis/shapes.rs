//! Redis as people run it: sockets, passwords, TLS, Sentinel, Cluster.

use std::sync::Arc;
use std::time::Duration;

use sluicegate::store::{Refusal, StoreError};

use super::{all_up, connect, hit};
use crate::limits::sliding;
use crate::support::redis::Redis;

#[tokio::test(flavor = "multi_thread")]
async fn a_unix_socket() {
    let dir = tempfile::tempdir().expect("a directory");
    let socket = dir.path().join("redis.sock");
    let path = socket.display().to_string();
    let _redis = Redis::start_on(0, &["--unixsocket", &path]);
    let (store, _) = connect(&format!("unix://{path}"));
    all_up(&store).await;
    assert_eq!(hit(&store, "k", sliding(10)).await.expect("an answer").remaining, 9);
}

#[tokio::test(flavor = "multi_thread")]
async fn racing_tasks_admit_exactly_the_limit() {
    let redis = Redis::start();
    let (store, _) = connect(&redis.url());
    let (other, _) = connect(&redis.url());
    let stores = [Arc::new(store), Arc::new(other)];
    for store in &stores {
        all_up(store).await;
    }
    let tasks: Vec<_> = (0..64)
        .map(|n| {
            let store = stores[n % 2].clone();
            tokio::spawn(async move {
                let mut admitted = 0;
                for _ in 0..30 {
                    // Under load on a busy machine a call may time out: it counts once or not at all.
                    admitted += match hit(&store, "one", sliding(1000)).await {
                        Ok(outcome) => usize::from(outcome.allowed),
                        Err(error) => panic!("{error}"),
                    };
                }
                admitted
            })
        })
        .collect();
    let mut admitted = 0;
    for task in tasks {
        admitted += task.await.expect("no panic");
    }
    assert_eq!(admitted, 1000);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_with_a_password_and_no_more_rights_than_needed() {
    let redis = Redis::start();
    redis.cli(&[
        "ACL",
        "SETUSER",
        "gate",
        "on",
        ">s3cret-w0rd",
        "~test:*",
        "+eval",
        "+evalsha",
        "+time",
        "+get",
        "+set",
    ]);
    redis.cli(&[
        "ACL",
        "SETUSER",
        "gate",
        "+hmget",
        "+hset",
        "+pexpire",
        "+zrange",
        "+ping",
        "+client|id",
        "+info",
    ]);
    let at = format!("127.0.0.1:{}", redis.port);
    let (store, _) = connect(&format!("redis://gate:s3cret-w0rd@{at}"));
    all_up(&store).await;
    assert_eq!(hit(&store, "k", sliding(10)).await.expect("an answer").remaining, 9);

    let (store, events) = connect(&format!("redis://gate:wr0ng-s3cret@{at}"));
    tokio::time::sleep(Duration::from_millis(300)).await;
    let error = hit(&store, "k", sliding(10)).await.expect_err("the password is wrong");
    assert!(
        matches!(
            &error,
            StoreError::Refused {
                kind: Refusal::Auth,
                ..
            }
        ),
        "{error}"
    );
    let shown = format!("{error} {error:?} {:?} {:?}", events.lock(), store.connections());
    assert!(!shown.contains("s3cret"), "{shown}");
}
