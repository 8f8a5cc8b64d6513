//! Settings, and rules files: read → raw → compiled [`RuleSet`], all or nothing, with every error in its place.
//!
//! What is read ([`options`], [`raw`]), how it is read (`fields`, `read`, [`xds`]) and what it is checked against
//! ([`mod@compile`]) are three layers; a module imports only what stands above it in this list, beside [`settings`]:
//!
//! | module | what is in it |
//! |---|---|
//! | [`settings`] | flags and environment variables |
//! | [`compat`] | how a setting or an option compares with envoyproxy/ratelimit |
//! | [`problem`], [`error`] | what can be wrong, where, and how to fix it |
//! | [`field`], `duration` | a value and its place; durations in rules |
//! | `node`, [`fields`] | YAML with positions, and mappings with known fields |
//! | [`options`] | the table of all fields of a rules file |
//! | [`ext_authz`] | the section that maps attributes to descriptors |
//! | [`raw`] | rules as they are written; xDS resources become this too |
//! | `read` | YAML → [`raw`] |
//! | [`mod@compile`] | [`raw`] → [`RuleSet`] |
//! | `dump` | [`RuleSet`] → the lines of `/rlconfig` |
//! | [`source`] | which files there are, and what is in them at one moment |
//! | [`mod@watch`] | reloads when files change; the last good rules stay |
//! | [`xds`] | rules from a control plane instead of files |

pub mod compat;
pub mod compile;
mod dump;
pub(crate) mod duration;
pub mod error;
pub mod ext_authz;
pub mod field;
pub mod fields;
pub(crate) mod node;
pub mod options;
pub mod problem;
pub mod raw;
mod read;
pub mod settings;
pub mod source;
pub mod watch;
pub mod xds;

use std::sync::Arc;

use crate::rules::{Defaults, RuleSet};

pub use error::{ConfigError, ConfigErrors, Origin, Place, Warnings};
pub use problem::Problem;
pub use source::{Snapshot, Source, Text};
pub use watch::{Event, Loaded, Watch, watch};

/// The rules that are served when none are given.
pub const EXAMPLE: &str = include_str!("example.yaml");

/// What `sluicegate check` counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Summary {
    /// Domains.
    pub domains: usize,
    /// Rules: nodes with a `rate_limit`.
    pub rules: usize,
    /// Files that were read.
    pub files: usize,
}

/// Compiles texts: reads each, then all together; every error of every text in one go.
///
/// # Errors
/// Everything that is wrong in any of them.
pub fn load(texts: &[Text], defaults: &Defaults) -> Result<RuleSet, ConfigErrors> {
    load_with_warnings(texts, defaults, ConfigErrors::default()).map(|(rules, _)| rules)
}

/// [`load`] with what was only warned of, adding to errors that were found before.
///
/// # Errors
/// Those, and everything that is wrong in any of the texts.
pub fn load_with_warnings(
    texts: &[Text],
    defaults: &Defaults,
    mut errors: ConfigErrors,
) -> Result<(RuleSet, Warnings), ConfigErrors> {
    let files: Vec<raw::File> = texts
        .iter()
        .map(|text| read::read(&text.origin(), &text.text, &mut errors))
        .collect();
    compile::compile(&files, defaults, errors)
}

/// The built-in example, compiled.
///
/// # Errors
/// None in practice (a test compiles it).
pub fn example(defaults: &Defaults) -> Result<RuleSet, ConfigErrors> {
    let text = Text {
        name: "built-in example".into(),
        text: Arc::from(EXAMPLE),
    };
    load(&[text], defaults)
}

/// Validates files and directories as `serve` would load them.
///
/// # Errors
/// Everything that is wrong in any of them.
pub fn check(source: &Source, defaults: &Defaults) -> Result<(Summary, Warnings), ConfigErrors> {
    compile_snapshot(source.read(), defaults).map(|(_, summary, warnings)| (summary, warnings))
}

/// The rules of files and directories, compiled once.
///
/// # Errors
/// Everything that is wrong in any of them.
pub fn read_rules(source: &Source, defaults: &Defaults) -> Result<RuleSet, ConfigErrors> {
    compile_snapshot(source.read(), defaults).map(|(rules, ..)| rules)
}

/// Compiles what was read; what could not be read is an error like any other.
fn compile_snapshot(snapshot: Snapshot, defaults: &Defaults) -> Result<(RuleSet, Summary, Warnings), ConfigErrors> {
    let files = snapshot.texts.len();
    let (rules, warnings) = load_with_warnings(&snapshot.texts, defaults, snapshot.errors)?;
    let summary = Summary {
        domains: rules.domains.len(),
        rules: rules.rules.len(),
        files,
    };
    Ok((rules, summary, warnings))
}
