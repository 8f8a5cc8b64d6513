//! What an entry of the table is, and the raw fields that entries fill.

use serde_json::{Map, Value as Json};

use crate::rules::Rule;

use super::super::compat::Compatibility;
use super::super::error::Place;
use super::super::field::Field;
use super::super::fields::Reader;
use super::super::node::Node;

/// The key in `metadata` under which native options may stand, for sources whose schema has no fields for them.
pub const METADATA_KEY: &str = "sluicegate";

/// The options that were given on one level; those of other levels are absent.
#[derive(Debug, Clone, Default, PartialEq)]
#[allow(missing_docs, reason = "each is documented by the entry of its name in TABLE")]
pub struct Options {
    pub requests_per_unit: Field<u32>,
    pub unit: Field<String>,
    pub unit_multiplier: Field<u32>,
    pub window: Field<WrittenWindow>,
    pub algorithm: Field<String>,
    pub precision: Field<u32>,
    pub burst: Field<u64>,
    pub max_delay: Field<String>,
    pub unlimited: Field<bool>,
    pub name: Field<String>,
    pub headers: Field<bool>,
    pub body: Field<bool>,
    pub on_limit: Field<String>,
    pub replaces: Field<Vec<Field<String>>>,
    pub count_denied: Field<bool>,
    pub on_store_error: Field<String>,
    pub lease: Field<bool>,
    pub hold: Field<Hold>,
    pub shadow_mode: Field<bool>,
    pub share_threshold: Field<bool>,
    pub quota_mode: Field<bool>,
    pub detailed_metric: Field<bool>,
    pub value_to_metric: Field<bool>,
    pub metadata: Field<Map<String, Json>>,
    pub candidate: Field<Box<Options>>,
    pub rate_limits: Field<Vec<Field<Options>>>,
    pub value_in: Field<Vec<Field<String>>>,
    pub value_cidr: Field<Vec<Field<String>>>,
    pub value_regex: Field<String>,
    pub plan_from: Field<String>,
    pub default: Field<String>,
    pub rlqs: Field<Rlqs>,
}

/// `rlqs`, as it is written.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Rlqs {
    /// The keys of a bucket in the order of the rules' tree.
    pub bucket: Field<Vec<Field<String>>>,
    /// Whether token buckets are leased as rates.
    pub refill: Field<bool>,
}

/// `window`, as it is written.
#[derive(Debug, Clone, PartialEq)]
pub enum WrittenWindow {
    /// A length.
    Length(String),
    /// A unit of a calendar.
    Calendar {
        /// The unit.
        calendar: Field<String>,
        /// Whose days.
        time_zone: Field<String>,
    },
}

/// `hold`, as it is written.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Hold {
    /// The longest that a hold lasts.
    pub ttl: Field<String>,
    /// Whether questions with 0 hits hold the mean cost, and what they hold first.
    pub adaptive: Field<Field<u64>>,
}

/// A mapping of a rules file whose fields are in the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// The file (or xDS resource) itself.
    File,
    /// An entry of `descriptors`.
    Descriptor,
    /// `rate_limit`.
    RateLimit,
    /// `metadata.sluicegate`.
    Metadata,
    /// `candidate`.
    Candidate,
    /// One of `plans`.
    Plan,
}

/// One field.
#[derive(Debug)]
pub struct RuleOption {
    /// Its name, in YAML and in `metadata.sluicegate` alike.
    pub name: &'static str,
    /// Where it may stand.
    pub levels: &'static [Level],
    /// Its type, and the field of [`Options`] that it fills.
    pub(in super::super) kind: Kind,
    /// Its value where nothing says it, for the documentation; empty = none, or said in `doc`.
    pub default: &'static str,
    /// What it means, in Markdown.
    pub doc: &'static str,
    /// How it compares with envoyproxy/ratelimit.
    pub compat: Compatibility,
    /// Writes its values for `/rlconfig`; none where it is not set, or is in the fixed part of a line.
    pub(in super::super) show: fn(&Shown<'_>, &mut Vec<String>),
    /// Which rules it can affect; `None` where that cannot be missed.
    pub(in super::super) effect: Option<Effect>,
}

impl RuleOption {
    /// Its values in a rule, as `/rlconfig` shows them, but for what only the tree above the rule knows.
    #[must_use]
    pub fn values(&self, rule: &Rule) -> Vec<String> {
        let mut values = Vec::new();
        (self.show)(&Shown { rule, shared: &[] }, &mut values);
        values
    }
}

/// The type of a field, with the slot that it fills.
#[derive(Debug)]
pub(in super::super) enum Kind {
    /// The tree itself, which `read.rs` walks.
    Tree,
    /// Text.
    Text(FieldAccess<String>),
    /// `true` or `false`.
    Truth(FieldAccess<bool>),
    /// A whole number up to `u32::MAX`.
    Number(FieldAccess<u32>),
    /// A whole number up to `u64::MAX`.
    LargeNumber(FieldAccess<u64>),
    /// `window`.
    Window(FieldAccess<WrittenWindow>),
    /// `hold`.
    Hold(FieldAccess<Hold>),
    /// A mapping or a list, read by a function of its own.
    Shaped {
        /// Reads the node into its slot.
        read: fn(&mut Reader<'_>, &Node, &mut Options),
        /// Whether it was given, and where.
        given: fn(&Options) -> Given,
    },
}

/// `None` = not given, else its place.
pub(in super::super) type Given = Option<Option<Place>>;

/// A field of [`Options`].
#[derive(Debug)]
pub(in super::super) struct FieldAccess<T> {
    pub(in super::super) get: fn(&Options) -> &Field<T>,
    pub(in super::super) get_mut: fn(&mut Options) -> &mut Field<T>,
}

/// The rules that an option can affect.
#[derive(Debug, Clone, Copy)]
pub(in super::super) struct Effect {
    /// Whether it reaches the rules below its descriptor, too.
    pub(in super::super) below: bool,
    /// Whether a rule that it reaches is affected.
    pub(in super::super) applies: fn(&Rule) -> bool,
    /// Whether a rule below has the same option: where all have, what it says holds although it affects none. Envoy Gateway
    /// writes `shadow_mode` on each level of a rule.
    pub(in super::super) repeated: fn(&Rule) -> bool,
    /// What has to be there, for `… has no effect here: it needs …`.
    pub(in super::super) needs: &'static str,
}

/// A compiled rule as the dump sees it.
pub(in super::super) struct Shown<'r> {
    pub(in super::super) rule: &'r Rule,
    /// Patterns on the way to it whose values share a counter.
    pub(in super::super) shared: &'r [&'r str],
}

impl RuleOption {
    /// Whether it may stand on a level.
    #[must_use]
    pub fn stands_on(&self, level: Level) -> bool {
        self.levels.contains(&level)
    }

    /// Whether it says how one limit counts: it is of no use without a `rate_limit`, nor beside `unlimited`.
    #[must_use]
    pub fn is_counting(&self) -> bool {
        self.stands_on(Level::RateLimit) && self.stands_on(Level::Metadata) && !self.stands_on(Level::Descriptor)
    }

    /// Whether `options` ask for something by it (`false` asks for nothing), and where.
    pub(in super::super) fn given(&self, options: &Options) -> Given {
        match &self.kind {
            Kind::Truth(slot) if !(slot.get)(options).is_true() => None,
            _ => self.written(options),
        }
    }

    /// Whether it stands in `options`, and where.
    pub(in super::super) fn written(&self, options: &Options) -> Given {
        fn there<T>(field: &Field<T>) -> Given {
            field.is_there().then(|| field.place())
        }
        match &self.kind {
            Kind::Tree => None,
            Kind::Text(slot) => there((slot.get)(options)),
            Kind::Truth(slot) => there((slot.get)(options)),
            Kind::Number(slot) => there((slot.get)(options)),
            Kind::LargeNumber(slot) => there((slot.get)(options)),
            Kind::Window(slot) => there((slot.get)(options)),
            Kind::Hold(slot) => there((slot.get)(options)),
            Kind::Shaped { given, .. } => given(options),
        }
    }
}
