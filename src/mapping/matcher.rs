//! Texts, headers and requests that match or do not, as Envoy's matchers of the same names.

use std::borrow::Cow;

use regex::{Regex, RegexBuilder};

use super::path::has_prefix;
use super::{Attributes, Subject, Template};

/// Longest pattern of a regular expression, in bytes.
pub const MAX_REGEX_BYTES: usize = 1024;
/// Bytes that a compiled regular expression and its caches may take, each. Matching is linear in the text either way.
const MAX_REGEX_SIZE: usize = 256 << 10;
/// Deepest nesting in a regular expression.
const MAX_REGEX_NESTING: u32 = 32;

/// Compares a text.
#[derive(Debug, Clone)]
pub struct StringMatcher {
    kind: Kind,
    ignore_case: bool,
}

#[derive(Debug, Clone)]
enum Kind {
    Exact(Box<str>),
    Prefix(Box<str>),
    Suffix(Box<str>),
    Contains(Box<str>),
    Regex(Regex),
}

/// How a text is compared with a fixed one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Comparison {
    /// They are the same.
    Exact,
    /// It begins so.
    Prefix,
    /// It ends so.
    Suffix,
    /// It holds it.
    Contains,
}

impl StringMatcher {
    /// A comparison with a fixed text; `ignore_case` concerns ASCII letters.
    #[must_use]
    pub fn fixed(comparison: Comparison, text: &str, ignore_case: bool) -> Self {
        let text = if ignore_case {
            text.to_ascii_lowercase().into()
        } else {
            text.into()
        };
        let kind = match comparison {
            Comparison::Exact => Kind::Exact(text),
            Comparison::Prefix => Kind::Prefix(text),
            Comparison::Suffix => Kind::Suffix(text),
            Comparison::Contains => Kind::Contains(text),
        };
        Self { kind, ignore_case }
    }

    /// A regular expression that has to match the whole text.
    ///
    /// # Errors
    /// What is wrong with it, in words.
    pub fn regex(pattern: &str) -> Result<Self, String> {
        if pattern.len() > MAX_REGEX_BYTES {
            return Err(format!(
                "it has {} bytes, at most {MAX_REGEX_BYTES} are allowed",
                pattern.len()
            ));
        }
        // By itself first: `a)(b` is no pattern, but would become one between our parentheses.
        build(pattern)?;
        let kind = Kind::Regex(build(&format!("^(?:{pattern})$"))?);
        Ok(Self {
            kind,
            ignore_case: false,
        })
    }

    /// Whether a text matches.
    #[must_use]
    pub fn matches(&self, text: &str) -> bool {
        let text = if self.ignore_case && text.bytes().any(|b| b.is_ascii_uppercase()) {
            Cow::Owned(text.to_ascii_lowercase())
        } else {
            Cow::Borrowed(text)
        };
        match &self.kind {
            Kind::Exact(expected) => *text == **expected,
            Kind::Prefix(prefix) => text.starts_with(&**prefix),
            Kind::Suffix(suffix) => text.ends_with(&**suffix),
            Kind::Contains(part) => text.contains(&**part),
            Kind::Regex(regex) => regex.is_match(&text),
        }
    }
}

fn build(pattern: &str) -> Result<Regex, String> {
    RegexBuilder::new(pattern)
        .size_limit(MAX_REGEX_SIZE)
        .dfa_size_limit(MAX_REGEX_SIZE)
        .nest_limit(MAX_REGEX_NESTING)
        .build()
        .map_err(|error| match error {
            // The library draws the pattern over several lines; its last one says what is wrong.
            regex::Error::Syntax(text) => text.lines().last().unwrap_or_default().trim().to_owned(),
            regex::Error::CompiledTooBig(_) => "it is too large once compiled".to_owned(),
            other => other.to_string(),
        })
}

/// A condition on a header.
#[derive(Debug, Clone)]
pub struct HeaderMatcher {
    /// In lower case.
    pub name: Box<str>,
    /// What its value has to be; `None` = it has to be there.
    pub value: Option<StringMatcher>,
    /// The other way round: another value, or not there.
    pub invert_match: bool,
    /// A missing header counts as an empty one.
    pub treat_missing_header_as_empty: bool,
}

impl HeaderMatcher {
    /// Whether the request's header is as wanted. As in Envoy, a missing header has no value that could be another one:
    /// it matches no condition on the value, inverted or not.
    #[must_use]
    pub fn matches<A: Attributes>(&self, subject: &Subject<'_, A>) -> bool {
        let mut found = subject.header_values(&self.name);
        if found.is_empty() && self.treat_missing_header_as_empty {
            found.push(Cow::Borrowed(""));
        }
        let matched = match &self.value {
            None => !found.is_empty(),
            Some(_) if found.is_empty() => return false,
            // Envoy compares the values of a repeated header one by one.
            Some(matcher) => found.iter().any(|value| matcher.matches(value)),
        };
        matched != self.invert_match
    }
}

/// A condition on a query parameter.
#[derive(Debug, Clone)]
pub struct QueryMatcher {
    /// Its name.
    pub name: Box<str>,
    /// What its value has to be; `None` = it has to be there.
    pub value: Option<StringMatcher>,
    /// It must not be there.
    pub absent: bool,
}

impl QueryMatcher {
    /// Whether the request's parameter is as wanted.
    #[must_use]
    pub fn matches(&self, path: &str) -> bool {
        match (&self.value, super::query::parameter(path, &self.name)) {
            (_, None) => self.absent,
            (None, Some(_)) => !self.absent,
            (Some(matcher), Some(value)) => matcher.matches(&value),
        }
    }
}

/// A condition on the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HostMatcher {
    /// This one; in lower case.
    Exact(Box<str>),
    /// `*.example.com`: any below it; holds `.example.com`.
    Below(Box<str>),
}

/// A condition on the path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PathMatcher {
    /// This one.
    Exact(Box<str>),
    /// This one or below it.
    Prefix(Box<str>),
    /// One that fits.
    Template(Template),
}

/// Which requests a list is for. Each field that is not empty has to hold; of its items one, of `headers` all.
#[derive(Debug, Clone, Default)]
pub struct RequestMatcher {
    /// Hosts.
    pub hosts: Box<[HostMatcher]>,
    /// Paths.
    pub paths: Box<[PathMatcher]>,
    /// Methods.
    pub methods: Box<[Box<str>]>,
    /// Headers.
    pub headers: Box<[HeaderMatcher]>,
}

impl RequestMatcher {
    /// Whether a request is meant.
    #[must_use]
    pub fn matches<A: Attributes>(&self, subject: &Subject<'_, A>) -> bool {
        let method = subject.attributes().method();
        (self.methods.is_empty() || self.methods.iter().any(|wanted| **wanted == *method))
            && (self.hosts.is_empty() || self.hosts.iter().any(|wanted| wanted.matches(subject.host())))
            && (self.paths.is_empty() || self.paths.iter().any(|wanted| wanted.matches(subject.path())))
            && self.headers.iter().all(|wanted| wanted.matches(subject))
    }
}

impl HostMatcher {
    fn matches(&self, host: &str) -> bool {
        match self {
            Self::Exact(wanted) => *host == **wanted,
            Self::Below(suffix) => host.len() > suffix.len() && host.ends_with(&**suffix),
        }
    }
}

impl PathMatcher {
    fn matches(&self, path: &str) -> bool {
        match self {
            Self::Exact(wanted) => *path == **wanted,
            Self::Prefix(prefix) => has_prefix(path, prefix),
            Self::Template(template) => template.matches(path),
        }
    }
}
