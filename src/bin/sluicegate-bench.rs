//! The load generator and what belongs to it; `make bench` runs it.

use std::process::ExitCode;

use clap::Parser as _;
use sluicegate::bench::command::{BenchCli, run};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    run(BenchCli::parse())
}
