//! The table as documentation: Markdown for `docs/rules.md` and `docs/migrating.md`, which tests hold against it.

use std::fmt::Write;

use super::super::compat::Compatibility;
use super::option::Level;
use super::table::TABLE;

/// The fields of one level.
#[must_use]
pub fn fields(level: Level) -> String {
    let mut out = String::from("| field | default | meaning |\n|---|---|---|\n");
    for option in TABLE.iter().filter(|option| option.stands_on(level)) {
        let mark = match option.compat {
            Compatibility::Native => " **+**",
            _ => "",
        };
        // Writing to a String cannot fail.
        let _ = writeln!(out, "| `{}`{mark} | {} | {} |", option.name, option.default, option.doc);
    }
    out
}

/// The names of the options that may stand in `metadata.sluicegate`, as one line.
#[must_use]
pub fn in_metadata() -> String {
    let options = TABLE.iter().filter(|option| option.stands_on(Level::Metadata));
    let names: Vec<_> = options.map(|option| format!("`{}`", option.name)).collect();
    format!("{}\n", names.join(", "))
}

/// How the fields that envoyproxy/ratelimit has compare with it.
#[must_use]
pub fn compared() -> String {
    let mut out = String::from("| field | compared with envoyproxy/ratelimit |\n|---|---|\n");
    for option in TABLE.iter().filter(|option| option.compat != Compatibility::Native) {
        let within = if option.levels.first() == Some(&Level::RateLimit) {
            "rate_limit."
        } else {
            ""
        };
        let _ = writeln!(out, "| `{within}{}` | {} |", option.name, option.compat.describe());
    }
    out
}
