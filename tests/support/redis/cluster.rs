//! A Redis Cluster of the test's own.

use std::thread;
use std::time::{Duration, Instant};

use super::Redis;
use crate::support::process::{PATIENCE, free_port};

/// Hash slots of any cluster.
const SLOTS: usize = 16_384;

/// Masters that share the slots evenly, and replicas of them.
pub struct Cluster {
    /// The masters, in the order of their slots.
    pub masters: Vec<Redis>,
    /// One for each master, if there are any.
    pub replicas: Vec<Redis>,
}

impl Cluster {
    /// Starts a cluster and waits until all of its nodes say that it is whole.
    pub fn start(masters: usize, with_replicas: bool) -> Self {
        let node = || {
            let bus = free_port().to_string();
            Redis::start_with(&[
                "--cluster-enabled",
                "yes",
                "--cluster-port",
                &bus,
                "--cluster-node-timeout",
                "1000",
                // Else all masters refuse while one is away.
                "--cluster-require-full-coverage",
                "no",
            ])
        };
        let masters: Vec<Redis> = (0..masters).map(|_| node()).collect();
        let replicas = (0..if with_replicas { masters.len() } else { 0 })
            .map(|_| node())
            .collect();
        let cluster = Self { masters, replicas };
        cluster.join();
        cluster
    }

    fn join(&self) {
        let share = SLOTS.div_ceil(self.masters.len());
        for (n, master) in self.masters.iter().enumerate() {
            let last = ((n + 1) * share - 1).min(SLOTS - 1);
            let ok = master.cli(&["CLUSTER", "ADDSLOTSRANGE", &(n * share).to_string(), &last.to_string()]);
            assert_eq!(ok, "OK");
        }
        let first = &self.masters[0];
        for node in self.nodes().skip(1) {
            let bus = node.cli(&["CONFIG", "GET", "cluster-port"]);
            let bus = bus.lines().last().expect("a port");
            let ok = first.cli(&["CLUSTER", "MEET", "127.0.0.1", &node.port.to_string(), bus]);
            assert_eq!(ok, "OK");
        }
        for (replica, master) in self.replicas.iter().zip(&self.masters) {
            let id = master.cli(&["CLUSTER", "MYID"]);
            wait_for("a replica that knows its master", || {
                replica.cli(&["CLUSTER", "REPLICATE", &id]) == "OK"
            });
        }
        let known = format!("cluster_known_nodes:{}", self.nodes().count());
        wait_for("a whole cluster", || {
            self.nodes().all(|node| {
                let info = node.cli(&["CLUSTER", "INFO"]);
                info.contains("cluster_state:ok") && info.contains(&known)
            })
        });
        for replica in &self.replicas {
            wait_for("a replica in step", || {
                replica.cli(&["INFO", "replication"]).contains("master_link_status:up")
            });
        }
    }

    /// All nodes, masters first.
    pub fn nodes(&self) -> impl Iterator<Item = &Redis> {
        self.masters.iter().chain(&self.replicas)
    }

    /// Where it is.
    pub fn url(&self) -> String {
        let hosts: Vec<_> = self.masters.iter().map(|m| format!("127.0.0.1:{}", m.port)).collect();
        format!("redis-cluster://{}", hosts.join(","))
    }
}

/// Polls until it is true; panics when it never is.
pub fn wait_for(what: &str, mut ready: impl FnMut() -> bool) {
    let start = Instant::now();
    while !ready() {
        assert!(start.elapsed() < PATIENCE, "no {what} after {PATIENCE:?}");
        thread::sleep(Duration::from_millis(20));
    }
}
