//! A Redis of the test's own: a free port, nothing kept on disk unless asked for, killed on drop.

pub mod cluster;
pub mod sentinel;

use std::fs;
use std::process::Command;

use tempfile::TempDir;

use super::process::{Process, free_port};

/// A running `redis-server`.
pub struct Redis {
    /// The server.
    pub process: Process,
    /// Its port on loopback.
    pub port: u16,
    arguments: Vec<String>,
    /// Its working directory; it stays over a restart.
    _dir: TempDir,
}

impl Redis {
    /// Starts one and waits until it answers.
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// The same with more arguments, as on `redis-server`'s command line.
    pub fn start_with(arguments: &[&str]) -> Self {
        Self::start_on(free_port(), arguments)
    }

    /// The same on this port (0 = none).
    pub fn start_on(port: u16, arguments: &[&str]) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().display().to_string();
        let own = ["--dir", &path];
        let arguments: Vec<String> = own
            .iter()
            .chain(arguments)
            .map(|&argument| argument.to_owned())
            .collect();
        Self {
            process: spawn(port, &arguments),
            port,
            arguments,
            _dir: dir,
        }
    }

    /// Kills it without warning (SIGKILL) and waits for its end.
    pub fn kill(&mut self) {
        self.process.signal("KILL");
        self.process.wait_for_exit();
    }

    /// Starts it again, on the same port with the same arguments.
    pub fn restart(&mut self) {
        self.process = spawn(self.port, &self.arguments);
    }

    /// The same with more arguments, for this time.
    pub fn restart_with(&mut self, arguments: &[&str]) {
        let more = arguments.iter().map(|&argument| argument.to_owned());
        self.process = spawn(
            self.port,
            &self.arguments.iter().cloned().chain(more).collect::<Vec<_>>(),
        );
    }

    /// Lets its next snapshot fail, so that it takes no more writes (MISCONF) until `CONFIG SET save ""`. It must have
    /// been started with `--enable-protected-configs yes`.
    pub fn break_snapshots(&self) -> TempDir {
        let dir = tempfile::tempdir().expect("a directory");
        // A snapshot cannot take the place of a directory that is not empty.
        fs::create_dir_all(dir.path().join("dump.rdb/in-the-way")).expect("a directory");
        for setting in [["dir", &dir.path().display().to_string()], ["save", "3600 1"]] {
            let ok = self.cli(&[&["CONFIG", "SET"], setting.as_slice()].concat());
            assert_eq!(ok, "OK");
        }
        self.cli(&["BGSAVE"]);
        cluster::wait_for("snapshot that failed", || {
            self.cli(&["INFO", "persistence"])
                .contains("rdb_last_bgsave_status:err")
        });
        dir
    }

    /// Where it is.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Runs a command through `redis-cli` and returns what it prints.
    pub fn cli(&self, arguments: &[&str]) -> String {
        cli(self.port, arguments)
    }
}

/// The server to test with: `REDIS_SERVER` (`make stores` runs several), else the system's.
pub fn server() -> Command {
    Command::new(std::env::var_os("REDIS_SERVER").unwrap_or_else(|| "redis-server".into()))
}

/// Runs a command on the server of this port through `redis-cli` and returns what it prints.
pub fn cli(port: u16, arguments: &[&str]) -> String {
    let output = Command::new("redis-cli")
        .args(["-p", &port.to_string()])
        .args(arguments)
        .output()
        .expect("redis-cli");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

fn spawn(port: u16, arguments: &[String]) -> Process {
    let mut command = server();
    command
        .args(["--bind", "127.0.0.1", "--port", &port.to_string()])
        .args(["--save", "", "--appendonly", "no", "--daemonize", "no"])
        .args(arguments);
    let mut process = Process::spawn("redis", &mut command);
    process.wait_until("ready to accept connections", |redis| {
        redis.log().contains("eady to accept connections")
    });
    process
}
