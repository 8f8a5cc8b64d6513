//! The seam of fixed windows, in real time: a client hammers across window edges.
//!
//! Fixed windows let twice the limit through there; a sliding window must never let more than the limit through, in
//! any window wherever it starts. These tests watch the real clock on purpose: several windows pass while they run.

use std::time::{Duration, Instant};

use http::StatusCode;
use sluicegate::model::{Clock, MonotonicClock, time::micros};
use tokio::{task::JoinSet, time::sleep};

use crate::support::{
    envoy::{Envoy, FAILURE_DENIES, PATIENT},
    http::Client,
    redis::Redis,
    sluicegate::Sluicegate,
};

const LIMIT: usize = 20;
const WINDOW: Duration = Duration::from_secs(2);
/// Without a wildcard's `share_threshold` each value counts for itself.
const RULES: &str = "
domain: demo
descriptors:
  - key: api_key
    value: sliding-*
    rate_limit: { name: sliding, requests_per_unit: 20, window: 2s }
  - key: api_key
    value: fixed-*
    rate_limit: { name: fixed, requests_per_unit: 20, window: 2s, algorithm: fixed_window }
";
/// Concurrent senders of a client.
const SENDERS: usize = 4;
/// Between an answer and the sender's next request.
const PAUSE: Duration = Duration::from_millis(4);
/// How long before and after an edge a burst hammers.
const BURST: Duration = Duration::from_millis(500);

/// An admitted request: the decision fell somewhere between these two.
#[derive(Debug, Clone, Copy)]
struct Admitted {
    sent: Instant,
    answered: Instant,
}

/// The most admissions that certainly fell inside one window of this length.
///
/// Both ends are conservative: a window that starts when a request was *sent* counts those that were sent at or after
/// that and *answered* before its end. All of their decisions lie inside, wherever the network's delays were.
fn worst_window(admitted: &[Admitted], window: Duration) -> usize {
    let inside = |start: Instant| {
        admitted
            .iter()
            .filter(|hit| hit.sent >= start && hit.answered < start + window)
            .count()
    };
    admitted.iter().map(|hit| inside(hit.sent)).max().unwrap_or(0)
}

/// Sends request after request from several senders until the time is up.
async fn hammer(client: &Client, key: &str, duration: Duration) -> Vec<Admitted> {
    let end = Instant::now() + duration;
    let mut senders = JoinSet::new();
    for _ in 0..SENDERS {
        let (client, key) = (client.clone(), key.to_owned());
        senders.spawn(async move {
            let mut admitted = Vec::new();
            while Instant::now() < end {
                let sent = Instant::now();
                let answer = client.get("/", &[("x-api-key", &key)]).await;
                let answered = Instant::now();
                match answer.status {
                    StatusCode::OK => admitted.push(Admitted { sent, answered }),
                    StatusCode::TOO_MANY_REQUESTS => {}
                    other => panic!("{other}: {answer:?}"),
                }
                sleep(PAUSE).await;
            }
            admitted
        });
    }
    senders.join_all().await.concat()
}

/// Rests, then hammers across an edge of the epoch's grid of windows, and again at every second edge, so that each
/// burst finds a fresh quota on both sides.
async fn hammer_edges(client: &Client, key: &str, bursts: usize) -> Vec<Admitted> {
    let clock = MonotonicClock::new();
    let period = 2 * WINDOW;
    let mut admitted = Vec::new();
    for _ in 0..bursts {
        // Where the clock stands in a period of two windows; the burst begins shortly before the period's end.
        let into = Duration::from_micros(clock.now_us() % micros(period));
        let wait = micros(2 * period - BURST - into) % micros(period);
        sleep(Duration::from_micros(wait)).await;
        admitted.extend(hammer(client, key, 2 * BURST).await);
    }
    admitted
}

async fn assert_no_seam(store: &str, arguments: &[&str]) {
    let service = Sluicegate::start(RULES, arguments);
    let envoy = Envoy::start(service.grpc_port, &[PATIENT, FAILURE_DENIES]);
    let client = envoy.client();

    let (sliding, fixed, nonstop) = tokio::join!(
        hammer_edges(&client, "sliding-edges", 3),
        hammer_edges(&client, "fixed-edges", 3),
        hammer(&client, "sliding-nonstop", 5 * WINDOW),
    );
    let [sliding_worst, fixed_worst, nonstop_worst] =
        [&sliding, &fixed, &nonstop].map(|admitted| worst_window(admitted, WINDOW));
    println!(
        "{store}: limit {LIMIT} in {WINDOW:?}; most admitted in one window: \
         fixed_window {fixed_worst} of {}, sliding_window {sliding_worst} of {} (edges), {nonstop_worst} of {} (nonstop)",
        fixed.len(),
        sliding.len(),
        nonstop.len(),
    );
    assert!(sliding_worst <= LIMIT, "sliding, at the edges: {sliding_worst}");
    assert!(nonstop_worst <= LIMIT, "sliding, without a pause: {nonstop_worst}");
    // It must not hold by refusing everything: of the six quotas that fit, more than half are used.
    assert!(
        nonstop.len() > 3 * LIMIT,
        "sliding, without a pause: only {}",
        nonstop.len()
    );
    assert!(fixed_worst > LIMIT, "the contrast is gone: fixed {fixed_worst}");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_window_is_passed_in_memory() {
    assert_no_seam("memory", &["--store", "memory"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_window_is_passed_in_redis() {
    let redis = Redis::start();
    // A store that is late denies here: the check must not be fooled by requests that nobody counted.
    assert_no_seam(
        "redis",
        &[
            "--redis-url",
            &redis.url(),
            "--on-store-error",
            "deny",
            "--store-timeout",
            "5s",
        ],
    )
    .await;
}

#[test]
fn the_check_counts_only_what_certainly_fell_inside() {
    let start = Instant::now();
    let hit = |sent: u64, answered: u64| Admitted {
        sent: start + Duration::from_millis(sent),
        answered: start + Duration::from_millis(answered),
    };
    let window = Duration::from_millis(100);
    assert_eq!(worst_window(&[hit(0, 1), hit(98, 99)], window), 2);
    assert_eq!(worst_window(&[hit(0, 1), hit(98, 100)], window), 1);
    assert_eq!(worst_window(&[hit(0, 50), hit(50, 99), hit(101, 140)], window), 2);
    assert_eq!(worst_window(&[], window), 0);
}
