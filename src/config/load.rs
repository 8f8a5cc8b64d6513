//! Loads rules once: reads, compiles, and reports every error of every file.

use std::sync::Arc;

use super::compile::compile;
use super::error::{ConfigErrors, Warnings};
use super::source::{Snapshot, Source, Text};
use super::{plans, raw, read};
use crate::rules::{Defaults, RuleSet};

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
    compile(&files, defaults, errors)
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
    let (rules, summary, warnings) = compile_snapshot(source.read(), defaults)?;
    plans::file::load_all(&rules).map(|()| (summary, warnings))
}

/// The rules of files and directories, compiled once.
///
/// # Errors
/// Everything that is wrong in any of them.
pub fn read_rules(source: &Source, defaults: &Defaults) -> Result<RuleSet, ConfigErrors> {
    let (rules, ..) = compile_snapshot(source.read(), defaults)?;
    plans::file::load_all(&rules).map(|()| rules)
}

/// Compiles what was read; what could not be read is an error like any other.
pub(super) fn compile_snapshot(
    snapshot: Snapshot,
    defaults: &Defaults,
) -> Result<(RuleSet, Summary, Warnings), ConfigErrors> {
    let files = snapshot.texts.len();
    let (rules, warnings) = load_with_warnings(&snapshot.texts, defaults, snapshot.errors)?;
    let summary = Summary {
        domains: rules.domains.len(),
        rules: rules.rules.len(),
        files,
    };
    Ok((rules, summary, warnings))
}
