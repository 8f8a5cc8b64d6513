//! How a descriptor came to its rule, level by level, for people: what matched, and why nothing beside it did.

use std::sync::Arc;

use crate::model::Entry;

use super::matcher::How;
use super::pattern::{NodeId, Patterns, is_pattern};
use super::tree::{Level, Values};
use super::{Domain, Rule};

/// Siblings that one step names at most.
const MAX_OTHERS: usize = 20;

/// The way of a descriptor through the tree.
#[derive(Debug, Default)]
pub struct Trace<'r> {
    /// One for each entry that was looked at.
    pub steps: Vec<Step<'r>>,
    /// The rules at its end.
    pub rules: &'r [Arc<Rule>],
}

/// One entry at its level.
#[derive(Debug)]
pub struct Step<'r> {
    /// What matched; `None` = nothing, and the way ends here.
    pub matched: Option<Match<'r>>,
    /// Other values of this key at this level; where the key is unknown, keys that there are.
    pub others: Vec<Other<'r>>,
    /// How many more there are.
    pub more: usize,
}

/// What matched an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Match<'r> {
    /// The exact value.
    Value,
    /// This list.
    List(&'r str),
    /// A network of these.
    Network(&'r str),
    /// This pattern.
    Pattern(&'r str),
    /// This regular expression.
    Regex(&'r str),
    /// The key alone.
    Key,
}

/// A sibling that did not match.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Other<'r> {
    /// Its value, or its key where the entry's key is unknown; empty = the key alone.
    pub text: &'r str,
    /// Why.
    pub why: Why,
}

/// Why a sibling did not match.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// It is another value.
    OtherValue,
    /// It is a pattern, or a set, that the value does not fit.
    NoFit,
    /// It is a regular expression that is not tried on values so long.
    TooLong,
    /// It fits, but what matched is more specific.
    LessSpecific,
    /// It is another key.
    OtherKey,
}

impl Domain {
    /// What [`find`](Self::find) does, in words.
    #[must_use]
    pub fn trace(&self, entries: &[Entry]) -> Trace<'_> {
        let mut trace = Trace::default();
        let mut level = &self.root;
        for (at, entry) in entries.iter().enumerate() {
            let Some(values) = level.keys.get(entry.key.as_str()) else {
                trace.steps.push(unknown_key(level));
                return trace;
            };
            let (id, step) = step(values, entry);
            trace.steps.push(step);
            let Some(node) = id.and_then(|id| values.nodes.get(id as usize)) else {
                return trace;
            };
            level = &node.children;
            if at + 1 == entries.len() {
                trace.rules = &node.rules;
            }
        }
        trace
    }
}

fn unknown_key(level: &Level) -> Step<'_> {
    let mut keys: Vec<&str> = level.keys.keys().map(|key| &**key).collect();
    keys.sort_unstable();
    let other = |text| Other {
        text,
        why: Why::OtherKey,
    };
    bounded(None, keys.into_iter().map(other).collect())
}

fn step<'r>(values: &'r Values, entry: &Entry) -> (Option<NodeId>, Step<'r>) {
    let found = values.find(&entry.value, &mut || {});
    let id = found.map(|(id, ..)| id);
    let named = || values.exact.iter().chain(&values.sets).map(|(text, id)| (&**text, *id));
    let name_of = |id: NodeId| named().find(|(_, node)| *node == id).map_or("", |(text, _)| text);
    let matched = found.map(|(id, how, _)| match how {
        How::Value => Match::Value,
        How::List => Match::List(name_of(id)),
        How::Network => Match::Network(name_of(id)),
        How::Pattern => Match::Pattern(name_of(id)),
        How::Regex => Match::Regex(name_of(id)),
        How::Key => Match::Key,
    });
    // As values and lists have an address, whatever its spelling here.
    let usual = values.networks.address(&entry.value).map(|address| address.to_string());
    let mut fitting = values.networks.fitting(&entry.value);
    fitting.extend(values.regexes.fitting(&entry.value));
    fitting.extend(values.listed.get(entry.value.as_str()));
    fitting.extend(usual.as_deref().and_then(|usual| values.listed.get(usual)));
    let too_long = values.regexes.is_too_long(&entry.value);
    let texts = values.exact.iter().map(|(text, id)| {
        let why = match usual.as_deref() == Some(&**text) {
            true => Why::LessSpecific,
            false => why_not(text, &entry.value),
        };
        (&**text, *id, why)
    });
    let sets = values.sets.iter().map(|(text, id)| {
        let why = match () {
            () if fitting.contains(id) => Why::LessSpecific,
            () if too_long && values.regexes.lead_to(*id) => Why::TooLong,
            () => Why::NoFit,
        };
        (&**text, *id, why)
    });
    let siblings = texts.chain(sets).filter(|(_, node, _)| Some(*node) != id);
    let mut others: Vec<Other<'r>> = siblings.map(|(text, _, why)| Other { text, why }).collect();
    if values.any.is_some_and(|any| Some(any) != id) {
        others.push(Other {
            text: "",
            why: Why::LessSpecific,
        });
    }
    // What nearly matched first.
    others.sort_unstable_by_key(|other| (other.why != Why::LessSpecific, other.text));
    (id, bounded(matched, others))
}

fn why_not(text: &str, value: &str) -> Why {
    if !is_pattern(text) {
        return Why::OtherValue;
    }
    let mut alone = Patterns::default();
    alone.insert(text, 0);
    match alone.find(value, &mut || {}) {
        Some(_) => Why::LessSpecific,
        None => Why::NoFit,
    }
}

fn bounded<'r>(matched: Option<Match<'r>>, mut others: Vec<Other<'r>>) -> Step<'r> {
    let more = others.len().saturating_sub(MAX_OTHERS);
    others.truncate(MAX_OTHERS);
    Step { matched, others, more }
}
