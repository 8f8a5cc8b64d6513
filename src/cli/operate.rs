//! `sluicegate status|top|explain|counters|reset`: the operator's API of a running process, in a terminal. Tables for people,
//! `-o json` for scripts.

mod client;
mod common;
mod explain;
mod reset;
mod table;

use std::io::{IsTerminal, Write};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};

use super::output::{block_on, fail};
use client::ClientError;
use common::{Common, Output};

/// Between two looks of `top`.
const REFRESH: Duration = Duration::from_secs(2);

/// What is asked of a running process.
#[derive(Debug, Subcommand)]
pub(super) enum Operate {
    /// Show a running process at a glance: health, rules in force, stores, recent reloads
    Status(Common),
    /// Show which keys are denied most, or asked most; refreshes in a terminal, prints once elsewhere
    Top(TopArgs),
    /// Show which rule counts a request, why no other does, and whether it would pass now; counts nothing
    Explain(explain::ExplainArgs),
    /// Show how one counter stands, and where that was read
    Counters(CounterArgs),
    /// Let keys through again: show which counters would be reset, ask, and reset them; needs the admin token
    Reset(reset::ResetArgs),
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum By {
    Denied,
    Hits,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Window {
    #[value(name = "1m")]
    Minute,
    #[value(name = "10m")]
    TenMinutes,
    #[value(name = "1h")]
    Hour,
}

/// Flags of `top`.
#[derive(Debug, Args)]
pub(super) struct TopArgs {
    /// The order
    #[arg(long, value_name = "ORDER", default_value = "denied")]
    by: By,
    /// How far back
    #[arg(long, value_name = "WINDOW", default_value = "1m")]
    window: Window,
    /// Keys of the rule with this path only
    #[arg(long, value_name = "PATH")]
    rule: Option<String>,
    /// Keys of this domain only
    #[arg(long, value_name = "NAME")]
    domain: Option<String>,
    /// Keys of candidate limits in place of those in force: "denied" is what the candidates would deny
    #[arg(long)]
    candidates: bool,
    /// Lines
    #[arg(short = 'n', long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u16).range(1..=200))]
    lines: u16,
    /// Print once, in a terminal too
    #[arg(long)]
    once: bool,
    #[command(flatten)]
    common: Common,
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
        Operate::Top(args) => return top(args).await,
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

async fn top(args: TopArgs) -> Result<(), ClientError> {
    let lines = args.lines.to_string();
    let (by, window) = (name(args.by), name(args.window));
    let mut query = vec![("by", by.as_str()), ("window", &window), ("limit", &lines)];
    query.extend(args.candidates.then_some(("candidates", "true")));
    query.extend(args.rule.as_deref().map(|rule| ("rule", rule)));
    query.extend(args.domain.as_deref().map(|domain| ("domain", domain)));
    let path = client::with_query("/api/v1/top", query);
    let is_filtered = args.rule.is_some() || args.domain.is_some();
    let client = args.common.open()?;
    let refreshes = !args.once && args.common.output == Output::Table && std::io::stdout().is_terminal();
    loop {
        let top = client.get(&path).await?;
        if !refreshes {
            args.common.show(&top, |top| table::top(top, is_filtered));
            return Ok(());
        }
        // Home, the text with each line's rest cleared, and what stood below.
        let text = table::top(&top, is_filtered).replace('\n', "\x1b[K\n");
        let mut out = std::io::stdout();
        // A closed terminal ends it.
        if write!(out, "\x1b[H{text}\x1b[J").and_then(|()| out.flush()).is_err() {
            return Ok(());
        }
        tokio::time::sleep(REFRESH).await;
    }
}

/// An entry with what separates entries percent-encoded.
fn escaped(entry: &str) -> String {
    let escape = |text: &str| text.replace('%', "%25").replace('|', "%7C").replace('=', "%3D");
    let (key, value) = entry.split_once('=').unwrap_or((entry, ""));
    format!("{}={}", escape(key), escape(value))
}

fn name(value: impl ValueEnum) -> String {
    let value = value.to_possible_value();
    value.map(|value| value.get_name().to_owned()).unwrap_or_default()
}
