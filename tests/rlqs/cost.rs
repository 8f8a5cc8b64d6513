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
        bucket_quota_usages: (0..BUCKETS).map(usage).collect(),
    }
}

/// Takes all messages that come within a moment; how many actions, and the largest message.
async fn drain(stream: &mut sluicegate::service::rlqs::Assignments) -> (usize, usize) {
    let (mut actions, mut largest) = (0, 0);
    while let Ok(Some(message)) = tokio::time::timeout(Duration::from_millis(10), stream.next()).await {
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
