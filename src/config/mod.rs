//! Settings, and rules files: read → raw → compiled [`RuleSet`], all or nothing, with every error in its place.
//!
//! | module | what is in it |
//! |---|---|
//! | [`settings`] | flags and environment variables |
//! | [`source`] | which files there are, and what is in them at one moment |
//! | `node`, `fields`, `read` | YAML with positions → [`raw`] |
//! | [`ext_authz`] | the section that maps attributes to descriptors |
//! | [`raw`] | rules as they are written; xDS resources become this too |
//! | [`mod@compile`], `rule`, `limits`, `duration` | [`raw`] → [`RuleSet`] |
//! | [`mod@watch`] | reloads when files change; the last good rules stay |
//! | [`xds`] | rules from a control plane instead of files |
//! | [`error`], [`problem`] | what can be wrong, where, and how to mend it |

pub mod compile;
pub(crate) mod duration;
pub mod error;
pub mod ext_authz;
pub(crate) mod fields;
mod limits;
pub(crate) mod node;
pub mod problem;
pub mod raw;
mod read;
mod rule;
pub mod settings;
pub mod source;
pub mod watch;
pub mod xds;

use std::sync::Arc;

use crate::rules::{Defaults, RuleSet};

pub use compile::compile;
pub use error::{ConfigError, ConfigErrors, Origin, Place};
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
    let mut errors = ConfigErrors::default();
    let origins = texts.iter().map(Text::origin);
    let files: Vec<raw::File> = texts
        .iter()
        .zip(origins)
        .map(|(text, origin)| read::read(&origin, &text.text, &mut errors))
        .collect();
    let rules = compile::compile_into(&files, defaults, &mut errors);
    errors.sort(texts.iter().map(|text| &*text.name));
    errors.into_result(rules)
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
pub fn check(source: &Source, defaults: &Defaults) -> Result<Summary, ConfigErrors> {
    compile_snapshot(source.read(), defaults).map(|(_, summary)| summary)
}

/// The rules of files and directories, compiled once.
///
/// # Errors
/// Everything that is wrong in any of them.
pub fn read_rules(source: &Source, defaults: &Defaults) -> Result<RuleSet, ConfigErrors> {
    compile_snapshot(source.read(), defaults).map(|(rules, _)| rules)
}

/// Compiles what was read; what could not be read is an error like any other.
fn compile_snapshot(snapshot: Snapshot, defaults: &Defaults) -> Result<(RuleSet, Summary), ConfigErrors> {
    let mut errors = snapshot.errors;
    match load(&snapshot.texts, defaults) {
        Ok(rules) => {
            let summary = Summary {
                domains: rules.domains.len(),
                rules: rules.rules.len(),
                files: snapshot.texts.len(),
            };
            errors.into_result((rules, summary))
        }
        Err(more) => {
            errors.append(more);
            Err(errors)
        }
    }
}
