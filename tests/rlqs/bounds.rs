//! Hostile and odd reports.

use crate::shares::rules;
use crate::world::{World, server};
use sluicegate::proto::envoy::service::rate_limit_quota::v3 as wire;
use tokio::sync::mpsc;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::UnboundedReceiverStream;
use wire::rate_limit_quota_response::bucket_action::BucketAction as Kind;
use wire::rate_limit_quota_usage_reports::BucketQuotaUsage;

fn report(ids: &[&[u8]]) -> wire::RateLimitQuotaUsageReports {
    let usage = |id: &&[u8]| BucketQuotaUsage {
        bucket_id: bytes::Bytes::copy_from_slice(id),
        ..BucketQuotaUsage::default()
    };
    wire::RateLimitQuotaUsageReports {
        domain: "edge".into(),
        bucket_quota_usages: ids.iter().map(usage).collect(),
    }
}

/// What a stream is told of these buckets: for each action its id and a word.
async fn told(rules: &str, reports: Vec<wire::RateLimitQuotaUsageReports>) -> (Vec<(Vec<u8>, &'static str)>, World) {
    let world = World::new(1, rules, 0);
    let (sender, receiver) = mpsc::unbounded_channel();
    let service = &world.servers[0].service;
    let mut stream = service
        .open("one".into(), UnboundedReceiverStream::new(receiver))
        .expect("room");
    for report in reports {
        sender.send(Ok(report)).expect("open");
    }
    let mut all = Vec::new();
    while let Ok(Some(message)) = tokio::time::timeout(std::time::Duration::from_secs(1), stream.next()).await {
        for action in message.expect("a message").bucket_action {
            let word = match action.bucket_action.expect("an action") {
                Kind::AbandonAction(_) => "abandon",
                Kind::QuotaAssignmentAction(assigned) => {
                    use sluicegate::proto::envoy::r#type::v3::rate_limit_strategy::Strategy;
                    match assigned.rate_limit_strategy.and_then(|strategy| strategy.strategy) {
                        Some(Strategy::BlanketRule(0)) => "allow",
                        Some(Strategy::BlanketRule(_)) => "deny",
                        Some(Strategy::TokenBucket(_)) => "tokens",
                        _ => "odd",
                    }
                }
            };
            all.push((action.bucket_id.to_vec(), word));
        }
    }
    (all, world)
}

fn left_out(world: &World, reason: &str) -> u64 {
    world.servers[0]
        .metrics
        .rlqs
        .left_out
        .with_label_values(&[reason])
        .get()
}

#[tokio::test(start_paused = true)]
async fn what_is_malformed_is_counted_and_the_stream_goes_on() {
    let good = crate::envoy::bucket("name", "all");
    let huge = crate::envoy::bucket("name", &"x".repeat(100_000));
    let reports = vec![
        report(&[b"", b"\x0a", b"\xff\xff\xff", &huge, b"\x0a\x06\x0a\x01\xff\x12\x01a"]),
        wire::RateLimitQuotaUsageReports {
            domain: "another".into(),
            ..report(&[&good])
        },
        report(&[&good]),
    ];
    let (told, world) = told(&rules(100, "1m"), reports).await;
    assert_eq!(told, [(good.clone(), "deny"), (good, "tokens")]);
    assert_eq!((left_out(&world, "malformed"), left_out(&world, "domain")), (5, 1));
}

#[tokio::test(start_paused = true)]
async fn buckets_without_a_limit_pass_and_those_that_cannot_be_leased_do_not() {
    let rules = "domain: edge
rlqs: { bucket: [name, user] }
descriptors:
  - { key: name, value: free, rate_limit: { unlimited: true } }
  - { key: name, value: banned, rate_limit: { requests_per_unit: 0, unit: hour } }
  - { key: name, value: delayed, rate_limit: { requests_per_unit: 5, unit: second, algorithm: leaky_bucket } }
  - { key: name, value: tried, shadow_mode: true, rate_limit: { requests_per_unit: 5, unit: second } }
";
    let ids = ["free", "banned", "delayed", "tried", "unknown"].map(|name| crate::envoy::bucket("name", name));
    let ids: Vec<&[u8]> = ids.iter().map(Vec::as_slice).collect();
    let (told, world) = told(rules, vec![report(&ids)]).await;
    let words: Vec<_> = told.iter().map(|(_, word)| *word).collect();
    assert_eq!(words, ["allow", "deny", "deny", "allow", "allow"]);
    assert_eq!(left_out(&world, "not_leasable"), 1);
}

/// Without `rlqs` on the domain its limits would be enforced otherwise than configured.
#[tokio::test(start_paused = true)]
async fn a_domain_without_rlqs_leases_nothing() {
    let id = crate::envoy::bucket("name", "all");
    let (told, _) = told(&rules(100, "1m").replace("rlqs: {}\n", ""), vec![report(&[&id])]).await;
    assert_eq!(told, [(id, "deny")]);
}

/// A bucket that nobody uses is forgotten, and its lease comes back.
#[tokio::test(start_paused = true)]
async fn idle_buckets_are_abandoned() {
    let mut world = World::new(1, &rules(1000, "10s"), 1);
    world.run(20, &[20.0]).await;
    assert_eq!(world.servers[0].metrics.rlqs.buckets.get(), 1);
    world.run(120, &[0.0]).await;
    assert_eq!(world.servers[0].metrics.rlqs.buckets.get(), 0);
    world.run(20, &[20.0]).await;
    assert_eq!(world.servers[0].metrics.rlqs.buckets.get(), 1);
    assert!(world.upstream.since(world.now() - 1500) > 200, "leased again");
}

/// New rules: what was leased under the old number ends with its hold.
#[tokio::test(start_paused = true)]
async fn a_lower_limit_holds_from_the_next_report_on() {
    let mut world = World::new(1, &rules(1000, "10s"), 2);
    world.run(20, &[40.0, 40.0]).await;
    let lower = server(&rules(100, "10s"), world.store.clone(), &world.clock, true);
    let active = lower.engine.active().expect("rules");
    world.servers[0].engine.activate(active.rules.clone(), 2);
    world.run(30, &[40.0, 40.0]).await;
    let start = world.now();
    world.run(40, &[40.0, 40.0]).await;
    let admitted = world.upstream.since(start);
    assert!((100..=500).contains(&admitted), "{admitted} in four windows of 100");
}
