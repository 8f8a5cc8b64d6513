//! The command line; reads as a list.

use std::process::ExitCode;

use sluicegate::cli::{Cli, run};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    run(Cli::of_process())
}
