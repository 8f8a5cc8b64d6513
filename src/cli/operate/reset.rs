//! `sluicegate reset`: shows what would be reset, asks, and resets it.

use std::io::{BufRead, IsTerminal, Write};

use clap::Args;
use serde_json::{Value, json};

use super::client::{Client, ClientError};
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

/// What all resets of one search came to.
#[derive(Default)]
struct ResetSum {
    counters: u64,
    hits: u64,
    has_untold: bool,
}

impl ResetSum {
    fn add(&mut self, done: &Value) {
        self.counters += done["counters"].as_u64().unwrap_or(0);
        self.hits += done["hits"].as_u64().unwrap_or(0);
        self.has_untold |= done["replicas_told"] != true;
    }

    fn answer(&self) -> Value {
        json!({ "counters": self.counters, "hits": self.hits, "replicas_told": !self.has_untold })
    }
}

pub(super) async fn run(args: ResetArgs) -> Result<(), ClientError> {
    let client = args.common.open()?;
    let mut sum = ResetSum::default();
    let result = args.reset_all(&client, &mut sum).await;
    // For a script that says yes the answer is one JSON document: what was done, also where a later search failed.
    if args.is_script() && sum.counters > 0 {
        args.common.show(&sum.answer(), table::reset);
    }
    result
}

impl ResetArgs {
    /// One JSON document is the whole answer.
    fn is_script(&self) -> bool {
        self.yes && self.common.output == Output::Json
    }

    /// Follows the search to its end, and resets what each part of it finds.
    async fn reset_all(&self, client: &Client, sum: &mut ResetSum) -> Result<(), ClientError> {
        let mut question = self.question();
        loop {
            let selection = client.post(PATH, &question).await?;
            let is_complete = selection["complete"] != false;
            if selection["counters"] != 0 {
                if !self.is_script() {
                    self.common.show(&selection, table::selection);
                }
                if !self.confirms(sum)? {
                    return Ok(());
                }
                let done = client.post(PATH, &json!({ "token": selection["token"] })).await?;
                sum.add(&done);
                if !self.is_script() {
                    self.common.show(&done, table::reset);
                }
            } else if is_complete && sum.counters == 0 {
                self.common
                    .show(&selection, |_| "no counter fits: nothing was reset".to_owned());
            } else if !is_complete {
                let _ = writeln!(std::io::stderr(), "no further counter fits so far: the search goes on");
            }
            if is_complete {
                return Ok(());
            }
            // Only a process of an earlier version says that there is more and not where.
            let next = selection["next"].as_str();
            question["from"] = next.ok_or(ClientError::Incomplete(sum.counters))?.into();
        }
    }

    /// Whether the operator says yes, or has said so.
    fn confirms(&self, sum: &ResetSum) -> Result<bool, ClientError> {
        if self.yes {
            return Ok(true);
        }
        if !std::io::stdin().is_terminal() {
            return Err(ClientError::Unconfirmed);
        }
        let says_yes = says_yes();
        if !says_yes {
            let what = if sum.counters == 0 {
                "nothing was reset"
            } else {
                "nothing else was reset"
            };
            let _ = writeln!(std::io::stderr(), "{what}");
        }
        Ok(says_yes)
    }
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
