//! What proves rules before they are enforced: tests of rules, replay of access logs, the meaning of a change.

#![allow(clippy::expect_used, reason = "a test that cannot go on says why")]

#[path = "../support/mod.rs"]
mod support;

mod diff;
mod envoy;
mod filters;
mod live;
mod replay;
mod rule_tests;

use std::path::PathBuf;

use support::sluicegate::run as sluicegate;

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A directory with files in it.
fn directory(files: &[(&str, &str)]) -> tempfile::TempDir {
    let directory = tempfile::tempdir().expect("a directory");
    for (name, text) in files {
        std::fs::write(directory.path().join(name), text).expect("a file");
    }
    directory
}

fn project() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}
