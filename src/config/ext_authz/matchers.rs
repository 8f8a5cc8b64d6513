//! Conditions on requests, headers and texts, by the names of Envoy's own matchers.

use crate::mapping::matcher::{Comparison, HostMatcher, PathMatcher, QueryMatcher};
use crate::mapping::spelling::normalize as normalized;
use crate::mapping::{HeaderMatcher, RequestMatcher, StringMatcher};

use super::super::error::Place;
use super::super::fields::{Fields, Reader};
use super::super::node::{Node, Value};
use super::super::problem::Problem;

/// Most items of one condition.
const MAX_ITEMS: usize = 256;

const MATCH: [&str; 6] = ["host", "path", "path_prefix", "path_template", "method", "headers"];
const HEADER: [&str; 5] = [
    "name",
    "string_match",
    "present_match",
    "invert_match",
    "treat_missing_header_as_empty",
];
const QUERY: [&str; 3] = ["name", "string_match", "present_match"];
const STRING: [&str; 6] = ["exact", "prefix", "suffix", "contains", "safe_regex", "ignore_case"];
const REGEX: [&str; 1] = ["regex"];

impl Reader<'_> {
    pub(super) fn request_matcher(&mut self, list: &Fields<'_>, normalize: bool) -> RequestMatcher {
        let mut matcher = RequestMatcher::default();
        let Some(node) = list.get("match") else {
            return matcher;
        };
        let Some(fields) = self.fields(node, "`match`", &MATCH) else {
            return matcher;
        };
        if let Some(hosts) = self.one_or_more(&fields, "host", MAX_ITEMS, Self::host) {
            matcher.hosts = hosts;
        }
        if let Some(methods) = self.one_or_more(&fields, "method", MAX_ITEMS, Self::method) {
            matcher.methods = methods;
        }
        matcher.paths = self.paths(&fields, normalize);
        if let Some(headers) = fields
            .get("headers")
            .and_then(|node| self.items(node, "headers", MAX_ITEMS))
        {
            matcher.headers = headers.iter().filter_map(|item| self.header_matcher(item)).collect();
        }
        matcher
    }

    fn paths(&mut self, fields: &Fields<'_>, normalize: bool) -> Box<[PathMatcher]> {
        let mut given = ["path", "path_prefix", "path_template"]
            .into_iter()
            .filter(|name| fields.get(name).is_some());
        if let (Some(first), Some(second)) = (given.next(), given.next()) {
            let problem = Problem::Conflict {
                field: first,
                other: second,
            };
            let place = fields.get(second).and_then(|node| node.place);
            self.report(problem, place);
        }
        let exact = |reader: &mut Self, text: &str, place| {
            let path = reader.written_path("path", text, text, normalize, place)?;
            Some(PathMatcher::Exact(path.into()))
        };
        let prefix = |reader: &mut Self, text: &str, place| {
            let bare = text.strip_suffix('/').filter(|bare| !bare.is_empty()).unwrap_or(text);
            let path = reader.written_path("path_prefix", text, bare, normalize, place)?;
            Some(PathMatcher::Prefix(path.into()))
        };
        if let Some(paths) = self.one_or_more(fields, "path", MAX_ITEMS, exact) {
            return paths;
        }
        if let Some(paths) = self.one_or_more(fields, "path_prefix", MAX_ITEMS, prefix) {
            return paths;
        }
        let templates = match fields.get("path_template") {
            Some(_) => self.templates(fields, "path_template", normalize),
            None => None,
        };
        templates
            .map(|templates| templates.into_iter().map(PathMatcher::Template).collect())
            .unwrap_or_default()
    }

    /// A path as requests have it when they are compared.
    fn written_path<'t>(
        &mut self,
        field: &'static str,
        text: &str,
        path: &'t str,
        normalize: bool,
        place: Option<Place>,
    ) -> Option<&'t str> {
        let reason = if !path.starts_with('/') {
            "a path starts with `/`".to_owned()
        } else if path.contains(['?', '#']) {
            "paths are compared without their query".to_owned()
        } else if normalize && normalized(path) != path {
            format!("paths are compared as `{}`: write it like that", normalized(path))
        } else {
            return Some(path);
        };
        let problem = Problem::Unusable {
            field,
            word: text.to_owned(),
            reason: reason.into(),
        };
        self.report(problem, place);
        None
    }

    fn host(&mut self, text: &str, place: Option<Place>) -> Option<HostMatcher> {
        let lower = text.to_ascii_lowercase();
        let name = lower.strip_prefix("*.").unwrap_or(&lower);
        let literal = name.starts_with('[') && name.ends_with(']');
        if name.is_empty() || name.contains(['*', '/', '@', ' ']) || (name.contains(':') && !literal) {
            let problem = Problem::Unusable {
                field: "host",
                word: text.to_owned(),
                reason: "write a host without its port, or `*.example.com` for all below it".into(),
            };
            self.report(problem, place);
            return None;
        }
        Some(match lower.strip_prefix('*') {
            Some(suffix) => HostMatcher::Below(suffix.into()),
            None => HostMatcher::Exact(lower.into()),
        })
    }

    fn method(&mut self, text: &str, place: Option<Place>) -> Option<Box<str>> {
        if !text.is_empty() && text.bytes().all(|b| b.is_ascii_uppercase() || matches!(b, b'-' | b'_')) {
            return Some(text.into());
        }
        let problem = Problem::Unusable {
            field: "method",
            word: text.to_owned(),
            reason: "methods are written in capitals, as in `GET`".into(),
        };
        self.report(problem, place);
        None
    }

    pub(super) fn header_matcher(&mut self, node: &Node) -> Option<HeaderMatcher> {
        let fields = self.fields(node, "a header matcher", &HEADER)?;
        let text = ("a header matcher", "add `name: …`, the header");
        let named = self.needed(node, &fields, "name", text).is_some();
        let name = if named { self.header_name(&fields, "name") } else { None };
        let inverted = self.truth(&fields, "invert_match").is_true();
        let as_empty = self.truth(&fields, "treat_missing_header_as_empty").is_true();
        let (value, present) = self.value_or_presence(&fields)?;
        Some(HeaderMatcher {
            name: name?,
            value,
            // `present_match: false` is the other way to say it.
            invert_match: inverted == present,
            treat_missing_header_as_empty: as_empty,
        })
    }

    pub(super) fn query_matcher(&mut self, node: &Node) -> Option<QueryMatcher> {
        let fields = self.fields(node, "a query parameter matcher", &QUERY)?;
        let text = ("a query parameter matcher", "add `name: …`, the parameter");
        let name = self.needed(node, &fields, "name", text);
        let (value, present) = self.value_or_presence(&fields)?;
        Some(QueryMatcher {
            name: name?.into(),
            value,
            absent: !present,
        })
    }

    /// What the value has to be; without that whether it has to be there (it has to where nothing is said).
    fn value_or_presence(&mut self, fields: &Fields<'_>) -> Option<(Option<StringMatcher>, bool)> {
        let present = self.truth(fields, "present_match");
        let Some(node) = fields.get("string_match") else {
            return Some((None, present.value().copied().unwrap_or(true)));
        };
        if present.is_there() {
            let problem = Problem::Conflict {
                field: "present_match",
                other: "string_match",
            };
            self.report(problem, present.place());
        }
        self.string_matcher(node).map(|matcher| (Some(matcher), true))
    }

    fn string_matcher(&mut self, node: &Node) -> Option<StringMatcher> {
        let fields = self.fields(node, "`string_match`", &STRING)?;
        let ignore_case = self.truth(&fields, "ignore_case");
        let mut kinds = STRING[..5].iter().filter(|kind| fields.get(kind).is_some());
        let (Some(kind), None) = (kinds.next(), kinds.next()) else {
            let problem = Problem::NotOne {
                context: "`string_match`",
                allowed: &STRING[..5],
            };
            self.report(problem, node.place);
            return None;
        };
        let comparison = match *kind {
            "exact" => Comparison::Exact,
            "prefix" => Comparison::Prefix,
            "suffix" => Comparison::Suffix,
            "contains" => Comparison::Contains,
            _ => {
                if ignore_case.is_true() {
                    let problem = Problem::Conflict {
                        field: "ignore_case",
                        other: "safe_regex",
                    };
                    self.report(problem, ignore_case.place());
                }
                return self.safe_regex(&fields);
            }
        };
        // An empty text is something to compare with.
        let text = self.text(&fields, kind);
        Some(StringMatcher::fixed(comparison, text.value()?, ignore_case.is_true()))
    }

    fn safe_regex(&mut self, fields: &Fields<'_>) -> Option<StringMatcher> {
        let node = fields.get("safe_regex")?;
        let inner = self.fields(node, "`safe_regex`", &REGEX)?;
        let text = ("`safe_regex`", "add `regex: …`");
        let pattern = self.needed(node, &inner, "regex", text)?;
        match StringMatcher::regex(&pattern) {
            Ok(matcher) => Some(matcher),
            Err(reason) => {
                let problem = Problem::Unusable {
                    field: "regex",
                    word: pattern,
                    reason: reason.into(),
                };
                self.report(problem, inner.get("regex").and_then(|node| node.place));
                None
            }
        }
    }

    /// A text or a list of texts, each made into something; `None` when the field is not there or nothing of it is usable.
    pub(super) fn one_or_more<T>(
        &mut self,
        fields: &Fields<'_>,
        field: &'static str,
        max: usize,
        read: impl Fn(&mut Self, &str, Option<Place>) -> Option<T>,
    ) -> Option<Box<[T]>> {
        let node = fields.get(field)?;
        let items = match &node.value {
            Value::List(_) => self.items(node, field, max)?,
            _ => std::slice::from_ref(node),
        };
        let mut made = Vec::with_capacity(items.len());
        for item in items {
            let Some(text) = item.text() else {
                self.wrong(format!("`{field}`"), "text, or a list of texts", item);
                continue;
            };
            made.extend(read(self, &text, item.place));
        }
        (!made.is_empty()).then(|| made.into())
    }
}
