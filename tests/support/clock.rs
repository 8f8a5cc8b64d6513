//! A wall clock that a test steps while the process under it runs: Debian's libfaketime. The monotonic clock is left
//! alone, as it is when an administrator or NTP steps a machine's clock.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use tempfile::TempDir;

/// Where Debian, and a build from source, put it.
const PLACES: [&str; 4] = [
    "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1",
    "/usr/lib/aarch64-linux-gnu/faketime/libfaketimeMT.so.1",
    "/usr/lib/faketime/libfaketimeMT.so.1",
    "/usr/local/lib/faketime/libfaketimeMT.so.1",
];

/// The clock of one process.
pub struct SteppedClock {
    dir: TempDir,
}

impl SteppedClock {
    /// One that is right.
    pub fn new() -> Self {
        let clock = Self {
            dir: tempfile::tempdir().expect("a directory"),
        };
        clock.step_to(0);
        clock
    }

    /// Makes it differ from the real one by so many seconds, from now on.
    pub fn step_to(&self, seconds: i64) {
        // Never half a file.
        let next = self.dir.path().join("next");
        fs::write(&next, format!("{seconds:+}\n")).expect("the offset");
        fs::rename(&next, self.offset()).expect("the offset");
    }

    /// Puts a process that is about to start under it.
    pub fn rule(&self, command: &mut Command) {
        command
            .env("LD_PRELOAD", library())
            .env("FAKETIME_TIMESTAMP_FILE", self.offset())
            .env("FAKETIME_NO_CACHE", "1")
            .env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
    }

    fn offset(&self) -> PathBuf {
        self.dir.path().join("offset")
    }
}

fn library() -> PathBuf {
    let set = env::var_os("FAKETIME_LIB").map(PathBuf::from);
    set.or_else(|| PLACES.iter().map(PathBuf::from).find(|path| Path::exists(path)))
        .expect("libfaketime is missing: run scripts/setup (apt-get install faketime), or set FAKETIME_LIB")
}
