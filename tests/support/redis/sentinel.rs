//! A master, its replica and the sentinels that watch them.

use std::fs;

use tempfile::TempDir;

use super::cluster::wait_for;
use super::{Redis, cli, server};
use crate::support::certs::Volume;
use crate::support::process::{Process, free_port};

/// The master's name.
pub const MASTER: &str = "mymaster";
const SENTINELS: usize = 3;

/// A watched pair.
pub struct Sentinel {
    /// The master at the start.
    pub master: Redis,
    /// Who takes over.
    pub replica: Redis,
    sentinels: Vec<(Process, u16)>,
    /// Where the sentinels speak TLS, if they do.
    tls_ports: Vec<u16>,
    _dir: TempDir,
}

/// How a server speaks TLS, beside its plain port: as its configuration file says it.
fn tls_lines(port: u16, volume: &Volume) -> Vec<(String, String)> {
    let path = |name: &str| volume.path(name).display().to_string();
    let line = |name: &str, value: String| (name.to_owned(), value);
    vec![
        line("tls-port", port.to_string()),
        line("tls-cert-file", path("tls.crt")),
        line("tls-key-file", path("tls.key")),
        line("tls-ca-cert-file", path("ca.crt")),
        // Between each other, too: what sentinels name is the port for TLS then.
        line("tls-replication", "yes".to_owned()),
        line("tls-auth-clients", "optional".to_owned()),
    ]
}

impl Sentinel {
    /// Starts all of them and waits until they know each other. A failover takes a second or two.
    pub fn start() -> Self {
        Self::start_by(None)
    }

    /// The same with TLS everywhere; the files are those of a [`Volume`] of an identity.
    pub fn start_tls(volume: &Volume) -> Self {
        Self::start_by(Some(volume))
    }

    fn start_by(tls: Option<&Volume>) -> Self {
        let lines = || {
            tls.map(|volume| (free_port(), volume))
                .map(|(port, volume)| (port, tls_lines(port, volume)))
        };
        let arguments = |lines: &Option<(u16, Vec<(String, String)>)>| -> Vec<String> {
            let lines = lines.iter().flat_map(|(_, lines)| lines);
            lines
                .flat_map(|(name, value)| [format!("--{name}"), value.clone()])
                .collect()
        };
        let start = |lines: &_, more: &[&str]| {
            let tls = arguments(lines);
            Redis::start_with(
                &tls.iter()
                    .map(String::as_str)
                    .chain(more.iter().copied())
                    .collect::<Vec<_>>(),
            )
        };
        let (ours, theirs) = (lines(), lines());
        let master = start(&ours, &[]);
        let port = ours.as_ref().map_or(master.port, |(port, _)| *port);
        let replica = start(&theirs, &["--replicaof", "127.0.0.1", &port.to_string()]);
        wait_for("a replica in step", || {
            replica.cli(&["INFO", "replication"]).contains("master_link_status:up")
        });
        let dir = tempfile::tempdir().expect("a directory");
        let (sentinels, tls_ports): (Vec<_>, Vec<_>) = (0..SENTINELS)
            .map(|n| {
                let lines = lines();
                let started = sentinel(&dir, n, port, lines.iter().flat_map(|(_, lines)| lines));
                (started, lines.map(|(port, _)| port))
            })
            .unzip();
        let pair = Self {
            master,
            replica,
            sentinels,
            tls_ports: tls_ports.into_iter().flatten().collect(),
            _dir: dir,
        };
        wait_for("sentinels that know each other", || {
            pair.sentinels.iter().all(|(_, port)| {
                let state = cli(*port, &["SENTINEL", "MASTER", MASTER]);
                let after = |field: &str| state.lines().skip_while(|l| *l != field).nth(1).map(str::to_owned);
                after("num-other-sentinels").as_deref() == Some("2") && after("num-slaves").as_deref() == Some("1")
            })
        });
        pair
    }

    /// Lets the replica take over while the master lives; returns at once. Sentinel demotes the old master some ten
    /// seconds after the new one has begun.
    pub fn step_down(&self) {
        let ask = |(_, port): &(Process, u16)| cli(*port, &["SENTINEL", "FAILOVER", MASTER]);
        wait_for("a failover that begins", || {
            self.sentinels.last().map(ask).as_deref() == Some("OK")
        });
    }

    /// While this is true the sentinels find no quorum to let the replica take over from a dead master.
    pub fn hold_back(&self, held: bool) {
        let quorum = if held { "100" } else { "2" };
        for (_, port) in &self.sentinels {
            assert_eq!(cli(*port, &["SENTINEL", "SET", MASTER, "quorum", quorum]), "OK");
        }
    }

    /// The first one in the URL falls silent: its connections stay open and nothing comes of them.
    pub fn freeze_first(&self) {
        if let Some((process, _)) = self.sentinels.first() {
            process.signal("STOP");
        }
    }

    /// The sentinels' ports.
    pub fn ports(&self) -> impl Iterator<Item = u16> {
        self.sentinels.iter().map(|(_, port)| *port)
    }

    /// Where it is.
    pub fn url(&self) -> String {
        let at = |port: &u16| format!("127.0.0.1:{port}");
        if self.tls_ports.is_empty() {
            let hosts: Vec<_> = self.sentinels.iter().map(|(_, port)| at(port)).collect();
            return format!("redis-sentinel://{}/{MASTER}", hosts.join(","));
        }
        let hosts: Vec<_> = self.tls_ports.iter().map(at).collect();
        format!("rediss-sentinel://{}/{MASTER}", hosts.join(","))
    }
}

fn sentinel<'l>(
    dir: &TempDir,
    n: usize,
    master: u16,
    lines: impl Iterator<Item = &'l (String, String)>,
) -> (Process, u16) {
    let port = free_port();
    let file = dir.path().join(format!("sentinel{n}.conf"));
    let tls: String = lines.map(|(name, value)| format!("{name} {value}\n")).collect();
    let config = format!(
        "{tls}bind 127.0.0.1\nport {port}\nsentinel monitor {MASTER} 127.0.0.1 {master} 2\n\
         sentinel down-after-milliseconds {MASTER} 500\nsentinel failover-timeout {MASTER} 3000\n"
    );
    fs::write(&file, config).expect("the sentinel's configuration");
    let mut process = Process::spawn("sentinel", server().arg(&file).arg("--sentinel"));
    process.wait_for_port(port);
    (process, port)
}
