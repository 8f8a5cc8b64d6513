//! The real binary, started as envoyproxy/ratelimit is: called `ratelimit`, no arguments, everything in variables.

use std::{collections::BTreeMap, os::unix::fs::symlink, process::Command};

use tempfile::TempDir;

use super::{
    http::Client,
    process::{Process, free_port},
};

/// A running `ratelimit`.
pub struct Ratelimit {
    /// The process.
    pub process: Process,
    /// `GRPC_PORT`
    pub grpc_port: u16,
    /// `PORT`
    pub http_port: u16,
    /// `DEBUG_PORT`
    pub debug_port: u16,
    _dir: TempDir,
}

impl Ratelimit {
    /// Starts it with these variables and no others (but for its ports), and waits until it listens.
    pub fn start(variables: &[(&str, &str)]) -> Self {
        let [grpc_port, http_port, debug_port] = std::array::from_fn(|_| free_port());
        let mut all: BTreeMap<String, String> = [("GRPC", grpc_port), ("DEBUG", debug_port)]
            .iter()
            .flat_map(|(name, port)| {
                [
                    (format!("{name}_HOST"), "127.0.0.1".to_owned()),
                    (format!("{name}_PORT"), port.to_string()),
                ]
            })
            .collect();
        all.insert("HOST".into(), "127.0.0.1".into());
        all.insert("PORT".into(), http_port.to_string());
        all.extend(
            variables
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned())),
        );
        let (mut command, dir) = command();
        let mut process = Process::spawn("ratelimit", command.envs(all));
        let on_socket = variables.iter().any(|(name, _)| *name == "GRPC_UDS");
        let ports = [http_port, debug_port, grpc_port];
        for port in &ports[..if on_socket { 2 } else { 3 }] {
            process.wait_for_port(*port);
        }
        Self {
            process,
            grpc_port,
            http_port,
            debug_port,
            _dir: dir,
        }
    }

    /// Waits until it is connected to so many Redis servers. It serves before; without Redis, then. Needs
    /// `LOG_LEVEL=info`.
    pub fn wait_for_redis(&mut self, servers: usize) {
        self.process.wait_until("connected to Redis", |process| {
            process.log().matches("connected to Redis").count() >= servers
        });
    }

    /// A client of `/healthcheck` and `/json`.
    pub fn http(&self) -> Client {
        Client::new(self.http_port)
    }

    /// A client of `/metrics`, `/rlconfig`, `/stats`.
    pub fn debug(&self) -> Client {
        Client::new(self.debug_port)
    }
}

/// `ratelimit` without arguments and without variables, and the directory that holds it.
pub fn command() -> (Command, TempDir) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let link = dir.path().join("ratelimit");
    symlink(env!("CARGO_BIN_EXE_sluicegate"), &link).expect("a link");
    let mut command = Command::new(link);
    command.env_clear();
    (command, dir)
}
