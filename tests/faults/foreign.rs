//! Somebody else's value under one of our keys, end to end.

use std::time::{Duration, Instant};

use tokio::task::block_in_place;

use crate::crowd::metric;
use crate::listeners::{ask_for, connect};
use crate::load::RULES;
use crate::support::process::PATIENCE;
use crate::support::redis::Redis;
use crate::support::sluicegate::Sluicegate;

#[tokio::test(flavor = "multi_thread")]
async fn one_foreign_key_is_left_alone_and_costs_the_others_nothing() {
    let redis = block_in_place(Redis::start);
    let arguments = [
        "--redis-url",
        &redis.url(),
        "--store-timeout",
        "2s",
        "--deny-cache",
        "off",
    ];
    let server = Sluicegate::start(RULES, &arguments);
    let mut client = connect(&server).await;
    // Until Redis decides: `strict` denies without it.
    let start = Instant::now();
    while ask_for(&mut client, "strict", b"mine").await.expect("answered") != 1 {
        assert!(start.elapsed() < PATIENCE, "Redis does not decide");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let key = redis.cli(&["KEYS", "*mine*"]);
    assert!(!key.is_empty() && !key.contains('\n'), "{key:?}");
    assert_eq!(redis.cli(&["DEL", &key]), "1");
    assert_eq!(redis.cli(&["RPUSH", &key, "theirs"]), "1");
    for round in 0..8_u8 {
        assert_eq!(
            ask_for(&mut client, "strict", b"mine").await.expect("answered"),
            2,
            "its failure mode is to deny"
        );
        let other = ask_for(&mut client, "strict", &[b'a' + round]).await;
        assert_eq!(other.expect("answered"), 1, "another key, decided by Redis");
    }
    assert_eq!(metric(&server, "sluicegate_failure_mode{store=\"redis\"}").await, 0);
    assert!(metric(&server, "sluicegate_failure_mode_decisions_total{mode=\"deny\"}").await >= 8);
    assert_eq!(redis.cli(&["LRANGE", &key, "0", "-1"]), "theirs");
    // It goes, and ours is there again.
    assert_eq!(redis.cli(&["DEL", &key]), "1");
    assert_eq!(ask_for(&mut client, "strict", b"mine").await.expect("answered"), 1);
}
