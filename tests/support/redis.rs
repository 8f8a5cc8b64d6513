//! A Redis of the test's own: a free port, nothing kept on disk, killed on drop.

use std::process::Command;

use super::process::{Process, free_port};

/// A running `redis-server`.
pub struct Redis {
    /// The server.
    pub process: Process,
    /// Its port on loopback.
    pub port: u16,
}

impl Redis {
    /// Starts one and waits until it answers.
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// The same with more arguments, as on `redis-server`'s command line.
    pub fn start_with(arguments: &[&str]) -> Self {
        let port = free_port();
        let mut command = Command::new("redis-server");
        command
            .args(["--bind", "127.0.0.1", "--port", &port.to_string()])
            .args(["--save", "", "--appendonly", "no", "--daemonize", "no"])
            .args(arguments);
        let mut process = Process::spawn("redis", &mut command);
        process.wait_until("ready to accept connections", |redis| {
            redis.log().contains("eady to accept connections")
        });
        Self { process, port }
    }

    /// Where it is.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Runs a command through `redis-cli` and returns what it prints.
    pub fn cli(&self, arguments: &[&str]) -> String {
        let output = Command::new("redis-cli")
            .args(["-p", &self.port.to_string()])
            .args(arguments)
            .output()
            .expect("redis-cli");
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }
}
