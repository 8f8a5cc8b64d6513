//! The kinds of things that can be wrong with rules, each with a sentence that says how to fix it.

use std::borrow::Cow;
use std::fmt::{self, Write};

use thiserror::Error;

use crate::algorithms::limit::LimitError;
use crate::model::{AlgorithmKind, Window};

/// Longest piece of a user's text that a message repeats, in characters.
const QUOTED_CHARS: usize = 80;

/// What is wrong.
#[derive(Debug, Clone, PartialEq, Error)]
#[allow(missing_docs, reason = "each is its message")]
pub enum Problem {
    // Files
    #[error("cannot be read: {reason}")]
    Unreadable { reason: String },
    #[error("is not UTF-8 text")]
    NotUtf8,
    #[error("has more than {max} bytes")]
    TooLarge { max: u64 },
    #[error("has no rules files in it")]
    NoFiles,
    #[error("has more than {max} files in it")]
    TooManyFiles { max: usize },
    #[error("has directories nested deeper than {max}")]
    DirectoriesTooDeep { max: usize },
    // YAML
    #[error("not valid YAML: {reason}")]
    Syntax { reason: String },
    #[error("a value that starts with `*` stands without quotes")]
    UnquotedWildcard,
    #[error("more than one YAML document")]
    SeveralDocuments,
    #[error("nested too deeply, or more than any rules file needs: {reason}")]
    TooComplex { reason: String },
    // Shape
    #[error("a Kubernetes resource ({}) is no rules file", Quoted(.kind))]
    Resource { kind: String },
    #[error("unknown field {} in {context}", Quoted(.field))]
    UnknownField {
        field: String,
        context: &'static str,
        suggestion: Option<&'static str>,
        allowed: &'static [&'static str],
    },
    #[error("`{field}` has no effect in {context}: it belongs in {belongs}")]
    Misplaced {
        field: &'static str,
        context: &'static str,
        belongs: &'static str,
    },
    #[error("field `{field}` stands here twice, the first time on line {first_line}")]
    RepeatedField { field: &'static str, first_line: usize },
    #[error("{subject} must be {expected}, not {found}")]
    WrongType {
        subject: String,
        expected: &'static str,
        found: String,
    },
    #[error("`{field}` must be between {min} and {max}, not {found}")]
    OutOfRange {
        field: &'static str,
        min: u64,
        max: u64,
        found: String,
    },
    #[error("{context} has no `{field}`")]
    Missing {
        field: &'static str,
        context: &'static str,
        help: &'static str,
    },
    #[error("`{field}` is empty")]
    Empty { field: &'static str },
    #[error("`{field}` is empty")]
    EmptyList { field: &'static str },
    #[error("a `*` in `value_in` is no wildcard: it stands for itself")]
    LiteralStar,
    #[error("`{field}` is longer than {max} bytes")]
    TooLong { field: &'static str, max: usize },
    #[error("descriptors are nested deeper than {max} levels")]
    TooManyLevels { max: usize },
    #[error("unknown {field} {}", Quoted(.word))]
    UnknownWord {
        field: &'static str,
        word: String,
        suggestion: Option<&'static str>,
        allowed: &'static [&'static str],
    },
    #[error("`{field}` {} is no duration: {reason}", Quoted(.word))]
    BadDuration {
        field: &'static str,
        word: String,
        reason: Cow<'static, str>,
        example: &'static str,
    },
    #[error("`{field}` has more than {max} entries")]
    TooMany { field: &'static str, max: usize },
    #[error("{context} must have exactly one of its kinds")]
    NotOne {
        context: &'static str,
        allowed: &'static [&'static str],
    },
    #[error("`{field}` {} cannot be used: {reason}", Quoted(.word))]
    Unusable {
        field: &'static str,
        word: String,
        reason: Cow<'static, str>,
    },
    // Meaning
    #[error("the domain has an `ext_authz` section in another file already")]
    SecondExtAuthz,
    #[error("`default: true` stands in the `ext_authz` section of another domain already")]
    SecondDefault,
    #[error("no rule of the domain counts what these actions make: {keys}")]
    NoRuleFor { keys: String },
    #[error("domain {} stands in another file already: {first}", Quoted(.domain))]
    DuplicateDomain { domain: String, first: String },
    #[error("the domain has a source {} in another file already: {first}", Quoted(.name))]
    DuplicateSource { name: String, first: String },
    #[error("this key and value stand on this level already: {first}")]
    DuplicateDescriptor { first: String },
    #[error("paths and metrics call these values {}, as those of {first}", Quoted(.name))]
    SameName { name: String, first: String },
    #[error("`{field}` beside `unlimited: true`")]
    BesideUnlimited { field: &'static str },
    #[error("`{field}` beside `{other}`")]
    Conflict { field: &'static str, other: &'static str },
    #[error("`{field}` has no effect here: it needs {needs}")]
    NoEffect { field: &'static str, needs: &'static str },
    #[error("`{field}` has no value, so it is as if it were not there")]
    NoValue { field: &'static str },
    #[error("no descriptor matches the key `sluicegate_hold`: it is taken out before rules are looked for")]
    HoldKey,
    #[error("it has no `hold` beside limits that have one, so it counts what requests hold, and then what they cost")]
    CountsEstimates,
    #[error("a hold's ttl of {ttl} is longer than the window of {window}, and is cut to it")]
    HoldOutlastsWindow { ttl: String, window: Window },
    #[error("each value that matches has a counter of its own, so a client that varies it is not limited")]
    WildcardUnsaid,
    #[error(
        "values longer than {longest} bytes do not match it, so a client that makes one longer is not counted here"
    )]
    RegexSkipsLong { longest: usize },
    #[error("`{field}` needs a `rate_limit` to apply to")]
    NeedsRateLimit { field: &'static str },
    #[error("a `candidate` cannot be `algorithm: concurrency`: requests release only what the live limit gave them")]
    ConcurrencyCandidate,
    #[error("a rule cannot replace itself ({})", Quoted(.name))]
    ReplacesItself { name: String },
    #[error("no rule of the domain is called {}, so nothing is replaced", Quoted(.name))]
    ReplacesNothing { name: String },
    #[error("`rate_limit` is one limit, not a list")]
    ListOfOne,
    #[error("`{field}` has more than {max} limits")]
    TooManyLimits { field: &'static str, max: usize },
    #[error("`unlimited` beside other limits")]
    UnlimitedOfSeveral,
    #[error("another limit with `plan_from` this source stands here already")]
    SameSource,
    #[error("it would replace another limit of its own list, {}, which then never counts", Quoted(.name))]
    ReplacesSibling { name: String },
    #[error("`{field}` in `metadata.sluicegate` beside `rate_limits`")]
    OfEachLimit { field: &'static str },
    #[error("another limit per {window} by {algorithm} stands here already")]
    SameLimit { window: Window, algorithm: AlgorithmKind },
    #[error("`share_threshold` without a wildcard in the value, or several values")]
    SharesWithoutWildcard,
    #[error("more than {max} `*` in one value")]
    TooManyWildcards { max: usize },
    #[error("a number in `metadata` is not finite")]
    NotFinite,
    #[error(transparent)]
    Limit(#[from] LimitError),
}

impl Problem {
    /// How to fix it, unless the message says so itself.
    #[must_use]
    pub fn help(&self) -> Option<Cow<'static, str>> {
        Some(match self {
            Self::Unreadable { .. } => "give a file or a directory that exists and that this user may read".into(),
            Self::NotUtf8 => "save it as UTF-8".into(),
            Self::TooLarge { .. } => "split it into several files, one domain each".into(),
            Self::NoFiles => {
                "put at least one rules file there (names that start with a dot and editors' backups do not count)"
                    .into()
            }
            Self::TooManyFiles { .. } | Self::DirectoriesTooDeep { .. } => {
                "give the directory that holds the rules and nothing else".into()
            }
            Self::Syntax { .. } => "check indentation (spaces only), quotes and brackets at this place".into(),
            Self::UnquotedWildcard => {
                "quote it, as in `value: \"*.example.com\"`: in YAML a bare `*` refers to an anchor".into()
            }
            Self::SeveralDocuments => "put each document into a file of its own".into(),
            Self::TooComplex { .. } => "split it into several files and write out its aliases".into(),
            Self::Resource { kind } if kind == "ConfigMap" => {
                "put each text below its `data` into a file of its own, as mounting it does".into()
            }
            Self::Resource { .. } => {
                "a rules file has `domain` and `descriptors`: write the limits of the resource so".into()
            }
            Self::UnknownField {
                suggestion, allowed, ..
            }
            | Self::UnknownWord {
                suggestion, allowed, ..
            } => suggest(*suggestion, allowed),
            Self::Misplaced { field, belongs, .. } => format!("move `{field}` to {belongs}, or leave it out").into(),
            Self::RepeatedField { .. } => "keep one of them".into(),
            Self::WrongType { expected, .. } => format!("write {expected} here").into(),
            Self::OutOfRange { min, max, .. } => format!("write a whole number from {min} to {max}").into(),
            Self::Missing { help, .. } => (*help).into(),
            Self::Empty { field } => format!("give `{field}` a text").into(),
            Self::TooLong { max, .. } => format!("shorten it to {max} bytes").into(),
            Self::TooManyLevels { max } => format!("flatten the tree to {max} levels").into(),
            Self::BadDuration { example, .. } => format!("write it as in `{example}`").into(),
            Self::TooMany { max, .. } => format!("use at most {max}").into(),
            Self::NotOne { allowed, .. } => format!("give one of: {}", allowed.join(", ")).into(),
            Self::Unusable { .. } => return None,
            Self::SecondExtAuthz => "keep one of them".into(),
            Self::SecondDefault => "keep one of them: it answers requests that name no domain".into(),
            Self::NoRuleFor { .. } => {
                "add a rule with these keys below `descriptors`, or fix the `descriptor_key`s".into()
            }
            Self::DuplicateDomain { .. } => {
                "keep a domain in one file, or switch merging on (MERGE_DOMAIN_CONFIG=true)".into()
            }
            Self::RegexSkipsLong { .. } => {
                "write smaller classes (`[0-9A-Za-z_]` for `\\w`, `[0-9]` for `\\d`) and repetitions".into()
            }
            Self::DuplicateSource { .. } => {
                "give one of them another name: metrics and logs tell sources apart by domain and name".into()
            }
            Self::DuplicateDescriptor { .. } => {
                "keep one of them, or put what differs into `descriptors` below it".into()
            }
            Self::BesideUnlimited { field } => format!("leave out `{field}`, or `unlimited`").into(),
            Self::Conflict { field, other } => format!("keep `{field}` or `{other}`, not both").into(),
            Self::NoEffect { field, needs } => format!("add {needs}, or leave out `{field}`").into(),
            Self::NoValue { field } => format!("write `{field}: {{}}` for its defaults, or leave it out").into(),
            Self::HoldKey => "put what stands below it in its place".into(),
            Self::CountsEstimates => "give it a `hold`, too, or a descriptor of its own".into(),
            Self::HoldOutlastsWindow { .. } => "give the longest time that a request may take".into(),
            Self::NotFinite => "quote it to keep it as text".into(),
            Self::Limit(_) => return None,
            _ => return self.help_of_descriptor(),
        })
    }

    /// The same for what stands together on a descriptor.
    fn help_of_descriptor(&self) -> Option<Cow<'static, str>> {
        Some(match self {
            Self::TooManyLimits { max, .. } => {
                format!("keep the {max} that matter, or put some on a descriptor of their own").into()
            }
            Self::UnlimitedOfSeveral => "leave it out: the other limits hold".into(),
            Self::SameLimit { .. } => "keep the smaller one, which decides alone, or give it another window".into(),
            Self::SameName { .. } => {
                "write the one `value` as a `value_in` with one more entry, or leave it out".into()
            }
            Self::ReplacesItself { .. } => "name another rule, or leave it out".into(),
            Self::ConcurrencyCandidate => "give another algorithm, or try it in `shadow_mode`".into(),
            Self::NeedsRateLimit { field } => format!("add a `rate_limit`, or leave out `{field}`").into(),
            Self::EmptyList { field } => format!("add an entry, or leave out `{field}`").into(),
            Self::LiteralStar => "for a wildcard, give it a descriptor of its own with `value: …`".into(),
            Self::ListOfOne => "write `rate_limits: [ … ]` for several".into(),
            Self::SameSource => "keep one of them: both would count the same".into(),
            Self::ReplacesNothing { .. } => "give a rule this `name`, or leave it out".into(),
            Self::ReplacesSibling { .. } => "leave it out, or leave out the limit that should not count".into(),
            Self::OfEachLimit { field } => {
                format!("move `{field}` into the limits of the list that it is meant for").into()
            }
            Self::WildcardUnsaid => {
                "say `share_threshold: true` for one counter for all of them, or `share_threshold: false` to keep it so"
                    .into()
            }
            Self::SharesWithoutWildcard => {
                "put a `*` into `value`, give `value_in`, `value_cidr` or `value_regex`, or leave out `share_threshold`"
                    .into()
            }
            Self::TooManyWildcards { max } => format!("use at most {max}").into(),
            _ => return None,
        })
    }
}

fn suggest(suggestion: Option<&'static str>, allowed: &[&str]) -> Cow<'static, str> {
    match suggestion {
        Some(word) => format!("did you mean `{word}`?").into(),
        None => format!("one of: {}", allowed.join(", ")).into(),
    }
}

/// The allowed word that a wrong one was probably meant to be.
#[must_use]
pub fn nearest(word: &str, allowed: &[&'static str]) -> Option<&'static str> {
    // Longer than any of ours can be misspelt: not worth comparing.
    if word.len() > 40 {
        return None;
    }
    let flat = |text: &str| text.to_ascii_lowercase().replace(['_', '-', ' '], "");
    let word = flat(word);
    allowed
        .iter()
        .map(|candidate| (strsim::damerau_levenshtein(&word, &flat(candidate)), *candidate))
        .filter(|(distance, candidate)| *distance <= candidate.len() / 3)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// A user's text in a message: in quotes, escaped, and not too long.
pub struct Quoted<'t>(pub &'t str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_char('"')?;
        write_clipped(f, self.0)?;
        f.write_char('"')
    }
}

/// A user's text in a path: escaped, and not too long.
pub struct Clipped<'t>(pub &'t str);

impl fmt::Display for Clipped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_clipped(f, self.0)
    }
}

fn write_clipped(f: &mut fmt::Formatter<'_>, text: &str) -> fmt::Result {
    for (at, c) in text.chars().enumerate() {
        if at == QUOTED_CHARS {
            return f.write_char('…');
        }
        match c {
            // Escaped only where it quotes, which it does not here.
            '\'' => f.write_char(c)?,
            c => write!(f, "{}", c.escape_debug())?,
        }
    }
    Ok(())
}
