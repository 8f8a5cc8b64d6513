//! Lines that could not be used, and why.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::config::problem::Clipped;

/// Reasons that are kept apart; further ones are counted together.
const MAX_REASONS: usize = 32;
/// Lines that could not be used, by reason.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Unreadable(BTreeMap<String, Reason>);

/// How often, and an example.
#[derive(Debug, Clone, Serialize)]
pub struct Reason {
    /// Lines.
    pub lines: u64,
    /// One of them, cut.
    pub example: String,
}

impl Unreadable {
    /// Counts a line.
    pub fn add(&mut self, reason: &str, example: impl FnOnce() -> String) {
        if let Some(known) = self.0.get_mut(reason) {
            known.lines += 1;
            return;
        }
        let reason = if self.0.len() < MAX_REASONS {
            reason
        } else {
            "other reasons"
        };
        let first = || Reason {
            lines: 0,
            example: Clipped(&example()).to_string(),
        };
        self.0.entry(reason.to_owned()).or_insert_with(first).lines += 1;
    }

    /// All of them together.
    #[must_use]
    pub fn lines(&self) -> u64 {
        self.0.values().map(|reason| reason.lines).sum()
    }

    /// By reason.
    pub fn reasons(&self) -> impl Iterator<Item = (&str, &Reason)> {
        self.0.iter().map(|(text, reason)| (text.as_str(), reason))
    }
}
