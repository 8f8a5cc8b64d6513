//! The real binary, serving on free ports.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use tempfile::TempDir;

use super::clock::SteppedClock;
use super::process::{Process, free_port};

/// Runs the binary in a directory until it ends.
pub fn run(directory: &Path, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_sluicegate"))
        .args(args)
        .current_dir(directory)
        .output()
        .expect("the binary starts")
}

/// A running `sluicegate serve`.
pub struct Sluicegate {
    /// The server.
    pub process: Process,
    /// gRPC.
    pub grpc_port: u16,
    /// HTTP: `/healthcheck`, `/json`.
    pub http_port: u16,
    /// HTTP: `/metrics`, `/rlconfig`.
    pub admin_port: u16,
    /// The rules file; may be rewritten.
    pub rules: PathBuf,
    _dir: TempDir,
}

impl Sluicegate {
    /// Starts the binary with these rules (YAML) and more arguments, and waits until it serves.
    pub fn start(rules: &str, arguments: &[&str]) -> Self {
        Self::start_by(Command::new(env!("CARGO_BIN_EXE_sluicegate")), rules, arguments)
    }

    /// The same with a log that takes nothing: every write to it fails as on a full disk.
    pub fn start_with_full_log(rules: &str, arguments: &[&str]) -> Self {
        let mut shell = Command::new("sh");
        shell.args([
            "-c",
            r#"exec "$0" "$@" 2>/dev/full >/dev/full"#,
            env!("CARGO_BIN_EXE_sluicegate"),
        ]);
        Self::start_by(shell, rules, arguments)
    }

    /// The same with this FIFO as its log; the process holds both ends, so that nobody needs to read it.
    pub fn start_with_log_in(fifo: &Path, rules: &str, arguments: &[&str]) -> Self {
        let mut shell = Command::new("sh");
        shell.env("FIFO", fifo).args([
            "-c",
            r#"exec 3<>"$FIFO" && exec "$0" "$@" 2>&3 >&3"#,
            env!("CARGO_BIN_EXE_sluicegate"),
        ]);
        Self::start_by(shell, rules, arguments)
    }

    /// The same under a clock that can be stepped.
    pub fn start_under(clock: &SteppedClock, rules: &str, arguments: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sluicegate"));
        clock.rule(&mut command);
        Self::start_by(command, rules, arguments)
    }

    /// The same in a process whose limit of open files was set so: `-n 256`, or `-Sn 256` for the soft limit alone.
    pub fn start_with_files(limit: &str, rules: &str, arguments: &[&str]) -> Self {
        let mut shell = Command::new("sh");
        shell.args([
            "-c",
            &format!(r#"ulimit {limit} && exec "$0" "$@""#),
            env!("CARGO_BIN_EXE_sluicegate"),
        ]);
        Self::start_by(shell, rules, arguments)
    }

    fn start_by(command: Command, rules: &str, arguments: &[&str]) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let file = dir.path().join("rules.yaml");
        fs::write(&file, rules).expect("the rules file");
        Self::start_on(command, (file, dir), std::array::from_fn(|_| free_port()), arguments)
    }

    /// Starts the binary again on the gRPC port of one that has ended.
    pub fn start_again(grpc_port: u16, rules: &str, arguments: &[&str]) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let file = dir.path().join("rules.yaml");
        fs::write(&file, rules).expect("the rules file");
        let command = Command::new(env!("CARGO_BIN_EXE_sluicegate"));
        Self::start_on(command, (file, dir), [grpc_port, free_port(), free_port()], arguments)
    }

    fn start_on(mut command: Command, (file, dir): (PathBuf, TempDir), ports: [u16; 3], arguments: &[&str]) -> Self {
        let [grpc_port, http_port, admin_port] = ports;
        command.arg("serve").arg("--rules").arg(&file);
        for (flag, port) in [
            ("--grpc-addr", grpc_port),
            ("--http-addr", http_port),
            ("--admin-addr", admin_port),
        ] {
            command.arg(flag).arg(format!("127.0.0.1:{port}"));
        }
        command.args(arguments);
        let mut process = Process::spawn("sluicegate", &mut command);
        for port in [grpc_port, http_port, admin_port] {
            process.wait_for_port(port);
        }
        Self {
            process,
            grpc_port,
            http_port,
            admin_port,
            rules: file,
            _dir: dir,
        }
    }
}
