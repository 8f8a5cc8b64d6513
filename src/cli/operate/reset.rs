//! `sluicegate reset`: shows what would be reset, asks, and resets it.

use std::io::{BufRead, IsTerminal, Write};

use clap::Args;
use serde_json::{Value, json};

use super::client::ClientError;
use super::common::{Common, Output, entry};
use super::table;

const PATH: &str = "/api/v1/counters/reset";

/// Flags of `reset`.
#[derive(Debug, Args)]
pub(in crate::cli) struct ResetArgs {
    /// The domain
    #[arg(long, value_name = "NAME")]
    domain: String,
    /// The descriptor's entries in order: resets its counter
    #[arg(value_name = "KEY=VALUE", required_unless_present = "rule")]
    entries: Vec<String>,
    /// Counters of the rule with this path instead; not with the memory store
    #[arg(long, value_name = "PATH", conflicts_with = "entries")]
    rule: Option<String>,
    /// Those of them whose descriptor, as key=value|key=value, looks like this; * stands for any text
    #[arg(long = "match", value_name = "PATTERN", requires = "rule", default_value = "*")]
    pattern: String,
    /// Do not ask
    #[arg(short, long)]
    yes: bool,
    #[command(flatten)]
    common: Common,
}

impl ResetArgs {
    fn question(&self) -> Value {
        if let Some(rule) = &self.rule {
            return json!({ "domain": self.domain, "rule": rule, "match": self.pattern });
        }
        let entries: Vec<Value> = self.entries.iter().map(|text| entry(text)).collect();
        json!({ "domain": self.domain, "entries": entries })
    }
}

pub(super) async fn run(args: ResetArgs) -> Result<(), ClientError> {
    let client = args.common.open()?;
    let selection = client.post(PATH, &args.question()).await?;
    let is_table = args.common.output == Output::Table;
    if selection["counters"] == 0 {
        args.common
            .show(&selection, |_| "no counter fits: nothing was reset".to_owned());
        return Ok(());
    }
    // For a script that says yes the answer is one JSON document: what was done.
    if is_table || !args.yes {
        args.common.show(&selection, table::selection);
    }
    if !args.yes {
        if !std::io::stdin().is_terminal() {
            return Err(ClientError::Unconfirmed);
        }
        if !says_yes() {
            let _ = writeln!(std::io::stderr(), "nothing was reset");
            return Ok(());
        }
    }
    let done = client.post(PATH, &json!({ "token": selection["token"] })).await?;
    args.common.show(&done, table::reset);
    Ok(())
}

/// Asks beside the answer, which may be JSON for a file.
fn says_yes() -> bool {
    let mut out = std::io::stderr();
    let mut answer = String::new();
    let asked = write!(out, "Reset? [y/N] ").and_then(|()| out.flush());
    asked.is_ok()
        && std::io::stdin().lock().read_line(&mut answer).is_ok()
        && matches!(answer.trim(), "y" | "Y" | "yes")
}
