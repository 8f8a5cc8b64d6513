//! Envoys, servers and an upstream on virtual time.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use sluicegate::config::{Text, load};
use sluicegate::engine::{Engine, EngineOptions};
use sluicegate::model::Clock;
use sluicegate::rules::Defaults;
use sluicegate::service::rlqs::QuotaService;
use sluicegate::store::{MemoryStore, Store};
use sluicegate::telemetry::Metrics;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tokio_util::sync::CancellationToken;

use crate::envoy::{Envoy, Stream, bucket};
use crate::upstream::{STEP_US, Upstream};

/// tokio's time, which a test pauses.
struct PausedClock(Instant);

const BASE_US: u64 = 1_790_000_000_000_000;

impl Clock for PausedClock {
    fn now_us(&self) -> u64 {
        BASE_US + u64::try_from(self.0.elapsed().as_micros()).expect("short")
    }
}

/// A server process, whose counters may be shared.
pub struct Server {
    pub service: QuotaService,
    pub stop: CancellationToken,
    pub metrics: Arc<Metrics>,
    pub engine: Arc<Engine>,
}

/// All of it.
pub struct World {
    pub envoys: Vec<Envoy>,
    /// Envoys that stand still.
    pub stopped: Vec<bool>,
    pub servers: Vec<Server>,
    /// Whether Envoys can reach each of them.
    pub reachable: Vec<bool>,
    pub upstream: Upstream,
    pub clock: Arc<dyn Clock>,
    pub store: Arc<MemoryStore>,
    rules: String,
    rng: StdRng,
    step: usize,
    waiting: Vec<u32>,
    /// Requests a second that have not come to a whole one yet.
    parts: Vec<f64>,
    bucket: Vec<u8>,
}

impl World {
    /// So many Envoys in front of one server.
    pub fn new(seed: u64, rules: &str, envoys: usize) -> Self {
        let clock: Arc<dyn Clock> = Arc::new(PausedClock(Instant::now()));
        let mut rng = StdRng::seed_from_u64(seed);
        let keys = NonZeroUsize::new(1_000_000).expect("positive");
        let mut world = Self {
            envoys: (0..envoys)
                .map(|_| {
                    Envoy::new(
                        clock.now_us() + rng.random_range(0..5_000_000),
                        rng.random_range(1_000..20_000),
                    )
                })
                .collect(),
            stopped: vec![false; envoys],
            servers: Vec::new(),
            reachable: Vec::new(),
            upstream: Upstream::default(),
            store: Arc::new(MemoryStore::repeatable(keys, Arc::clone(&clock), [7; 16])),
            clock,
            rules: rules.to_owned(),
            rng,
            step: 0,
            waiting: vec![0; envoys],
            parts: vec![0.0; envoys],
            bucket: bucket("name", "all"),
        };
        world.serve(true);
        world
    }

    /// Starts another server; with the counters of the others, or with ones of its own.
    pub fn serve(&mut self, shares: bool) {
        let keys = NonZeroUsize::new(1_000_000).expect("positive");
        let store = if shares {
            Arc::clone(&self.store)
        } else {
            Arc::new(MemoryStore::repeatable(keys, Arc::clone(&self.clock), [7; 16]))
        };
        let server = server(&self.rules, store, &self.clock, shares);
        self.servers.push(server);
        self.reachable.push(true);
    }

    /// Ends a server at once, and all of its streams.
    pub fn kill(&mut self, server: usize) {
        self.reachable[server] = false;
        self.servers[server].stop.cancel();
        self.envoys.iter_mut().for_each(Envoy::disconnect);
    }

    /// Runs for so many seconds; `demand` is each Envoy's requests a second.
    pub async fn run(&mut self, seconds: u64, demand: &[f64]) {
        self.run_steps(seconds * 1_000_000 / STEP_US, demand).await;
    }

    /// The same for so many steps.
    pub async fn run_steps(&mut self, steps: u64, demand: &[f64]) {
        for _ in 0..steps {
            tokio::time::sleep(Duration::from_micros(STEP_US)).await;
            let now_us = self.clock.now_us();
            self.step += 1;
            #[allow(clippy::cast_precision_loss, reason = "small")]
            for at in 0..self.envoys.len() {
                let part = self.parts[at] + demand[at % demand.len()] * STEP_US as f64 / 1e6;
                #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "small")]
                let count = part as u32;
                self.parts[at] = part - f64::from(count);
                if self.stopped[at] {
                    self.waiting[at] = (self.waiting[at] + count).min(5_000);
                    continue;
                }
                let waited = std::mem::take(&mut self.waiting[at]);
                let thawed = self.envoys[at].thawed(&self.bucket, waited, now_us);
                let (servers, reachable, rng) = (&self.servers, &self.reachable, &mut self.rng);
                self.envoys[at].turn(now_us, || connect(servers, reachable, rng));
                let admitted = self.envoys[at].requests(&self.bucket, count, now_us);
                self.upstream.add(self.step, thawed + admitted);
            }
        }
    }

    /// Requests that Envoys have admitted and denied.
    pub fn answered(&self) -> (u64, u64) {
        let sum = |(allowed, denied), envoy: &Envoy| (allowed + envoy.allowed, denied + envoy.denied);
        self.envoys.iter().fold((0, 0), sum)
    }

    /// The present step.
    pub const fn now(&self) -> usize {
        self.step
    }

    /// Asserts the promise.
    pub fn never_over(&self, limit: u64, window_us: u64) {
        let worst = self.upstream.worst(window_us);
        assert!(worst <= limit, "{worst} requests in a window of {limit}");
    }
}

/// A server of these rules.
pub fn server(rules: &str, store: Arc<dyn Store>, clock: &Arc<dyn Clock>, shares: bool) -> Server {
    let metrics = Arc::new(Metrics::new().expect("metrics"));
    let engine = Engine::new(
        store,
        None,
        EngineOptions::default(),
        Arc::clone(clock),
        Arc::clone(&metrics),
    );
    let text = Text {
        name: "rules.yaml".into(),
        text: rules.into(),
    };
    let rules = load(&[text], &Defaults::default()).unwrap_or_else(|errors| panic!("{errors}"));
    engine.activate(Arc::new(rules), 1);
    let engine = Arc::new(engine);
    let stop = CancellationToken::new();
    let service = QuotaService::new(
        Arc::clone(&engine),
        Arc::clone(clock),
        Arc::clone(&metrics),
        (shares, stop.clone()),
    );
    Server {
        service,
        stop,
        metrics,
        engine,
    }
}

fn connect(servers: &[Server], reachable: &[bool], rng: &mut StdRng) -> Option<Stream> {
    let live: Vec<_> = servers.iter().zip(reachable).filter(|(_, is)| **is).collect();
    if live.is_empty() {
        return None;
    }
    let (server, _) = live[rng.random_range(0..live.len())];
    let (reports, receiver) = mpsc::unbounded_channel();
    let assignments = server
        .service
        .open(String::new(), UnboundedReceiverStream::new(receiver));
    Some(Stream {
        reports,
        assignments: assignments.expect("room"),
    })
}
