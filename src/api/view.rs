//! Counter keys as descriptors, with values masked where the settings say so.

use std::fmt;

use serde::Serialize;

use crate::config::settings::MaskValues;
use crate::engine::Active;
use crate::model::key::{Identity, Owner, PartKind};
use crate::telemetry::activity::Noted;

/// Characters of a value that `truncate` leaves.
const KEPT_CHARS: usize = 4;
/// Hex digits that `hash` shows.
const HASH_DIGITS: usize = 12;

/// Hides values.
pub(super) struct Masker {
    mode: MaskValues,
    /// Of this process, so that nobody can try values until a hash fits.
    secret: [u8; 32],
}

/// One entry of a descriptor.
#[derive(Debug, Clone, Serialize)]
pub(super) struct EntryView {
    pub key: String,
    pub value: String,
    /// The value is a pattern: all values that match it share the counter.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub shared: bool,
}

/// A counter as an operator sees it.
#[derive(Debug, Clone, Serialize)]
pub(super) struct CounterView {
    pub domain: String,
    pub descriptor: Vec<EntryView>,
    /// The rule that counts it now; absent for a limit that requests bring themselves, and where rules have changed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
    /// A limit that requests bring themselves.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub is_override: bool,
    /// Of the rule's `candidate`.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub is_candidate: bool,
    /// The descriptor is long: only its beginning is known.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub shortened: bool,
    /// Values are masked: the descriptor cannot be asked for by what is shown.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub masked: bool,
}

impl fmt::Display for CounterView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "domain={}", self.domain)?;
        let mut entries = self.descriptor.iter();
        entries.try_for_each(|entry| write!(f, " {}={}", entry.key, entry.value))
    }
}

impl Masker {
    pub fn new(mode: MaskValues) -> Self {
        Self {
            mode,
            secret: rand::random(),
        }
    }

    pub fn masks(&self) -> bool {
        self.mode != MaskValues::Off
    }

    /// A value as it may be shown. An empty one says nothing of anybody.
    fn value(&self, value: String) -> String {
        match self.mode {
            _ if value.is_empty() => value,
            MaskValues::Off => value,
            MaskValues::Hash => {
                let hash = blake3::keyed_hash(&self.secret, value.as_bytes()).to_hex();
                format!("#{}", &hash[..HASH_DIGITS])
            }
            MaskValues::Truncate => {
                let kept: String = value.chars().take(KEPT_CHARS).collect();
                format!("{kept}…")
            }
        }
    }

    /// What a counter's key, or its [name](Noted::name), says.
    pub fn counter(&self, name: &str, active: Option<&Active>) -> CounterView {
        let noted = Noted::read(name);
        let Some(identity) = Identity::of(noted.key) else {
            return CounterView {
                domain: String::new(),
                descriptor: Vec::new(),
                rule: None,
                is_override: false,
                is_candidate: false,
                shortened: true,
                masked: self.masks(),
            };
        };
        let rule = active.and_then(|active| active.rule_of(&identity, noted.rule));
        CounterView {
            rule: rule.map(|rule| rule.path.to_string()),
            is_override: identity.owner == Owner::Override,
            is_candidate: identity.owner == Owner::Candidate,
            shortened: identity.shortened,
            masked: self.masks(),
            domain: identity.domain,
            descriptor: identity
                .levels
                .into_iter()
                .map(|(key, value, kind)| {
                    let shared = kind == PartKind::Shared;
                    // A pattern is the rules' own text.
                    let value = if shared { value } else { self.value(value) };
                    EntryView { key, value, shared }
                })
                .collect(),
        }
    }
}

/// A part of a whole, 0 to 1.
#[allow(clippy::cast_precision_loss, reason = "a share for people")]
pub(super) fn share(part: u64, of: u64) -> f64 {
    if of == 0 { 0.0 } else { part as f64 / of as f64 }
}
