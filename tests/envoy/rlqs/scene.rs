//! Envoys with the shipped configuration, and an upstream that notes when requests come.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::State;
use parking_lot::Mutex;
use tempfile::TempDir;
use tokio::task::JoinSet;

use crate::support::envoy::{command, project_file};
use crate::support::http::Client;
use crate::support::process::{Process, free_port};

/// The window of the limits under test.
pub const WINDOW: Duration = Duration::from_secs(10);

/// Rules of one limit for each user.
pub fn rules(limit: u64) -> String {
    let shipped = project_file("deploy/rlqs/rules.yaml");
    let from = "requests_per_unit: 600, unit: minute";
    assert!(shipped.contains(from), "the rules have another limit");
    shipped.replace(
        from,
        &format!("requests_per_unit: {limit}, window: {}s", WINDOW.as_secs()),
    )
}

/// An upstream that notes when each request comes.
pub struct Recorder {
    pub port: u16,
    times: Arc<Mutex<Vec<Instant>>>,
}

impl Recorder {
    pub async fn start() -> Self {
        let times = Arc::<Mutex<Vec<Instant>>>::default();
        let note = async |State(times): State<Arc<Mutex<Vec<Instant>>>>| times.lock().push(Instant::now());
        let router = Router::new().fallback(note).with_state(Arc::clone(&times));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("its address").port();
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { port, times }
    }

    pub fn count(&self) -> usize {
        self.times.lock().len()
    }

    /// The most requests in any window that is so much shorter than that of the limit.
    pub fn worst(&self, shorter: Duration) -> usize {
        let mut times = self.times.lock().clone();
        times.sort_unstable();
        let mut first = 0;
        let mut worst = 0;
        for (at, time) in times.iter().enumerate() {
            while *time - times[first] >= WINDOW - shorter {
                first += 1;
            }
            worst = worst.max(at + 1 - first);
        }
        worst
    }
}

/// A running Envoy.
pub struct QuotaEnvoy {
    pub process: Process,
    pub port: u16,
    _dir: TempDir,
}

impl QuotaEnvoy {
    /// The shipped configuration, in front of `upstream`, with its quotas from `service`.
    pub fn start(service: u16, upstream: u16) -> Self {
        let [port, admin, spare] = std::array::from_fn(|_| free_port());
        let config = project_file("deploy/rlqs/envoy.yaml");
        let (listeners, clusters) = config.split_once("  clusters:\n").expect("clusters");
        let listeners = listeners
            .replace("port_value: 10003", &format!("port_value: {port}"))
            .replace("port_value: 9903", &format!("port_value: {admin}"))
            .replace("port_value: 10004", &format!("port_value: {spare}"));
        let clusters = clusters
            .replace("port_value: 10004", &format!("port_value: {upstream}"))
            .replace("port_value: 8081", &format!("port_value: {service}"));
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("envoy.yaml");
        fs::write(&file, format!("{listeners}  clusters:\n{clusters}")).expect("a file");
        let mut command = command(&file, 2);
        let mut process = Process::spawn("envoy", command.args(["--log-level", "warning"]));
        process.wait_for_port(port);
        process.wait_for_port(admin);
        Self {
            process,
            port,
            _dir: dir,
        }
    }
}

/// Requests that are sent all the time.
pub struct Load {
    stop: Arc<AtomicBool>,
    tasks: JoinSet<()>,
    pub allowed: Arc<AtomicU64>,
    pub denied: Arc<AtomicU64>,
}

impl Load {
    /// Sends `rate` requests a second to a port of an Envoy.
    pub fn start(port: u16, user: &'static str, rate: u64) -> Self {
        let (allowed, denied) = (Arc::<AtomicU64>::default(), Arc::<AtomicU64>::default());
        let stop = Arc::<AtomicBool>::default();
        let mut tasks = JoinSet::new();
        let client = Client::new(port);
        let (ended, ok, no) = (Arc::clone(&stop), Arc::clone(&allowed), Arc::clone(&denied));
        tasks.spawn(async move {
            let mut ticks = tokio::time::interval(Duration::from_micros(1_000_000 / rate));
            let mut under_way = JoinSet::new();
            while !ended.load(SeqCst) {
                ticks.tick().await;
                let (client, ok, no) = (client.clone(), Arc::clone(&ok), Arc::clone(&no));
                // A stopped Envoy keeps those that have been sent.
                if under_way.len() < 500 {
                    under_way.spawn(async move {
                        let answer = client.get("/", &[("x-user", user)]).await;
                        match answer.status.as_u16() {
                            200 => ok.fetch_add(1, SeqCst),
                            429 => no.fetch_add(1, SeqCst),
                            other => panic!("{other}: {}", answer.body),
                        };
                    });
                }
                while let Some(done) = under_way.try_join_next() {
                    done.expect("answered");
                }
            }
            while let Some(done) = under_way.join_next().await {
                done.expect("answered");
            }
        });
        Self {
            stop,
            tasks,
            allowed,
            denied,
        }
    }

    /// Waits for what is under way.
    pub async fn stop(mut self) -> (u64, u64) {
        self.stop.store(true, SeqCst);
        while let Some(done) = self.tasks.join_next().await {
            done.expect("the load");
        }
        (self.allowed.load(SeqCst), self.denied.load(SeqCst))
    }
}

/// Lets time pass: what is under test takes its own.
pub async fn pass(seconds: u64) {
    tokio::time::sleep(Duration::from_secs(seconds)).await;
}
