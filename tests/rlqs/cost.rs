//! What many buckets and many streams cost.

use std::time::Duration;

use prost::Message;
use sluicegate::proto::envoy::service::rate_limit_quota::v3 as wire;
use tokio::sync::mpsc;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::UnboundedReceiverStream;
use wire::rate_limit_quota_usage_reports::BucketQuotaUsage;

use crate::envoy::bucket;
use crate::shares::rules;
use crate::world::World;

const BUCKETS: usize = 100_000;

fn report(elapsed_s: i64, allowed: u64) -> wire::RateLimitQuotaUsageReports {
    report_of(BUCKETS, elapsed_s, allowed)
}

fn report_of(buckets: usize, elapsed_s: i64, allowed: u64) -> wire::RateLimitQuotaUsageReports {
    let usage = |at: usize| BucketQuotaUsage {
        bucket_id: bucket("name", &format!("user-{at}")).into(),
        time_elapsed: Some(prost_types::Duration {
            seconds: elapsed_s,
            nanos: 0,
        }),
        num_requests_allowed: allowed,
        num_requests_denied: 0,
    };
    wire::RateLimitQuotaUsageReports {
        domain: "edge".into(),
        bucket_quota_usages: (0..buckets).map(usage).collect(),
    }
}

/// Takes all messages that come within a moment; how many actions, and the largest message.
async fn drain(stream: &mut sluicegate::service::rlqs::Assignments) -> (usize, usize) {
    let (mut actions, mut largest) = (0, 0);
    while let Ok(Some(message)) = tokio::time::timeout(Duration::from_millis(1), stream.next()).await {
        let message = message.expect("a message");
        largest = largest.max(message.encoded_len());
        assert!(
            message.bucket_action.len() <= 200,
            "{} actions",
            message.bucket_action.len()
        );
        actions += message.bucket_action.len();
    }
    (actions, largest)
}

/// Every bucket of a large stream is answered, in messages that Envoy takes, and reported again; prints what it costs.
#[tokio::test(start_paused = true)]
async fn a_stream_of_many_buckets_is_answered_in_small_messages() {
    let world = World::new(1, &rules(1000, "1h"), 0);
    let (sender, receiver) = mpsc::unbounded_channel();
    let service = &world.servers[0].service;
    let mut stream = service
        .open(String::new(), UnboundedReceiverStream::new(receiver))
        .expect("room");
    sender.send(Ok(report(0, 0))).expect("open");
    let (actions, largest) = drain(&mut stream).await;
    assert_eq!(actions, 2 * BUCKETS);
    assert!(largest < 4 << 20, "{largest} bytes");
    for allowed in [0, 0, 1] {
        tokio::time::sleep(Duration::from_secs(5)).await;
        let message = report(5, allowed);
        let started = std::time::Instant::now();
        sender.send(Ok(message)).expect("open");
        let (actions, _) = drain(&mut stream).await;
        println!(
            "a report of {BUCKETS} buckets with {allowed} requests each: {:?}, {actions} actions",
            started.elapsed()
        );
    }
    let buckets = world.servers[0].metrics.rlqs.buckets.get();
    assert_eq!(buckets, i64::try_from(BUCKETS).expect("small"));
}

/// Streams are independent; a thousand of them lease from one limit, and all of it comes back when they have gone.
#[tokio::test(start_paused = true)]
async fn a_thousand_streams_lease_from_one_limit() {
    let mut world = World::new(1, &rules(100_000, "10s"), 1000);
    world.run(12, &[5.0]).await;
    assert_eq!(world.servers[0].metrics.rlqs.streams.get(), 1000);
    assert_eq!(world.servers[0].metrics.rlqs.buckets.get(), 1000);
    world.never_over(100_000, 10_000_000);
    let (allowed, denied) = world.answered();
    assert!(
        denied * 4 < allowed,
        "{denied} of {allowed} denied, where half of the limit is asked for"
    );
    world.envoys.iter_mut().for_each(crate::envoy::Envoy::disconnect);
    tokio::time::sleep(Duration::from_secs(1)).await;
    let rlqs = &world.servers[0].metrics.rlqs;
    assert_eq!((rlqs.streams.get(), rlqs.buckets.get()), (0, 0));
}

/// Resident memory of this process, in bytes.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("the status");
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .expect("VmRSS");
    line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") * 1024
}

/// A thousand streams with a hundred buckets each, all of the same hundred counters, and one stream with 100,000 buckets:
/// what a bucket of a stream takes in memory (at first, and when it has been used for minutes: docs/rlqs.md), and a report in
/// time. Time counts in a release build alone.
#[tokio::test(start_paused = true)]
#[ignore = "what it measures needs a release build: make quotas"]
async fn many_buckets_and_streams() {
    const STREAMS: usize = 1000;
    const EACH: usize = BUCKETS / STREAMS;
    const REPORTS: usize = 30;
    let world = World::new(1, &rules(100_000_000, "1h"), 0);
    let service = &world.servers[0].service;
    let open = || {
        let (sender, receiver) = mpsc::unbounded_channel();
        (
            sender,
            service
                .open(String::new(), UnboundedReceiverStream::new(receiver))
                .expect("room"),
        )
    };
    // What the allocator takes once for messages is no matter of buckets.
    let (warm, mut assigned) = open();
    warm.send(Ok(report_of(EACH, 0, 0))).expect("open");
    drain(&mut assigned).await;
    let without = resident();
    let mut streams: Vec<_> = (0..STREAMS).map(|_| open()).collect();
    tokio::time::sleep(Duration::from_millis(10)).await;
    let before = resident();
    let mut slowest = Duration::ZERO;
    for (sender, assigned) in &mut streams {
        sender.send(Ok(report_of(EACH, 0, 0))).expect("open");
        assert_eq!(drain(assigned).await.0, 2 * EACH);
    }
    let each = || resident().saturating_sub(before) / BUCKETS as u64;
    let new = each();
    for _ in 0..REPORTS {
        tokio::time::sleep(Duration::from_secs(4)).await;
        for (sender, assigned) in &mut streams {
            let message = report_of(EACH, 5, 1);
            let started = std::time::Instant::now();
            sender.send(Ok(message)).expect("open");
            let (_, largest) = drain(assigned).await;
            slowest = slowest.max(started.elapsed());
            assert!(largest < 4 << 20, "{largest} bytes");
        }
    }
    let used = each();
    let stream = before.saturating_sub(without) / STREAMS as u64;
    println!("{STREAMS} streams of {EACH} buckets: {stream} B a stream (without HTTP/2), {new} B a bucket and stream,");
    println!("{used} B when it has been used for {REPORTS} reports; a report in {slowest:?} at most");
    let (one, mut assigned) = open();
    let before = resident();
    for (elapsed_s, allowed) in [(0, 0), (5, 0), (5, 0), (5, 1), (5, 1)] {
        tokio::time::sleep(Duration::from_secs(5)).await;
        let message = report(elapsed_s, allowed);
        let started = std::time::Instant::now();
        one.send(Ok(message)).expect("open");
        let (actions, _) = drain(&mut assigned).await;
        let took = started.elapsed();
        assert!(elapsed_s > 0 || actions == 2 * BUCKETS, "{actions} actions");
        println!("one stream of {BUCKETS} buckets: a report of {allowed} requests each in {took:?}, {actions} actions");
    }
    let own = resident().saturating_sub(before) / BUCKETS as u64;
    println!("{own} B a bucket with a counter of its own, in memory");
    let buckets = world.servers[0].metrics.rlqs.buckets.get();
    assert_eq!(buckets, i64::try_from(2 * BUCKETS + EACH).expect("small"));
    // docs/rlqs.md
    assert!(new.max(used) <= 300, "{new} B a bucket and stream, and {used} B later");
}
