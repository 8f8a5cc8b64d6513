//! The settings as lists: all of them, those of one topic, and the tables for people.

use std::fmt::Write;

use super::setting::{Setting, Topic};
use super::table::SECTIONS;

/// All settings.
pub fn all() -> impl Iterator<Item = &'static Setting> {
    SECTIONS.iter().flat_map(|section| section.settings)
}

/// The settings that are read as variables when the process is started as envoyproxy/ratelimit is.
pub fn variables() -> impl Iterator<Item = &'static Setting> {
    all().filter(|setting| !setting.serve_only)
}

impl Topic {
    /// The settings about it.
    pub(super) fn settings(self) -> impl Iterator<Item = &'static Setting> {
        let sections = SECTIONS.iter().filter(move |section| section.topic == self);
        sections.flat_map(|section| section.settings)
    }
}

/// The setting with this variable.
pub(super) fn of_variable(variable: &str) -> Option<&'static Setting> {
    all().find(|setting| setting.variable == variable)
}

/// The table for a terminal.
#[must_use]
pub fn text() -> String {
    let mut out = String::from(
        "Environment variables that `sluicegate` reads when it is started without a subcommand, or as `ratelimit`\n\
         (`sluicegate serve --help` has the flags of the other way to start it).\n",
    );
    for section in SECTIONS {
        // Writing to a String cannot fail.
        let _ = writeln!(out, "\n{}\n", section.topic.title());
        for setting in section.settings.iter().filter(|setting| !setting.serve_only) {
            let default = if setting.default.is_empty() {
                "not set"
            } else {
                setting.default
            };
            let flag = setting
                .flag
                .as_ref()
                .map_or_else(String::new, |flag| format!("  [--{}]", flag.name));
            let compat = setting.compat.describe();
            let _ = writeln!(
                out,
                "{}  [default: {default}]{flag}\n    {}\n    {compat}",
                setting.variable, setting.doc
            );
        }
    }
    out
}

/// The table for `docs/migrating.md`.
#[must_use]
pub fn markdown() -> String {
    let mut out = String::from(
        "| variable | flag of `serve` | default | meaning | compared with envoyproxy/ratelimit |\n|---|---|---|---|---|\n",
    );
    for setting in variables() {
        let code = |text: &str| {
            if text.is_empty() {
                String::new()
            } else {
                format!("`{text}`")
            }
        };
        let flag = setting
            .flag
            .as_ref()
            .map_or_else(String::new, |flag| format!("`--{}`", flag.name));
        let (default, compat) = (code(setting.default), setting.compat.describe());
        let _ = writeln!(
            out,
            "| `{}` | {flag} | {default} | {} | {compat} |",
            setting.variable, setting.doc
        );
    }
    out
}
