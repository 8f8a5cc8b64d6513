//! Which requests a route is for.

use serde_json::Value;

use crate::mapping::matcher::QueryMatcher;
use crate::mapping::{Attributes, HeaderMatcher, StringMatcher, Subject};

use super::EnvoyError;
use super::json::{field, path, text, truth, unknown};
use super::matchers;

/// A route's `match`.
pub(super) struct RouteMatcher {
    path: PathRule,
    headers: Box<[HeaderMatcher]>,
    query: Box<[QueryMatcher]>,
    is_grpc: bool,
}

struct PathRule {
    kind: PathKind,
    ignore_case: bool,
}

enum PathKind {
    Exact(String),
    Prefix(String),
    /// The path itself, or what lies below it.
    Below(String),
    Regex(StringMatcher),
}

impl RouteMatcher {
    pub(super) fn read(message: &Value, place: &str) -> Result<Self, EnvoyError> {
        let known = [
            "prefix",
            "path",
            "safe_regex",
            "path_separated_prefix",
            "case_sensitive",
            "headers",
            "query_parameters",
            "grpc",
        ];
        if let Some(unknown) = unknown(message, &known) {
            return Err(EnvoyError::unsupported(place, format!("match by {unknown}")));
        }
        let ignore_case = truth(message, "case_sensitive") == Some(false);
        let fold = |name: &str| {
            let text = text(message, name);
            if ignore_case { text.to_ascii_lowercase() } else { text }
        };
        let kind = if field(message, "path").is_some() {
            PathKind::Exact(fold("path"))
        } else if field(message, "path_separated_prefix").is_some() {
            PathKind::Below(fold("path_separated_prefix"))
        } else if let Some(regex) = field(message, "safe_regex") {
            PathKind::Regex(matchers::regex_of(regex, place)?)
        } else {
            PathKind::Prefix(fold("prefix"))
        };
        Ok(Self {
            path: PathRule { kind, ignore_case },
            headers: matchers::headers(message, "headers", place)?,
            query: matchers::queries(message, "query_parameters", place)?,
            is_grpc: path(message, &["grpc"]).is_some(),
        })
    }

    pub(super) fn matches<A: Attributes>(&self, subject: &Subject<'_, A>) -> bool {
        let target = subject.attributes().path();
        self.path.matches(target.split(['?', '#']).next().unwrap_or_default())
            && self.headers.iter().all(|header| header.matches(subject))
            && self.query.iter().all(|wanted| has_query(target, wanted))
            && (!self.is_grpc || is_grpc(subject))
    }
}

impl PathRule {
    fn matches(&self, path: &str) -> bool {
        let folded;
        let path = if self.ignore_case {
            folded = path.to_ascii_lowercase();
            &folded
        } else {
            path
        };
        match &self.kind {
            PathKind::Exact(wanted) => path == wanted,
            PathKind::Prefix(prefix) => path.starts_with(prefix.as_str()),
            PathKind::Below(prefix) => path
                .strip_prefix(prefix.as_str())
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/')),
            PathKind::Regex(regex) => regex.matches(path),
        }
    }
}

fn is_grpc<A: Attributes>(subject: &Subject<'_, A>) -> bool {
    let Some(content_type) = subject.header("content-type") else {
        return false;
    };
    let rest = content_type.strip_prefix("application/grpc");
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['+', ';']))
}

/// Whether a query parameter is as wanted. Envoy's routes compare names and values as they were sent; its actions decode
/// them.
fn has_query(target: &str, wanted: &QueryMatcher) -> bool {
    let query = target.split_once('?').map_or("", |(_, query)| query);
    let pairs = query.split('#').next().unwrap_or_default().split('&');
    let mut pairs = pairs.map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    let found = pairs.find(|(name, _)| *name == &*wanted.name).map(|(_, value)| value);
    match (&wanted.value, found) {
        (_, None) => wanted.absent,
        (None, Some(_)) => !wanted.absent,
        (Some(matcher), Some(value)) => matcher.matches(value),
    }
}
