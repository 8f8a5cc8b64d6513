//! The server without some of its parts: what each of them is worth.

use std::process::ExitCode;

use clap::{Args, ValueEnum};

use crate::cli;
use crate::cli::output::fail;
use crate::config::settings::{Ablation, ServeArgs};

/// Serves as `sluicegate serve` does, without some parts.
#[derive(Debug, Args)]
pub struct AblationArgs {
    /// What to leave out; can be repeated. Stages that have a flag of their own are left out by it.
    #[arg(long, value_enum)]
    without: Vec<LeftOut>,

    #[command(flatten)]
    serve: ServeArgs,
}

/// A part that no flag of `sluicegate serve` turns off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum LeftOut {
    /// One call to Redis for the requests of one moment.
    Batching,
    /// A runtime for each core.
    Cores,
}

/// Serves until SIGTERM.
pub fn serve(args: AblationArgs) -> ExitCode {
    match args.serve.into_settings() {
        Ok((mut settings, notices)) => {
            settings.ablation = Ablation {
                no_batching: args.without.contains(&LeftOut::Batching),
                no_cores: args.without.contains(&LeftOut::Cores),
            };
            cli::serve(settings, notices)
        }
        Err(errors) => fail(&errors, 2),
    }
}
