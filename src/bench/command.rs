//! The command line of the binary `sluicegate-bench`.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use super::{BenchArgs, ablation, holds, memory, noop, plans};
use crate::cli::output::{block_on, fail, print, print_json};

/// Measures servers with Envoy's gRPC interface for rate limits or for external authorization.
#[derive(Debug, Parser)]
#[command(name = "sluicegate-bench", version, max_term_width = 120)]
pub struct BenchCli {
    /// What to do.
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Put load on a server; report throughput, latency and answers
    Load(Box<BenchArgs>),
    /// Serve answers that cost nothing: the floor that a measurement is compared with
    Noop(noop::NoopArgs),
    /// Serve as `sluicegate serve` does, without some parts: to show what each is worth
    Serve(Box<ablation::AblationArgs>),
    /// Fill a store with counters and report what one costs in memory
    Memory(Box<memory::MemoryArgs>),
    /// Keep many holds open and report what they cost in memory, and the longest call among them
    Holds(holds::HoldsArgs),
    /// Read a source of plans for many tenants, change it, and report memory, delay and what decisions notice
    Plans(plans::PlansArgs),
}

/// Does what the command line says.
#[must_use]
pub fn run(cli: BenchCli) -> ExitCode {
    let result = match cli.command {
        Command::Load(args) => {
            let json = args.json;
            let report = block_on(super::run(*args));
            report.map(|report| report.map(|report| if json { print_json(&report) } else { print(&report) }))
        }
        Command::Noop(args) => block_on(noop::serve(&args)).map(|served| served.map(|()| ExitCode::SUCCESS)),
        Command::Serve(args) => return ablation::serve(*args),
        Command::Plans(args) => Ok(plans::run(&args).map(|report| print_json(&report))),
        Command::Holds(args) => block_on(holds::run(&args)).map(|report| report.map(|report| print_json(&report))),
        Command::Memory(args) => block_on(memory::run(&args)).map(|report| report.map(|report| print_json(&report))),
    };
    match result {
        Ok(Ok(code)) | Err(code) => code,
        Ok(Err(error)) => fail(&error, 1),
    }
}
