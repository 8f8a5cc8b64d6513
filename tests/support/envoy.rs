//! A real Envoy, started from the project's `envoy.yaml` with its ports replaced.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Instant,
};

use tempfile::TempDir;

use super::{
    http::Client,
    process::{PATIENCE, POLL, Process, free_port},
};

/// The ports that `envoy.yaml` names.
const FRONT: &str = "port_value: 10000";
const UPSTREAM: &str = "port_value: 10001";
const AUTHZ: &str = "port_value: 10002";
const ADMIN: &str = "port_value: 9901";
const SERVICE: &str = "port_value: 8081";

/// Envoy waits for a busy service rather than let a request pass: for tests that count.
pub const PATIENT: (&str, &str) = (" timeout: 0.2s", " timeout: 20s");
/// Envoy's own default timeout, 20 ms.
pub const DEFAULT_TIMEOUT: (&str, &str) = (" timeout: 0.2s", "");
/// Envoy answers 503 by ext_authz when the service does not answer.
pub const AUTHZ_FAILURE_DENIES: (&str, &str) = ("failure_mode_allow: true", "failure_mode_allow: false");
/// Envoy answers 500 when the service does not answer.
pub const FAILURE_DENIES: (&str, &str) = ("failure_mode_deny: false", "failure_mode_deny: true");

/// A running Envoy.
pub struct Envoy {
    /// The proxy; its access log is in the process's log.
    pub process: Process,
    /// Where clients knock.
    pub front_port: u16,
    /// The door with ext_authz.
    pub authz_port: u16,
    admin_port: u16,
    _dir: TempDir,
}

impl Envoy {
    /// Starts Envoy in front of the service on this port, with further `(from, to)` changes of `envoy.yaml`.
    pub fn start(service_port: u16, changes: &[(&str, &str)]) -> Self {
        Self::start_from(&project_file("envoy.yaml"), service_port, changes)
    }

    /// The same with another configuration that names the same ports.
    pub fn start_from(config: &str, service_port: u16, changes: &[(&str, &str)]) -> Self {
        let [front_port, authz_port, upstream_port, admin_port] = std::array::from_fn(|_| free_port());
        let mut config = config.to_owned();
        for (from, port) in [
            (AUTHZ, authz_port),
            (FRONT, front_port),
            (UPSTREAM, upstream_port),
            (ADMIN, admin_port),
            (SERVICE, service_port),
        ] {
            config = replaced(&config, from, &format!("port_value: {port}"));
        }
        for (from, to) in changes {
            config = replaced(&config, from, to);
        }
        let dir = tempfile::tempdir().expect("a temporary directory");
        let file = dir.path().join("envoy.yaml");
        fs::write(&file, config).expect("Envoy's configuration");
        let mut command = command(&file, 1);
        command
            .args(["--log-level", "warning"])
            // So that the test can read the access log at once.
            .args(["--file-flush-interval-msec", "10"]);
        let mut process = Process::spawn("envoy", &mut command);
        for port in [front_port, authz_port, upstream_port, admin_port] {
            process.wait_for_port(port);
        }
        Self {
            process,
            front_port,
            authz_port,
            admin_port,
            _dir: dir,
        }
    }

    /// A client of its front door.
    pub fn client(&self) -> Client {
        Client::new(self.front_port)
    }

    /// A client of its door with ext_authz.
    pub fn authz_client(&self) -> Client {
        Client::new(self.authz_port)
    }

    /// Waits until one of Envoy's statistics has this value; they may lag behind the answers that they count.
    pub async fn wait_for_stat(&self, name: &str, value: u64) {
        let admin = Client::new(self.admin_port);
        let line = format!("{name}: {value}");
        let start = Instant::now();
        loop {
            let stats = admin.get(&format!("/stats?filter={name}"), &[]).await.body;
            if stats.lines().any(|found| found == line) {
                return;
            }
            assert!(
                start.elapsed() < PATIENCE,
                "no `{line}` in Envoy's statistics:\n{stats}"
            );
            tokio::time::sleep(POLL).await;
        }
    }

    /// Waits until the access log has a line with all of these texts, and returns it.
    pub fn wait_for_access(&mut self, texts: &[&str]) -> String {
        let found = |log: &str| {
            log.lines()
                .find(|line| texts.iter().all(|text| line.contains(text)))
                .map(str::to_owned)
        };
        let mut line = None;
        self.process
            .wait_until(&format!("an access log line with {texts:?}"), |envoy| {
                line = found(&envoy.log());
                line.is_some()
            });
        line.expect("was just found")
    }
}

/// How any Envoy is started from a file, with so many workers.
pub fn command(file: &Path, concurrency: u32) -> Command {
    let mut command = Command::new(binary());
    command.arg("-c").arg(file).arg("--use-dynamic-base-id");
    command.args(["--concurrency", &concurrency.to_string()]);
    command
}

/// A change of `envoy.yaml` that adds a cluster with one endpoint on loopback.
pub fn with_cluster(name: &str, port: u16) -> String {
    format!(
        "  clusters:
    - name: {name}
      type: STATIC
      load_assignment:
        cluster_name: {name}
        endpoints:
          - lb_endpoints:
              - endpoint: {{ address: {{ socket_address: {{ address: 127.0.0.1, port_value: {port} }} }} }}
"
    )
}

/// The Envoy to test with: `ENVOY_BIN`, else the one that `make setup` installs.
pub fn binary() -> PathBuf {
    let path = std::env::var_os("ENVOY_BIN").map_or_else(|| project_path(".venv/bin/envoy"), PathBuf::from);
    assert!(
        path.exists(),
        "no Envoy at {}: run `make setup`, or set ENVOY_BIN",
        path.display()
    );
    path
}

/// A path inside the project.
pub fn project_path(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// The text of a file of the project.
pub fn project_file(path: &str) -> String {
    fs::read_to_string(project_path(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn replaced(config: &str, from: &str, to: &str) -> String {
    assert!(config.contains(from), "envoy.yaml no longer has `{from}`");
    config.replace(from, to)
}
