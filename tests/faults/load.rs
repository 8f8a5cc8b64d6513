//! A steady load: every replica is asked on a fixed schedule, and what became of each question is kept.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::{BufMut, Bytes, BytesMut};
use parking_lot::Mutex;
use prost::Message;
use sluicegate::bench::answer::Answer;
use sluicegate::bench::client::Client;
use sluicegate::bench::service::Service;
use sluicegate::proto::envoy::extensions::common::ratelimit::v3 as common;
use sluicegate::proto::envoy::service::ratelimit::v3 as wire;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, timeout};

/// What every caller gives as its `grpc-timeout`; Envoy's default.
const DEADLINE_MS: u32 = 20;
/// How long a caller really listens, to see how late an answer is.
const PATIENCE: Duration = Duration::from_secs(10);
/// Between two questions of one kind to one replica.
const TICK: Duration = Duration::from_millis(20);
/// Different keys of one kind.
const KEYS: u64 = 4;
/// Hits that a key may have …
pub const LIMIT: usize = 10;
/// … in any window of this length.
pub const WINDOW: Duration = Duration::from_secs(1);

/// The rules that the load is made for.
pub const RULES: &str = "
domain: chaos
descriptors:
  - key: canary
    rate_limit: {unit: hour, requests_per_unit: 1000000, on_store_error: deny}
  - key: strict
    rate_limit: {window: 1s, requests_per_unit: 10, on_store_error: deny}
  - key: local
    rate_limit: {window: 1s, requests_per_unit: 10, on_store_error: local}
";

/// Which rule a question was about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A key of its own each time, far below its limit, and `deny`: OK says that the store has decided.
    Canary,
    /// More than its limit on few keys, and `deny`: OK says that the store, or a lease of it, has admitted.
    Strict,
    /// The same and `local`: OK may come from either counter.
    Local,
}

impl Kind {
    const ALL: [Self; 3] = [Self::Canary, Self::Strict, Self::Local];

    const fn key(self) -> &'static str {
        match self {
            Self::Canary => "canary",
            Self::Strict => "strict",
            Self::Local => "local",
        }
    }
}

/// What became of a question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Got {
    /// A decision: admitted or not.
    Decision(bool),
    /// A gRPC error, or an answer that is none.
    Failed(String),
    /// It was sent and nothing came back.
    Lost,
    /// There was no connection to send it on.
    Unsent,
}

/// One question.
#[derive(Debug, Clone)]
pub struct Sample {
    pub replica: usize,
    pub kind: Kind,
    pub key: u64,
    pub sent: Instant,
    pub received: Instant,
    pub got: Got,
}

/// A load under way.
pub struct Load {
    samples: Arc<Mutex<Vec<Sample>>>,
    stop: Arc<AtomicBool>,
    tasks: JoinSet<()>,
}

impl Load {
    /// Starts to ask the servers on these ports.
    pub fn start(ports: &[u16]) -> Self {
        let (samples, stop): (Arc<Mutex<Vec<Sample>>>, Arc<AtomicBool>) = Default::default();
        let canaries = Arc::new(AtomicU64::new(0));
        let mut tasks = JoinSet::new();
        for (replica, port) in ports.iter().enumerate() {
            let caller = Caller {
                replica,
                port: *port,
                samples: Arc::clone(&samples),
                canaries: Arc::clone(&canaries),
            };
            tasks.spawn(caller.run(Arc::clone(&stop)));
        }
        Self { samples, stop, tasks }
    }

    /// The time from `since` at which each of the replicas had answered this many canaries in a row from the store.
    pub fn recovered(&self, since: Instant, replicas: &[usize], in_a_row: usize) -> Option<Duration> {
        let samples = self.samples.lock();
        let first = |replica: &usize| {
            let mut canaries = samples
                .iter()
                .filter(|s| s.replica == *replica && s.kind == Kind::Canary && s.sent >= since);
            let mut row: Vec<Instant> = Vec::new();
            canaries.find_map(|sample| {
                match sample.got {
                    Got::Decision(true) => row.push(sample.received),
                    _ => row.clear(),
                }
                (row.len() == in_a_row).then(|| row[0] - since)
            })
        };
        replicas
            .iter()
            .map(first)
            .collect::<Option<Vec<_>>>()?
            .into_iter()
            .max()
    }

    /// Ends it, waits for the last answers, and gives everything out.
    pub async fn finish(mut self) -> Vec<Sample> {
        self.stop.store(true, Ordering::Relaxed);
        while let Some(done) = self.tasks.join_next().await {
            done.expect("a caller");
        }
        std::mem::take(&mut *self.samples.lock())
    }
}

#[derive(Clone)]
struct Caller {
    replica: usize,
    port: u16,
    samples: Arc<Mutex<Vec<Sample>>>,
    canaries: Arc<AtomicU64>,
}

impl Caller {
    async fn run(self, stop: Arc<AtomicBool>) {
        let (mut ticks, mut calls, mut client) = (interval(TICK), JoinSet::new(), None);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let gone = Arc::new(AtomicBool::new(false));
        for n in 0.. {
            ticks.tick().await;
            if stop.load(Ordering::Relaxed) {
                break;
            }
            if client.is_none() || gone.swap(false, Ordering::Relaxed) {
                client = self.connect().await;
            }
            for kind in Kind::ALL {
                let key = match kind {
                    Kind::Canary => self.canaries.fetch_add(1, Ordering::Relaxed),
                    Kind::Strict | Kind::Local => n % KEYS,
                };
                calls.spawn(self.clone().ask(client.clone(), kind, key, Arc::clone(&gone)));
            }
            while calls.try_join_next().is_some() {}
        }
        calls.join_all().await;
    }

    async fn connect(&self) -> Option<Client> {
        let target = format!("http://127.0.0.1:{}", self.port).parse().expect("a target");
        let connecting = timeout(
            PATIENCE,
            Client::connect(&target, None, Service::Ratelimit, Some(DEADLINE_MS)),
        );
        let (client, driver) = connecting.await.ok()?.ok()?;
        tokio::spawn(driver);
        Some(client)
    }

    async fn ask(self, client: Option<Client>, kind: Kind, key: u64, gone: Arc<AtomicBool>) {
        let sent = Instant::now();
        let got = match client {
            None => Got::Unsent,
            Some(mut client) => match timeout(PATIENCE, client.call(frame(kind, key))).await {
                Err(_) => Got::Lost,
                Ok(Ok(Answer::Ok | Answer::Held(_))) => Got::Decision(true),
                Ok(Ok(Answer::OverLimit)) => Got::Decision(false),
                Ok(Ok(Answer::Unknown)) => Got::Failed("unknown code".into()),
                Ok(Ok(Answer::Failed(why))) => Got::Failed(why),
                Ok(Err(closed)) => {
                    gone.store(true, Ordering::Relaxed);
                    if closed.under_way { Got::Lost } else { Got::Unsent }
                }
            },
        };
        self.samples.lock().push(Sample {
            replica: self.replica,
            kind,
            key,
            sent,
            received: Instant::now(),
            got,
        });
    }
}

pub fn frame(kind: Kind, key: u64) -> Bytes {
    let entry = common::rate_limit_descriptor::Entry {
        key: kind.key().into(),
        value: key.to_string().into(),
    };
    let request = wire::RateLimitRequest {
        domain: "chaos".into(),
        descriptors: vec![common::RateLimitDescriptor {
            entries: vec![entry],
            ..Default::default()
        }],
        hits_addend: 0,
    };
    let message = request.encode_to_vec();
    let mut frame = BytesMut::with_capacity(message.len() + 5);
    frame.put_u8(0);
    frame.put_u32(u32::try_from(message.len()).expect("a small message"));
    frame.put_slice(&message);
    frame.freeze()
}

/// Hits above `limit` in some window, by brute force and without false alarm: a hit was admitted some time between
/// `sent` and `received`, so all that were sent within a window before an answer, and answered by then, lie in it.
pub fn over_admitted(samples: &[Sample], kind: Kind, limit: usize) -> usize {
    let over = |key: u64| {
        let mut admitted: Vec<&Sample> = samples
            .iter()
            .filter(|s| s.kind == kind && s.key == key && s.got == Got::Decision(true))
            .collect();
        admitted.sort_by_key(|s| s.received);
        let (mut within, mut over): (Vec<&Sample>, _) = (Vec::new(), 0);
        for sample in admitted {
            let inside = |other: &&&Sample| other.sent + WINDOW > sample.received;
            if !inside(&&sample) || within.iter().filter(inside).count() < limit {
                within.push(sample);
            } else {
                over += 1;
            }
        }
        over
    };
    (0..KEYS).map(over).sum()
}

#[test]
fn the_count_of_hits_over_a_limit_can_fail() {
    let start = Instant::now();
    let sample = |at_ms: u64| Sample {
        replica: 0,
        kind: Kind::Strict,
        key: 0,
        sent: start + Duration::from_millis(at_ms),
        received: start + Duration::from_millis(at_ms + 1),
        got: Got::Decision(true),
    };
    let even: Vec<Sample> = (0..30).map(|n| sample(n * 101)).collect();
    assert_eq!(over_admitted(&even, Kind::Strict, LIMIT), 0);
    let dense: Vec<Sample> = (0..12).map(|n| sample(n * 50)).collect();
    assert_eq!(over_admitted(&dense, Kind::Strict, LIMIT), 2);
}
