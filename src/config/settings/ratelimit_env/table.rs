//! Every variable of envoyproxy/ratelimit (commit f2fb157), and ours: its default, what it means, what becomes of it.
//!
//! `sluicegate settings` prints this table and `docs/migrating.md` holds it; tests compare it with what is read.

use std::fmt::Write;

/// An environment variable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Variable {
    /// Its name.
    pub name: &'static str,
    /// Its value when it is not set; empty = none.
    pub default: &'static str,
    /// What it is for.
    pub meaning: &'static str,
    /// What becomes of it here.
    pub fate: Fate,
}

/// What becomes of a variable of envoyproxy/ratelimit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// Means the same.
    Same,
    /// Means the same and more, or does it better: how.
    Better(&'static str),
    /// Accepted, but without effect: why.
    NotTaken(&'static str),
    /// There is no such variable there.
    Ours,
}

pub use super::variables::VARIABLES;
use Fate::{Better, NotTaken, Ours, Same};

impl Fate {
    /// One cell of a table.
    #[must_use]
    pub fn describe(self) -> String {
        match self {
            Same => "same".into(),
            Better(how) => format!("better: {how}"),
            NotTaken(why) => format!("not taken: {why}"),
            Ours => "ours".into(),
        }
    }
}

/// The table for a terminal.
#[must_use]
pub fn text() -> String {
    let mut out = String::from(
        "Environment variables that `sluicegate` reads when it is started without a subcommand, or as `ratelimit`\n\
         (`sluicegate serve --help` has the flags of the other way to start it).\n\n",
    );
    for Variable {
        name,
        default,
        meaning,
        fate,
    } in VARIABLES
    {
        let default = if default.is_empty() { "not set" } else { default };
        // Writing to a String cannot fail.
        let _ = writeln!(
            out,
            "{name}  [default: {default}]\n    {meaning}\n    {}",
            fate.describe()
        );
    }
    out
}

/// The table for `docs/migrating.md`.
#[must_use]
pub fn markdown() -> String {
    let mut out =
        String::from("| variable | default here | meaning | compared with envoyproxy/ratelimit |\n|---|---|---|---|\n");
    for Variable {
        name,
        default,
        meaning,
        fate,
    } in VARIABLES
    {
        let default = if default.is_empty() {
            String::new()
        } else {
            format!("`{default}`")
        };
        let _ = writeln!(out, "| `{name}` | {default} | {meaning} | {} |", fate.describe());
    }
    out
}
