//! Envoys with the shipped configuration, and an upstream that notes when requests come.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::State;
use parking_lot::Mutex;
use tempfile::TempDir;
use tokio::task::JoinSet;

use crate::support::envoy::{binary, command, project_file};
use crate::support::http::Client;
use crate::support::process::{Process, free_port};
use crate::support::sluicegate::Sluicegate;

/// The window of most limits under test.
const WINDOW: Duration = Duration::from_secs(10);

/// A limit for each user.
#[derive(Debug, Clone, Copy)]
pub struct Terms {
    pub limit: u64,
    pub window: Duration,
    /// A token bucket of so many seconds of the rate, whose leases refill.
    pub refills: bool,
}

impl Terms {
    /// So many in a window of 10 s.
    pub const fn short(limit: u64) -> Self {
        Self {
            limit,
            window: WINDOW,
            refills: false,
        }
    }

    /// The shipped rules with this limit.
    pub fn rules(&self) -> String {
        let shipped = project_file("deploy/rlqs/rules.yaml");
        let (from, section) = ("requests_per_unit: 600, unit: minute", "rlqs:\n");
        assert!(
            shipped.contains(from) && shipped.contains(section),
            "the rules are others"
        );
        let to = format!("requests_per_unit: {}, window: {}s", self.limit, self.window.as_secs());
        if self.refills {
            let to = format!("{to}, algorithm: token_bucket");
            return shipped.replace(from, &to).replace(section, "rlqs:\n  refill: true\n");
        }
        shipped.replace(from, &to)
    }
}

/// Envoys, servers that share a limit out to them, and their upstream.
pub struct Scene {
    pub terms: Terms,
    pub services: Vec<Sluicegate>,
    pub envoys: Vec<QuotaEnvoy>,
    pub upstream: Recorder,
}

impl Scene {
    /// So many Envoys, and servers that share them out.
    pub async fn start(terms: Terms, envoys: usize, servers: usize, arguments: &[&str]) -> Self {
        let upstream = Recorder::start().await;
        let (envoys, services) = tokio::task::block_in_place(|| {
            let rules = terms.rules();
            let services: Vec<_> = (0..servers).map(|_| Sluicegate::start(&rules, arguments)).collect();
            let envoy = |at: usize| QuotaEnvoy::start(services[at % servers].grpc_port, upstream.port);
            ((0..envoys).map(envoy).collect(), services)
        });
        Self {
            terms,
            services,
            envoys,
            upstream,
        }
    }

    /// Kills the first server, and starts another on its port.
    pub fn kill_and_start_again(&mut self, arguments: &[&str]) {
        tokio::task::block_in_place(|| {
            let port = self.services[0].grpc_port;
            self.services[0].process.signal("KILL");
            self.services[0].process.wait_for_exit();
            let again = Sluicegate::start_again(port, &self.terms.rules(), arguments);
            self.services.push(again);
        });
    }

    /// Load on every Envoy: as much on each, or nine tenths on the first.
    pub fn load(&self, rate: u64, skewed: bool) -> Vec<Load> {
        let envoys = self.envoys.len() as u64;
        let tenth = if skewed { (rate / 10 / (envoys - 1)).max(1) } else { 0 };
        let rest = if skewed { tenth } else { rate / envoys };
        let rate_at = |at| if at == 0 { rate - rest * (envoys - 1) } else { rest };
        let ports = self.envoys.iter().map(|envoy| envoy.port);
        (0..)
            .zip(ports)
            .map(|(at, port)| Load::start(port, "anna", rate_at(at)))
            .collect()
    }

    /// The promise, and that it is not kept by denying everything.
    pub async fn ends(self, load: Vec<Load>, windows: f64, what: &str) {
        self.ends_within(Duration::ZERO, load, windows, what).await;
    }

    /// The same for windows that are so much shorter.
    pub async fn ends_within(self, shorter: Duration, load: Vec<Load>, windows: f64, what: &str) {
        let (allowed, denied) = stop(load).await;
        let (worst, count) = (
            self.upstream.worst(self.terms.window.saturating_sub(shorter)),
            self.upstream.count(),
        );
        let (limit, window) = (self.terms.limit, self.terms.window);
        #[allow(clippy::cast_precision_loss, reason = "small")]
        let share = 100.0 * count as f64 / (limit as f64 * windows);
        println!(
            "{what}: {count} requests in {windows} windows of {window:?} ({share:.0} %), at most {worst} of {limit} in one; \
             {allowed} / {denied}"
        );
        assert!(
            worst as u64 <= limit,
            "{worst} requests in {window:?}, where {limit} may be"
        );
        assert!(count as u64 >= limit / 2, "{count} requests only");
    }
}

/// Ends all load: requests that passed, and those that did not.
pub async fn stop(load: Vec<Load>) -> (u64, u64) {
    let (mut allowed, mut denied) = (0, 0);
    for load in load {
        let (more, less) = load.stop().await;
        (allowed, denied) = (allowed + more, denied + less);
    }
    (allowed, denied)
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

    fn sorted(&self) -> Vec<Instant> {
        let mut times = self.times.lock().clone();
        times.sort_unstable();
        times
    }

    /// Requests since then.
    pub fn since(&self, time: Instant) -> usize {
        self.times.lock().iter().filter(|at| **at >= time).count()
    }

    /// The least that a bucket of these terms would have had left; below 0, its promise was broken.
    #[allow(clippy::cast_precision_loss, reason = "small")]
    pub fn least(&self, terms: Terms) -> f64 {
        let burst = terms.limit as f64;
        let per_second = burst / terms.window.as_secs_f64();
        let (mut left, mut least, mut before) = (burst, burst, None::<Instant>);
        for time in self.sorted() {
            let passed = before.map_or(Duration::ZERO, |before| time - before);
            left = (left + per_second * passed.as_secs_f64()).min(burst) - 1.0;
            (least, before) = (least.min(left), Some(time));
        }
        least
    }

    /// The most requests in any window of this length.
    pub fn worst(&self, window: Duration) -> usize {
        let times = self.sorted();
        let mut first = 0;
        let mut worst = 0;
        for (at, time) in times.iter().enumerate() {
            while *time - times[first] >= window {
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
    file: PathBuf,
    _dir: TempDir,
}

impl QuotaEnvoy {
    /// The shipped configuration, in front of `upstream`, with its quotas from `service`.
    pub fn start(service: u16, upstream: u16) -> Self {
        Self::run(service, upstream, |file| {
            let mut command = command(file, 2);
            command.args(["--log-level", "warning"]);
            command
        })
    }

    /// One that another may take the place of: see [`Self::restarted`].
    pub fn start_restartable(service: u16, upstream: u16, base: u32) -> Self {
        Self::run(service, upstream, |file| restartable(file, base, 0))
    }

    fn run(service: u16, upstream: u16, command: impl Fn(&Path) -> Command) -> Self {
        let (file, [port, admin], dir) = Self::configure(service, upstream);
        let mut process = Process::spawn("envoy", &mut command(&file));
        process.wait_for_port(port);
        process.wait_for_port(admin);
        Self {
            process,
            port,
            file,
            _dir: dir,
        }
    }

    /// A new process that takes over its listeners, while this one lives for some seconds more.
    pub fn restarted(&self, base: u32) -> Process {
        let mut process = Process::spawn("envoy", &mut restartable(&self.file, base, 1));
        process.wait_until("taking over", |process| {
            process.log().contains("starting main dispatch loop")
        });
        process
    }

    /// The shipped configuration in a file of its own, and its ports.
    fn configure(service: u16, upstream: u16) -> (PathBuf, [u16; 2], TempDir) {
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
        (file, [port, admin], dir)
    }
}

/// An Envoy of a family of processes that take over from each other.
fn restartable(file: &Path, base: u32, epoch: u32) -> Command {
    let mut command = Command::new(binary());
    command
        .arg("-c")
        .arg(file)
        .args(["--log-level", "info", "--concurrency", "2"]);
    command.args(["--base-id", &base.to_string(), "--restart-epoch", &epoch.to_string()]);
    command.args(["--drain-time-s", "6", "--parent-shutdown-time-s", "12"]);
    command
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
