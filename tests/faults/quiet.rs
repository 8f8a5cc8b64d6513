//! What the log says of a Redis that lets us in and refuses us: its beginning and its end, not every try. And what a
//! signal that asks for nothing does.

use std::time::{Duration, Instant};

use tokio::task::block_in_place;

use crate::crowd::{metric, wait_for};
use crate::listeners::{ask, connect};
use crate::load::RULES;
use crate::support::redis::Redis;
use crate::support::sluicegate::Sluicegate;

/// How long Redis is no master: long enough for some dozen connections and probes.
const DEMOTED: Duration = Duration::from_secs(3);
/// Lines in that time at most; each try would make hundreds.
const LINES: usize = 20;

async fn until_failing(server: &Sluicegate, failing: u64) {
    let is_so = async || metric(server, "sluicegate_failure_mode{store=\"redis\"}").await == failing;
    wait_for("the failure mode's beginning or end", is_so).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_demoted_redis_is_logged_at_its_beginning_and_its_end() {
    let redis = block_in_place(Redis::start);
    // As envoyproxy/ratelimit's variables have it: the end must be heard, too.
    let arguments = ["--redis-url", &redis.url(), "--log-level", "warn"];
    let server = Sluicegate::start(RULES, &arguments);
    let mut client = connect(&server).await;
    ask(&mut client, b"x").await.expect("answered");
    until_failing(&server, 0).await;
    let before = server.process.log().lines().count();
    redis.cli(&["REPLICAOF", "127.0.0.1", "1"]);
    until_failing(&server, 1).await;
    let start = Instant::now();
    while start.elapsed() < DEMOTED {
        ask(&mut client, b"x").await.expect("answered");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    redis.cli(&["REPLICAOF", "NO", "ONE"]);
    until_failing(&server, 0).await;
    let log = server.process.log();
    let said = |what: &str| log.lines().skip(before).filter(|line| line.contains(what)).count();
    assert_eq!(said("the failure mode takes over"), 1, "{log}");
    assert_eq!(said("the failure mode ends"), 1, "{log}");
    assert_eq!(said("fred-"), 0, "{log}");
    assert!(said("READONLY") > 0, "with Redis' words: {log}");
    assert!(said("") <= LINES, "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hangup_ends_nothing() {
    let mut server = Sluicegate::start(RULES, &[]);
    let mut client = connect(&server).await;
    server.process.signal("HUP");
    server
        .process
        .wait_until("a word on it", |process| process.log().contains("SIGHUP"));
    ask(&mut client, b"x").await.expect("answered");
}
