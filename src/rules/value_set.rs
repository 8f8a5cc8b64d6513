//! Values that a descriptor gives otherwise than by one text: lists, networks ([`super::cidr`]) and regular expressions.

use std::fmt::{self, Write};

use regex_automata::meta;
use regex_automata::nfa::thompson;
use regex_automata::util::primitives::PatternID;
use regex_automata::{Anchored, Input, PatternSet};
use regex_syntax::hir::{Hir, Look};

use super::cidr::Cidr;
use super::pattern::NodeId;

/// Most bytes that one regular expression may compile to.
pub const MAX_REGEX_BYTES: usize = 256 << 10;
/// Most bytes that the regular expressions of all rules may compile to.
pub const MAX_ALL_REGEX_BYTES: usize = 16 << 20;
/// Longest name of a set that is kept whole, in bytes.
const MAX_NAME: usize = 256;
/// What stays of a longer one, in bytes.
const KEPT: usize = 200;
/// Bytes of BLAKE3 in a shortened name.
const HASH_BYTES: usize = 8;

/// What a descriptor's values are.
#[derive(Debug, Clone)]
pub enum ValueSet {
    /// `value_in`
    In(Vec<String>),
    /// `value_cidr`
    Cidr(Vec<Cidr>),
    /// `value_regex`
    Regex(ValueRegex),
}

/// The name of a set: what paths, labels and shared counters call it. Long ones end in a hash over the whole.
impl fmt::Display for ValueSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut inside = String::new();
        let kind = match self {
            Self::In(values) => {
                // The order of a list means nothing, so it is no part of the name.
                let mut values: Vec<&String> = values.iter().collect();
                values.sort_unstable();
                for (at, value) in values.into_iter().enumerate() {
                    inside.push_str(if at == 0 { "" } else { "," });
                    inside.push_str(&value.replace('\\', "\\\\").replace(',', "\\,"));
                }
                "in"
            }
            Self::Cidr(networks) => {
                let mut networks: Vec<String> = networks.iter().map(ToString::to_string).collect();
                networks.sort_unstable();
                for (at, network) in networks.iter().enumerate() {
                    write!(inside, "{}{network}", if at == 0 { "" } else { "," })?;
                }
                "cidr"
            }
            Self::Regex(regex) => {
                inside.push_str(&regex.text);
                "regex"
            }
        };
        if inside.len() > MAX_NAME {
            let hash = blake3::hash(inside.as_bytes());
            inside.truncate(inside.floor_char_boundary(KEPT));
            inside.push_str("…#");
            for byte in &hash.as_bytes()[..HASH_BYTES] {
                write!(inside, "{byte:02x}")?;
            }
        }
        write!(f, "{kind}({inside})")
    }
}

/// A regular expression over a whole value.
#[derive(Debug, Clone)]
pub struct ValueRegex {
    text: String,
    whole: Hir,
    bytes: usize,
}

impl ValueRegex {
    /// Reads an expression in RE2's syntax and sees to its size, before anything is compiled that could be slow.
    ///
    /// # Errors
    /// What is wrong with it, in words.
    pub fn new(text: &str) -> Result<Self, String> {
        let parsed = regex_syntax::Parser::new().parse(text);
        let hir = parsed.map_err(|error| match error {
            regex_syntax::Error::Parse(error) => format!("{}; its syntax is RE2's", error.kind()),
            regex_syntax::Error::Translate(error) => format!("{}; its syntax is RE2's", error.kind()),
            error => error.to_string(),
        })?;
        let whole = Hir::concat(vec![Hir::look(Look::Start), hir, Hir::look(Look::End)]);
        let bounded = thompson::Config::new().nfa_size_limit(Some(MAX_REGEX_BYTES));
        let compiled = thompson::Compiler::new().configure(bounded).build_from_hir(&whole);
        let nfa = compiled.map_err(|_| {
            format!(
                "it compiles to more than {} KiB: make its repetitions and classes smaller",
                MAX_REGEX_BYTES >> 10
            )
        })?;
        Ok(Self {
            text: text.to_owned(),
            whole,
            bytes: nfa.memory_usage(),
        })
    }

    /// The expression as it is written.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Bytes that it compiles to.
    #[must_use]
    pub const fn bytes(&self) -> usize {
        self.bytes
    }
}

/// The regular expressions of one key at one level, as one automaton.
#[derive(Debug, Default)]
pub(super) struct Regexes {
    waiting: Vec<Hir>,
    nodes: Vec<NodeId>,
    bytes: usize,
    compiled: Option<meta::Regex>,
}

impl Regexes {
    /// Adds one; it matches from [`Self::compile`] on.
    pub(super) fn insert(&mut self, regex: &ValueRegex, node: NodeId) {
        self.waiting.push(regex.whole.clone());
        self.nodes.push(node);
        self.bytes = self.bytes.saturating_add(regex.bytes);
    }

    /// Builds the automaton. States of it are made as values need them, in a cache whose size is bounded.
    pub(super) fn compile(&mut self) {
        if self.waiting.is_empty() {
            return;
        }
        let cache = (2 << 20).max(self.bytes.saturating_mul(4));
        let config = meta::Config::new().hybrid_cache_capacity(cache).nfa_size_limit(None);
        // Each has been compiled by itself, and there are fewer than an automaton can have.
        let built = meta::Builder::new()
            .configure(config)
            .build_many_from_hir(&self.waiting);
        self.compiled = built.ok();
        self.waiting.clear();
    }

    /// The first declared one that matches the whole value. One pass over the value, whatever their number.
    pub(super) fn find(&self, value: &str, probe: &mut impl FnMut()) -> Option<NodeId> {
        let regex = self.compiled.as_ref()?;
        probe();
        let input = Input::new(value).anchored(Anchored::Yes);
        let found = regex.search_half(&input)?;
        self.node(found.pattern())
    }

    /// All nodes whose expressions match, for explanations.
    pub(super) fn fitting(&self, value: &str) -> Vec<NodeId> {
        let Some(regex) = &self.compiled else {
            return Vec::new();
        };
        let mut found = PatternSet::new(regex.pattern_len());
        regex.which_overlapping_matches(&Input::new(value), &mut found);
        found.iter().filter_map(|pattern| self.node(pattern)).collect()
    }

    fn node(&self, pattern: PatternID) -> Option<NodeId> {
        self.nodes.get(pattern.as_usize()).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_expressions_are_refused_by_their_size_and_wrong_ones_by_their_syntax() {
        for text in [
            "(a{1000}){1000}",
            "((a{100}){100}){100}",
            r"\w{5000}",
            r"(?:\pL{50}){50}",
            "(x+x+)+y{900000}",
        ] {
            let error = ValueRegex::new(text).unwrap_err();
            assert!(
                error.contains("256 KiB") || error.contains("exceeds"),
                "{text}: {error}"
            );
        }
        for text in [
            "(",
            "a{2,1}",
            "(?=a)",
            r"\1",
            "[z-a]",
            "(?P<n>a)(?P<n>b)",
            &"(".repeat(4000),
        ] {
            let error = ValueRegex::new(text).unwrap_err();
            assert!(error.contains("RE2"), "{text}: {error}");
        }
        // Nothing of an expression gets out of it.
        for text in ["a|b", "(?x) a # comment", "", "^a$", "(?i)A"] {
            assert!(ValueRegex::new(text).is_ok(), "{text}");
        }
    }

    #[test]
    fn names_are_bounded_and_tell_sets_apart() {
        let list = |values: &[&str]| ValueSet::In(values.iter().map(|value| (*value).to_owned()).collect()).to_string();
        assert_eq!(list(&["a", "b"]), "in(a,b)");
        assert_ne!(list(&["a,b"]), list(&["a", "b"]));
        let long = "x".repeat(300);
        let (one, other) = (list(&[&long, "a"]), list(&[&long, "b"]));
        assert!(one.len() < 300 && one != other, "{one}");
    }
}
