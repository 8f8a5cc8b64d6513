//! Values that a descriptor gives otherwise than by one text: lists, networks ([`super::cidr`]) and regular expressions.

use std::convert::Infallible;
use std::fmt::{self, Write};

use regex_automata::meta;
use regex_automata::nfa::thompson;
use regex_automata::util::primitives::PatternID;
use regex_automata::{Anchored, Input};
use regex_syntax::ast::{Ast, ClassSetItem, Flag, Flags, GroupKind, Visitor};
use regex_syntax::hir::{Hir, Look};

use super::cidr::Cidr;
use super::pattern::NodeId;

/// Most bytes that one regular expression may compile to.
pub const MAX_REGEX_BYTES: usize = 256 << 10;
/// Most characters of classes that one expression may look at to ignore case.
const MAX_FOLDED: u64 = 2 << 20;
/// Characters of a class of Unicode, such as `\pL`: about as many as the largest of letters.
const CLASS_CHARACTERS: u64 = 128 << 10;
/// Most bytes that the regular expressions of all rules may compile to.
pub const MAX_ALL_REGEX_BYTES: usize = 16 << 20;
/// The longest value that an expression is tried on, in bytes, times the bytes that it compiles to: the most work of a match,
/// since each byte of a value may have to look at each state. What compiles to 1 KiB is tried on all values (128 KiB).
const MAX_WORK: usize = 1 << 27;
/// The longest value that is usual: Envoy takes no more bytes of headers unless it is told to.
pub const USUAL_VALUE: usize = 60 << 10;
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

/// Why an expression is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RegexError {
    /// It is none.
    #[error("{0}; its syntax is RE2's")]
    Syntax(String),
    /// `(?i)` has to look at each character of each class.
    #[error("it has too many classes for `(?i)`: write ASCII ones, as in `[a-z]`, or leave out `(?i)`")]
    TooManyClasses,
    /// It would match slowly.
    #[error("it compiles to more than {} KiB: make its repetitions and classes smaller", MAX_REGEX_BYTES >> 10)]
    TooLarge,
}

/// How many characters of classes are looked at to make an expression ignore case; 0 if it does not.
fn folded_characters(ast: &Ast) -> u64 {
    #[derive(Default)]
    struct Classes {
        ignores_case: bool,
        characters: u64,
    }

    impl Classes {
        fn take_flags(&mut self, flags: &Flags) {
            self.ignores_case |= flags.flag_state(Flag::CaseInsensitive) == Some(true);
        }
    }

    impl Visitor for Classes {
        type Output = u64;
        type Err = Infallible;

        fn finish(self) -> Result<u64, Infallible> {
            Ok(if self.ignores_case { self.characters } else { 0 })
        }

        fn visit_pre(&mut self, ast: &Ast) -> Result<(), Infallible> {
            match ast {
                Ast::Flags(set) => self.take_flags(&set.flags),
                Ast::Group(group) => {
                    if let GroupKind::NonCapturing(flags) = &group.kind {
                        self.take_flags(flags);
                    }
                }
                Ast::ClassUnicode(_) | Ast::ClassPerl(_) => self.characters += CLASS_CHARACTERS,
                _ => {}
            }
            Ok(())
        }

        fn visit_class_set_item_pre(&mut self, item: &ClassSetItem) -> Result<(), Infallible> {
            self.characters += match item {
                ClassSetItem::Unicode(_) | ClassSetItem::Perl(_) => CLASS_CHARACTERS,
                ClassSetItem::Range(range) => u64::from(u32::from(range.end.c) - u32::from(range.start.c)) + 1,
                _ => 1,
            };
            Ok(())
        }
    }

    match regex_syntax::ast::visit(ast, Classes::default()) {
        Ok(characters) => characters,
        Err(never) => match never {},
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
    /// Reads an expression in RE2's syntax. Each step is bounded before it is taken, so that none is slow.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn new(text: &str) -> Result<Self, RegexError> {
        let ast = regex_syntax::ast::parse::Parser::new().parse(text);
        let ast = ast.map_err(|error| RegexError::Syntax(error.kind().to_string()))?;
        if folded_characters(&ast) > MAX_FOLDED {
            return Err(RegexError::TooManyClasses);
        }
        let hir = regex_syntax::hir::translate::Translator::new().translate(text, &ast);
        let hir = hir.map_err(|error| RegexError::Syntax(error.kind().to_string()))?;
        let whole = Hir::concat(vec![Hir::look(Look::Start), hir, Hir::look(Look::End)]);
        let bounded = thompson::Config::new().nfa_size_limit(Some(MAX_REGEX_BYTES));
        let compiled = thompson::Compiler::new().configure(bounded).build_from_hir(&whole);
        let nfa = compiled.map_err(|_| RegexError::TooLarge)?;
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

    /// The longest value that it is tried on, in bytes.
    #[must_use]
    pub const fn longest_value(&self) -> usize {
        MAX_WORK / if self.bytes == 0 { 1 } else { self.bytes }
    }
}

/// The regular expressions of one key at one level, as one automaton.
#[derive(Debug, Default)]
pub(super) struct Regexes {
    waiting: Vec<Hir>,
    nodes: Vec<NodeId>,
    bytes: usize,
    /// The shortest of [`ValueRegex::longest_value`], since all are tried at once.
    longest_value: Option<usize>,
    compiled: Option<meta::Regex>,
}

impl Regexes {
    /// Adds one; it matches from [`Self::compile`] on.
    pub(super) fn insert(&mut self, regex: &ValueRegex, node: NodeId) {
        self.waiting.push(regex.whole.clone());
        self.nodes.push(node);
        self.bytes = self.bytes.saturating_add(regex.bytes);
        let longest = regex.longest_value();
        self.longest_value = Some(self.longest_value.map_or(longest, |known| known.min(longest)));
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

    /// Whether a value is too long for one of them, so that none is tried.
    pub(super) fn is_too_long(&self, value: &str) -> bool {
        self.longest_value.is_some_and(|longest| value.len() > longest)
    }

    /// Whether one of them leads to a node.
    pub(super) fn lead_to(&self, node: NodeId) -> bool {
        self.nodes.contains(&node)
    }

    /// The first declared one that matches the whole value. One pass over the value, whatever their number.
    pub(super) fn find(&self, value: &str, probe: &mut impl FnMut()) -> Option<NodeId> {
        if self.is_too_long(value) {
            return None;
        }
        let regex = self.compiled.as_ref()?;
        probe();
        let input = Input::new(value).anchored(Anchored::Yes);
        let found = regex.search_half(&input)?;
        self.node(found.pattern())
    }

    /// All nodes whose expressions match, for explanations.
    pub(super) fn fitting(&self, value: &str) -> Vec<NodeId> {
        let Some(regex) = self.compiled.as_ref().filter(|_| !self.is_too_long(value)) else {
            return Vec::new();
        };
        // Each by itself, since one search for all ends with the first.
        let fits = |number: usize| {
            let pattern = PatternID::new(number).ok()?;
            regex.search_half(&Input::new(value).anchored(Anchored::Pattern(pattern)))
        };
        let nodes = self.nodes.iter().enumerate();
        nodes.filter_map(|(number, node)| fits(number).map(|_| *node)).collect()
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
            let error = ValueRegex::new(text).unwrap_err().to_string();
            assert!(
                error.contains("256 KiB") || error.contains("exceeds"),
                "{text}: {error}"
            );
        }
        // Before anything is looked up for them: seconds, otherwise.
        for text in [
            format!("(?i){}", r"\pL".repeat(1360)),
            format!("(?i:{})", r"[\x{0}-\x{10FFFF}]".repeat(200)),
            format!("a(?i){}", r"[^\w]".repeat(800)),
            format!("(?i-u){}(?u){}", "a", r"\w".repeat(800)),
        ] {
            assert_eq!(ValueRegex::new(&text).unwrap_err(), RegexError::TooManyClasses);
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
            assert!(matches!(error, RegexError::Syntax(_)), "{text}: {error}");
        }
        // Nothing of an expression gets out of it.
        for text in [
            "a|b",
            "(?x) a # comment",
            "",
            "^a$",
            "(?i)A",
            r"(?i)/[a-z0-9_-]+/\w+/\d+",
            r"\w+/\pL+",
        ] {
            assert!(ValueRegex::new(text).is_ok(), "{text}");
        }
    }

    /// The work of a match is bounded by both sizes together; expressions of a usual size are tried on every value there is.
    #[test]
    fn expressions_are_not_tried_on_values_that_are_too_long_for_their_size() {
        let longest = |text: &str| ValueRegex::new(text).unwrap().longest_value();
        for text in [
            "/orders/[0-9]+(/.*)?",
            "[a-z0-9-]+\\.example\\.com",
            "(?i)/(login|signup)(\\?.*)?",
        ] {
            assert!(longest(text) >= USUAL_VALUE, "{text}: {}", longest(text));
        }
        let (hostile, usual) = ("[ab]*a[ab]{3000}", "b+");
        assert!((512..2 << 10).contains(&longest(hostile)), "{}", longest(hostile));
        for (expressions, tries) in [(&[usual][..], true), (&[hostile, usual], false)] {
            let mut regexes = Regexes::default();
            for (node, text) in (0..).zip(expressions) {
                regexes.insert(&ValueRegex::new(text).unwrap(), node);
            }
            regexes.compile();
            let value = "b".repeat(longest(hostile) + 1);
            assert_eq!(regexes.find(&value, &mut || {}).is_some(), tries);
            assert_eq!(regexes.fitting(&value).is_empty(), !tries);
            assert!(regexes.find("bb", &mut || {}).is_some());
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
