//! Which values a descriptor matches: one, those of a wildcard, or a set of them.

use std::collections::HashSet;

use crate::rules::ValueSet;
use crate::rules::cidr::Cidr;
use crate::rules::pattern::is_pattern;
use crate::rules::value_set::{MAX_ALL_REGEX_BYTES, RegexError, USUAL_VALUE, ValueRegex};

use super::super::error::ConfigErrors;
use super::super::field::{Field, Placed};
use super::super::fields::MAX_TEXT;
use super::super::options::Options;
use super::super::problem::Problem;
use super::super::raw::Descriptor;
use super::scope::Scope;

/// What an expression adds to the size of all that is refused for its own: after 16 of them no more are tried.
const COST_OF_REFUSED: usize = MAX_ALL_REGEX_BYTES / 16 + 1;

/// The values of a descriptor.
pub(super) enum WrittenValues<'d> {
    /// All of its key.
    Any,
    /// One, or those of a wildcard.
    Text(&'d str),
    /// Those of a set.
    Set(ValueSet),
}

/// Something that may stand on a level once.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) enum LevelEntry {
    Any,
    Text(String),
    Listed(String),
    Network(Cidr),
    Regex(String),
    /// What paths and labels call it.
    Name(String),
}

impl WrittenValues<'_> {
    /// The text of paths and labels; empty for any value.
    pub(super) fn name(&self) -> String {
        match self {
            Self::Any => String::new(),
            Self::Text(text) => (*text).to_owned(),
            Self::Set(set) => set.to_string(),
        }
    }

    /// What it takes of its level.
    pub(super) fn entries(&self) -> Vec<LevelEntry> {
        let mut entries = match self {
            Self::Any => vec![LevelEntry::Any],
            Self::Text(text) => vec![LevelEntry::Text((*text).to_owned())],
            Self::Set(ValueSet::In(values)) => values.iter().cloned().map(LevelEntry::Listed).collect(),
            Self::Set(ValueSet::Cidr(networks)) => networks.iter().copied().map(LevelEntry::Network).collect(),
            Self::Set(ValueSet::Regex(regex)) => vec![LevelEntry::Regex(regex.text().to_owned())],
        };
        entries.push(LevelEntry::Name(self.name()));
        entries
    }
}

/// Reads the values of a descriptor; `None` when something is wrong with them. `regex_bytes` is what the expressions of
/// all rules compile to so far.
pub(super) fn values<'d>(
    scope: &Scope<'_>,
    descriptor: &'d Descriptor,
    in_metadata: &'d Options,
    regex_bytes: &mut usize,
    errors: &mut ConfigErrors,
) -> Option<WrittenValues<'d>> {
    let before = errors.count();
    let own = &descriptor.options;
    let value = descriptor.value.value().map_or("", String::as_str);
    let mut given: Option<&'static str> = (!value.is_empty()).then_some("value");
    let mut set = None;
    for options in [own, in_metadata] {
        for (field, place) in [
            (
                "value_in",
                options.value_in.is_there().then(|| options.value_in.place()),
            ),
            (
                "value_cidr",
                options.value_cidr.is_there().then(|| options.value_cidr.place()),
            ),
            (
                "value_regex",
                options.value_regex.is_there().then(|| options.value_regex.place()),
            ),
        ] {
            let Some(place) = place else { continue };
            if let Some(other) = given.replace(field) {
                let other = if other == field {
                    "the same in `metadata.sluicegate`"
                } else {
                    other
                };
                scope.report(errors, Problem::Conflict { field, other }, place);
            }
        }
        set = set.or_else(|| set_of(scope, options, regex_bytes, errors));
    }
    let is_whole = errors.count() == before && !matches!(descriptor.value, Field::Broken);
    match (given, set) {
        _ if !is_whole => None,
        (None, _) => Some(WrittenValues::Any),
        (Some("value"), _) => Some(WrittenValues::Text(value)),
        (Some(_), set) => set.map(WrittenValues::Set),
    }
}

fn set_of(
    scope: &Scope<'_>,
    options: &Options,
    regex_bytes: &mut usize,
    errors: &mut ConfigErrors,
) -> Option<ValueSet> {
    if let Some(list) = options.value_in.given() {
        let keep = |text: &Placed<String>, errors: &mut ConfigErrors| {
            if is_pattern(&text.value) {
                scope.warn(errors, Problem::LiteralStar, text.place);
            }
            Some(text.value.clone())
        };
        let values = each(scope, "value_in", list, errors, keep);
        return Some(ValueSet::In(values));
    }
    if let Some(list) = options.value_cidr.given() {
        let network = |text: &Placed<String>, errors: &mut ConfigErrors| {
            let parsed = Cidr::parse(&text.value);
            let unusable = |reason: String| unusable("value_cidr", &text.value, reason);
            parsed
                .map_err(|error| scope.report(errors, unusable(error.to_string()), text.place))
                .ok()
        };
        let networks = each(scope, "value_cidr", list, errors, network);
        return Some(ValueSet::Cidr(networks));
    }
    let regex = options.value_regex.given()?;
    if regex.value.is_empty() {
        scope.report(errors, Problem::Empty { field: "value_regex" }, regex.place);
    }
    if !scope.short(errors, "value_regex", &options.value_regex) {
        return None;
    }
    // Beyond the bound nothing more is compiled: that takes time, too. So does to refuse one for its size.
    let parsed = match *regex_bytes {
        0..=MAX_ALL_REGEX_BYTES => ValueRegex::new(&regex.value),
        _ => return None,
    };
    let parsed = match parsed {
        Ok(parsed) => parsed,
        Err(error) => {
            if !matches!(error, RegexError::Syntax(_)) {
                *regex_bytes = regex_bytes.saturating_add(COST_OF_REFUSED);
            }
            scope.report(
                errors,
                unusable("value_regex", &regex.value, error.to_string()),
                regex.place,
            );
            return None;
        }
    };
    *regex_bytes = regex_bytes.saturating_add(parsed.bytes());
    if *regex_bytes > MAX_ALL_REGEX_BYTES {
        let reason = format!(
            "the expressions of all rules compile to more than {} MiB together: use fewer, smaller ones, or a `*`",
            MAX_ALL_REGEX_BYTES >> 20
        );
        scope.report(errors, unusable("value_regex", parsed.text(), reason), regex.place);
        return None;
    }
    let longest = parsed.longest_value();
    if longest < USUAL_VALUE {
        scope.warn(errors, Problem::RegexSkipsLong { longest }, regex.place);
    }
    Some(ValueSet::Regex(parsed))
}

/// The entries of a list, each read by `read`; none may be empty, too long, or there twice.
fn each<T: Clone + Eq + std::hash::Hash>(
    scope: &Scope<'_>,
    field: &'static str,
    list: &Placed<Vec<Field<String>>>,
    errors: &mut ConfigErrors,
    read: impl Fn(&Placed<String>, &mut ConfigErrors) -> Option<T>,
) -> Vec<T> {
    if list.value.is_empty() {
        scope.report(errors, Problem::EmptyList { field }, list.place);
    }
    let mut seen = HashSet::with_capacity(list.value.len());
    let mut all = Vec::with_capacity(list.value.len());
    for text in list.value.iter().filter_map(Field::given) {
        let problem = match text.value.len() {
            0 => Problem::Empty { field },
            1..=MAX_TEXT => {
                let Some(value) = read(text, errors) else { continue };
                if seen.insert(value.clone()) {
                    all.push(value);
                    continue;
                }
                unusable(field, &text.value, "it stands in the list twice: keep one".to_owned())
            }
            _ => Problem::TooLong { field, max: MAX_TEXT },
        };
        scope.report(errors, problem, text.place);
    }
    all
}

fn unusable(field: &'static str, word: &str, reason: String) -> Problem {
    Problem::Unusable {
        field,
        word: word.to_owned(),
        reason: reason.into(),
    }
}
