//! Processes under test: started with a log of their own, waited for, killed on drop.

use std::{
    fs,
    net::{Ipv4Addr, TcpListener, TcpStream},
    process::{Child, Command, ExitStatus, Stdio},
    sync::atomic::{AtomicU16, Ordering},
    thread,
    time::{Duration, Instant},
};

use tempfile::TempDir;

/// Longest wait for a process to become ready or to end. Generous: it is only ever reached on failure.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// Between two looks.
pub const POLL: Duration = Duration::from_millis(20);

/// A running process; dropping it kills it.
pub struct Process {
    name: String,
    child: Child,
    dir: TempDir,
}

impl Process {
    /// Starts a command; what it prints (both streams) goes to its log.
    pub fn spawn(name: &str, command: &mut Command) -> Self {
        let dir = tempfile::Builder::new()
            .prefix(&format!("sluicegate-test-{name}-"))
            .tempdir()
            .expect("a temporary directory");
        let log = fs::File::create(dir.path().join("log")).expect("a log file");
        let errors = log.try_clone().expect("a second handle of the log");
        let child = command
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(errors)
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {name} ({command:?}): {error}"));
        Self {
            name: name.to_owned(),
            child,
            dir,
        }
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// All that it has printed so far.
    pub fn log(&self) -> String {
        let bytes = fs::read(self.dir.path().join("log")).expect("the log");
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Sends a signal by name: `STOP`, `CONT`, `TERM`, `KILL`, …
    pub fn signal(&self, signal: &str) {
        let status = Command::new("kill")
            .args([&format!("-{signal}"), &self.id().to_string()])
            .status()
            .expect("kill(1)");
        assert!(status.success(), "cannot send {signal} to {}", self.name);
        if signal == "STOP" {
            // Its threads may run on until the scheduler comes to them.
            while !self.is_stopped() {
                thread::sleep(Duration::from_millis(1));
            }
        }
    }

    /// Whether all of its threads are stopped, as `/proc` says.
    fn is_stopped(&self) -> bool {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.id())).expect("its threads");
        tasks.flatten().all(|task| {
            let stat = fs::read_to_string(task.path().join("stat")).unwrap_or_default();
            // The name stands in brackets and may hold anything, the state follows it.
            stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with('T'))
        })
    }

    /// Waits until `ready`; panics with the log when the process ends first or never gets there.
    pub fn wait_until(&mut self, what: &str, mut ready: impl FnMut(&Self) -> bool) {
        let start = Instant::now();
        while !ready(self) {
            if let Some(status) = self.child.try_wait().expect("the process's state") {
                panic!("{} ended ({status}) before {what}:\n{}", self.name, self.log());
            }
            assert!(
                start.elapsed() < PATIENCE,
                "{}: not {what} after {PATIENCE:?}:\n{}",
                self.name,
                self.log()
            );
            thread::sleep(POLL);
        }
    }

    /// Waits until it accepts TCP connections on this port of loopback.
    pub fn wait_for_port(&mut self, port: u16) {
        self.wait_until(&format!("listening on port {port}"), |_| listens(port));
    }

    /// Waits for its end.
    pub fn wait_for_exit(&mut self) -> ExitStatus {
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("the process's state") {
                return status;
            }
            assert!(
                start.elapsed() < PATIENCE,
                "{} still runs after {PATIENCE:?}:\n{}",
                self.name,
                self.log()
            );
            thread::sleep(POLL);
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail only when it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            eprintln!("--- log of {} ---\n{}", self.name, self.log());
        }
    }
}

/// Whether something accepts TCP connections on this port of loopback.
pub fn listens(port: u16) -> bool {
    TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok()
}

/// A TCP port of loopback that nobody listens on.
///
/// Ports are taken from below the ephemeral range, where outgoing connections cannot snatch them between the look
/// and the use; each test process starts in a place of its own.
pub fn free_port() -> u16 {
    const FIRST: u16 = 12_000;
    const SPAN: u16 = 20_000;
    static TAKEN: AtomicU16 = AtomicU16::new(0);
    let start = std::process::id() % 400 * 50;
    for _ in 0..SPAN {
        let offset = (start + u32::from(TAKEN.fetch_add(1, Ordering::Relaxed))) % u32::from(SPAN);
        let port = FIRST + u16::try_from(offset).expect("less than the span");
        if TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).is_ok() {
            return port;
        }
    }
    panic!("no free port");
}
