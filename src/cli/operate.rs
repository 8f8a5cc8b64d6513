//! `sluicegate status|top|explain|counters|reset`: the operator's API of a running process, in a terminal. Tables for people,
//! `-o json` for scripts.

mod client;
mod common;
mod explain;
mod reset;
mod table;
mod top;

use std::process::ExitCode;

use clap::{Args, Subcommand};

use super::output::{block_on, fail};
use client::ClientError;
use common::Common;

/// What is asked of a running process.
#[derive(Debug, Subcommand)]
pub(super) enum Operate {
    /// Show a running process at a glance: health, rules in force, stores, recent reloads
    Status(Common),
    /// Show which keys are denied most, or asked most; refreshes in a terminal, prints once elsewhere
    Top(top::TopArgs),
    /// Show which rule counts a request, why no other does, and whether it would pass now; counts nothing
    Explain(explain::ExplainArgs),
    /// Show how one counter stands, and where that was read
    Counters(CounterArgs),
    /// Let keys through again: show which counters would be reset, ask, and reset them; needs the admin token
    Reset(reset::ResetArgs),
}

/// Flags of `counters`.
#[derive(Debug, Args)]
pub(super) struct CounterArgs {
    /// The domain
    #[arg(long, value_name = "NAME")]
    domain: String,
    /// The descriptor's entries in order
    #[arg(value_name = "KEY=VALUE", required = true)]
    entries: Vec<String>,
    #[command(flatten)]
    common: Common,
}

/// Asks and prints.
pub(super) fn run(operate: Operate) -> ExitCode {
    match block_on(ask(operate)) {
        Ok(Ok(())) => ExitCode::SUCCESS,
        Ok(Err(error)) => fail(&error, 1),
        Err(code) => code,
    }
}

async fn ask(operate: Operate) -> Result<(), ClientError> {
    match operate {
        Operate::Status(common) => {
            let status = common.open()?.get("/api/v1/status").await?;
            common.show(&status, table::status);
        }
        Operate::Top(args) => return top::run(args).await,
        Operate::Reset(args) => return reset::run(args).await,
        Operate::Explain(args) => return explain::run(args).await,
        Operate::Counters(args) => {
            let descriptor: Vec<String> = args.entries.iter().map(|entry| escaped(entry)).collect();
            let query = [("domain", args.domain.as_str()), ("descriptor", &descriptor.join("|"))];
            let path = client::with_query("/api/v1/counters", query);
            let state = args.common.open()?.get(&path).await?;
            args.common.show(&state, table::counter);
        }
    }
    Ok(())
}

/// An entry with what separates entries percent-encoded.
fn escaped(entry: &str) -> String {
    let escape = |text: &str| text.replace('%', "%25").replace('|', "%7C").replace('=', "%3D");
    let (key, value) = entry.split_once('=').unwrap_or((entry, ""));
    format!("{}={}", escape(key), escape(value))
}
