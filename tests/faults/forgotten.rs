//! Redis forgets, while the replicas over it hold leases and remember denials.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio::task::{JoinSet, block_in_place};
use tokio::time::sleep;

use crate::listeners::{ask_for, connect_to};
use crate::load::{Got, Kind, Sample, WINDOW, over_admitted};
use crate::support::redis::Redis;
use crate::support::redis::cluster::wait_for;
use crate::support::redis::sentinel::Sentinel;
use crate::support::sluicegate::Sluicegate;

/// Hits that a key may have in a window; enough for leases.
const LIMIT: usize = 300;
const RULES: &str = "
domain: chaos
descriptors:
  - key: strict
    rate_limit: {window: 1s, requests_per_unit: 300, on_store_error: deny}
";
/// Callers of each replica; each asks again as soon as it has an answer.
const CALLERS: usize = 6;
/// Before and after the fault.
const PHASE: Duration = Duration::from_millis(3500);
/// A lease lives, and a denial is remembered, no longer.
const MEMORY: Duration = Duration::from_secs(1);

/// Callers that ask for two keys until they are stopped.
struct Crowd {
    stop: Arc<AtomicBool>,
    callers: JoinSet<Vec<Sample>>,
}

impl Crowd {
    fn start(replicas: &[Sluicegate]) -> Self {
        let (stop, mut callers) = (Arc::<AtomicBool>::default(), JoinSet::new());
        for (replica, port) in replicas.iter().map(|r| r.grpc_port).enumerate() {
            for caller in 0..CALLERS {
                let stop = Arc::clone(&stop);
                callers.spawn(async move {
                    let (mut client, mut samples) = (connect_to(port).await, Vec::new());
                    while !stop.load(Ordering::Relaxed) {
                        let (key, sent) = (caller as u64 % 2, Instant::now());
                        let code = ask_for(&mut client, "strict", &[b'0' + u8::from(key == 1)]).await;
                        let got = code.map_or_else(|s| Got::Failed(s.to_string()), |code| Got::Decision(code == 1));
                        samples.push(Sample {
                            replica,
                            kind: Kind::Strict,
                            key,
                            sent,
                            received: Instant::now(),
                            got,
                        });
                    }
                    samples
                });
            }
        }
        Self { stop, callers }
    }

    async fn finish(self) -> Vec<Sample> {
        self.stop.store(true, Ordering::Relaxed);
        self.callers.join_all().await.concat()
    }
}

/// At most the limit before what happened between these times and some time after, at most once more in between.
fn check(what: &str, samples: &[Sample], (begin, end): (Instant, Instant)) {
    let failed: Vec<_> = samples.iter().filter(|s| !matches!(s.got, Got::Decision(_))).collect();
    assert!(failed.is_empty(), "{} not answered: {:?}", failed.len(), failed[0]);
    let part = |wanted: &dyn Fn(&Sample) -> bool| samples.iter().filter(|s| wanted(s)).cloned().collect::<Vec<_>>();
    let over = |samples: &[Sample], limit| over_admitted(samples, Kind::Strict, limit);
    let before = part(&|s| s.received < begin);
    let after = part(&|s| s.sent > end + WINDOW + MEMORY);
    println!(
        "{what}: {} asked, {} over the limit, around it",
        samples.len(),
        over(samples, LIMIT)
    );
    assert_eq!(over(&before, LIMIT), 0, "{what}: before");
    assert_eq!(over(&after, LIMIT), 0, "{what}: afterwards");
    assert_eq!(over(samples, 2 * LIMIT), 0, "{what}: more than once more");
    for (when, samples) in [("before", before), ("after", after)] {
        let admitted = samples.iter().filter(|s| s.got == Got::Decision(true)).count();
        assert!(
            admitted >= LIMIT,
            "{what}: only {admitted} of {} passed {when}",
            samples.len()
        );
    }
}

fn replicas(url: &str) -> Vec<Sluicegate> {
    let arguments = ["--redis-url", url, "--replicas", "2", "--store-timeout", "1s"];
    block_in_place(|| (0..2).map(|_| Sluicegate::start(RULES, &arguments)).collect())
}

/// Calls of the limiter that a server has taken.
fn calls(redis: &Redis) -> usize {
    let stats = redis.cli(&["INFO", "commandstats"]);
    let line = stats
        .lines()
        .find_map(|line| line.strip_prefix("cmdstat_evalsha:calls="));
    let calls = line.and_then(|counts| counts.split(',').next()?.parse().ok());
    calls.unwrap_or(0)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn flushall_gives_a_key_its_limit_once_more_whatever_was_leased() {
    let redis = block_in_place(Redis::start);
    let replicas = replicas(&redis.url());
    let crowd = Crowd::start(&replicas);
    sleep(PHASE).await;
    let begin = Instant::now();
    assert_eq!(block_in_place(|| redis.cli(&["FLUSHALL"])), "OK");
    let end = Instant::now();
    sleep(PHASE).await;
    let samples = crowd.finish().await;
    check("FLUSHALL", &samples, (begin, end));
    let calls = block_in_place(|| calls(&redis));
    // How many fewer depends on how much a busy machine lets the crowd ask.
    assert!(
        calls < samples.len(),
        "{calls} calls for {}: leases and remembered denials were not in play",
        samples.len()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failover_forgets_no_more_than_that() {
    let mut pair = block_in_place(Sentinel::start);
    let replicas = replicas(&pair.url());
    let crowd = Crowd::start(&replicas);
    sleep(PHASE).await;
    let begin = Instant::now();
    block_in_place(|| {
        pair.master.kill();
        wait_for("a new master", || pair.replica.cli(&["ROLE"]).starts_with("master"));
    });
    // The replicas have found it when it has taken their calls.
    let known = block_in_place(|| calls(&pair.replica));
    block_in_place(|| wait_for("calls at the new master", || calls(&pair.replica) > known + 10));
    let end = Instant::now();
    sleep(PHASE).await;
    let samples = crowd.finish().await;
    check("failover", &samples, (begin, end));
}
