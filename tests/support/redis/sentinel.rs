//! A master, its replica and the sentinels that watch them.

use std::fs;

use tempfile::TempDir;

use super::cluster::wait_for;
use super::{Redis, cli, server};
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
    _dir: TempDir,
}

impl Sentinel {
    /// Starts all of them and waits until they know each other. A failover takes a second or two.
    pub fn start() -> Self {
        let master = Redis::start();
        let replica = Redis::start_with(&["--replicaof", "127.0.0.1", &master.port.to_string()]);
        wait_for("a replica in step", || {
            replica.cli(&["INFO", "replication"]).contains("master_link_status:up")
        });
        let dir = tempfile::tempdir().expect("a directory");
        let sentinels = (0..SENTINELS).map(|n| sentinel(&dir, n, master.port)).collect();
        let pair = Self {
            master,
            replica,
            sentinels,
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
        let hosts: Vec<_> = self
            .sentinels
            .iter()
            .map(|(_, port)| format!("127.0.0.1:{port}"))
            .collect();
        format!("redis-sentinel://{}/{MASTER}", hosts.join(","))
    }
}

fn sentinel(dir: &TempDir, n: usize, master: u16) -> (Process, u16) {
    let port = free_port();
    let file = dir.path().join(format!("sentinel{n}.conf"));
    let config = format!(
        "bind 127.0.0.1\nport {port}\nsentinel monitor {MASTER} 127.0.0.1 {master} 2\n\
         sentinel down-after-milliseconds {MASTER} 500\nsentinel failover-timeout {MASTER} 3000\n"
    );
    fs::write(&file, config).expect("the sentinel's configuration");
    let mut process = Process::spawn("sentinel", server().arg(&file).arg("--sentinel"));
    process.wait_for_port(port);
    (process, port)
}
