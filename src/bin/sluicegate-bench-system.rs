//! `sluicegate-bench` on the system's allocator, to show what mimalloc is worth.

use std::process::ExitCode;

use clap::Parser as _;
use sluicegate::bench::command::{BenchCli, run};

fn main() -> ExitCode {
    run(BenchCli::parse())
}
