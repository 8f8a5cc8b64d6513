//! Headers that tell a client how it stands. Envoy appends them, so a name that Envoy itself writes
//! (`enable_x_ratelimit_headers`) would go out twice: ours are switchable one family at a time.

use std::borrow::Cow;
use std::fmt::Write;

use crate::config::settings::LimitHeaders;
use crate::engine::{Counted, Decision, Status, StatusLimit};
use crate::model::time::SECOND_US;

/// A header's name and value.
pub type Header = (String, String);

/// Which headers to write.
#[derive(Debug, Clone, Copy)]
pub struct Families<'n> {
    /// Limit, remaining and reset, by these names.
    pub limit: Option<&'n LimitHeaders>,
    /// IETF `RateLimit` and `RateLimit-Policy`.
    pub ietf: bool,
    /// `retry-after` on a denial.
    pub retry_after: bool,
}

/// Every header that is asked for, in a fixed order.
#[must_use]
pub fn all(families: &Families<'_>, decision: &Decision) -> Vec<Header> {
    let mut headers = Vec::new();
    if let Some(names) = families.limit {
        headers.extend(limit_headers(names, decision));
    }
    if families.ietf {
        headers.extend(ietf_policy(decision).map(|value| ("ratelimit-policy".into(), value)));
        headers.extend(ietf_state(decision).map(|value| ("ratelimit".into(), value)));
    }
    if families.retry_after {
        headers.extend(retry_after(decision));
    }
    headers
}

/// `retry-after` (RFC 9110, 10.2.3): whole seconds, rounded up, at least 1; absent when no waiting helps.
#[must_use]
pub fn retry_after(decision: &Decision) -> Option<Header> {
    if !decision.over_limit {
        return None;
    }
    let seconds = decision.retry_after_of(|rule| rule.headers)?.div_ceil(SECOND_US).max(1);
    Some(("retry-after".into(), seconds.to_string()))
}

/// Limit, remaining and reset (seconds, rounded up) of the tightest descriptor.
fn limit_headers(names: &LimitHeaders, decision: &Decision) -> Vec<Header> {
    let Some((_, counted)) = decision.tightest_in_headers() else {
        return Vec::new();
    };
    vec![
        (names.limit.clone(), counted.requests_per_unit.to_string()),
        (names.remaining.clone(), counted.outcome.remaining.to_string()),
        (
            names.reset.clone(),
            counted.until_reset_us().div_ceil(SECOND_US).to_string(),
        ),
    ]
}

/// `RateLimit-Policy` (draft-ietf-httpapi-ratelimit-headers-10): one item for each counted limit.
fn ietf_policy(decision: &Decision) -> Option<String> {
    list(decision, |out, counted| {
        write!(out, ";q={};w={}", counted.requests_per_unit, counted.window_seconds)
    })
}

/// `RateLimit` of the same draft: what is left, and seconds until more is.
#[must_use]
pub fn ietf_state(decision: &Decision) -> Option<String> {
    list(decision, |out, counted| {
        let reset = counted.until_reset_us().div_ceil(SECOND_US);
        write!(out, ";r={};t={reset}", counted.outcome.remaining)
    })
}

/// A structured-field list with an item for each counted limit; `None` when there is none.
fn list(decision: &Decision, parameters: impl Fn(&mut String, &Counted) -> std::fmt::Result) -> Option<String> {
    let mut out = String::new();
    for (index, status) in decision.statuses.iter().enumerate() {
        let StatusLimit::Counted(counted) = &status.limit else {
            continue;
        };
        if !decision.is_in_headers(status) {
            continue;
        }
        if !out.is_empty() {
            out.push_str(", ");
        }
        out.push_str(&structured_string(&public_name(decision, index, status)));
        // Writing to a String cannot fail.
        let _ = parameters(&mut out, counted);
    }
    (!out.is_empty()).then_some(out)
}

/// Names the limits that a request is over, and passes, to the upstream.
pub const OVER: &str = "x-ratelimit-over";

/// Headers for the upstream: how near the caller is, by these names, and which limits it is over though it passes.
#[must_use]
pub fn for_upstream(names: Option<&LimitHeaders>, decision: &Decision) -> Vec<Header> {
    let mut headers = names.map_or_else(Vec::new, |names| limit_headers(names, decision));
    headers.extend(over(decision));
    headers
}

/// [`OVER`], where a rule with `on_limit: mark` let the request pass; names separated by commas.
#[must_use]
pub fn over(decision: &Decision) -> Option<Header> {
    let mut names = String::new();
    for status in decision.marks() {
        if !names.is_empty() {
            names.push_str(", ");
        }
        let name = policy_name(decision, status).chars();
        names.extend(name.map(|c| if matches!(c, '!'..='~') && c != ',' { c } else { '_' }));
    }
    (!names.is_empty()).then(|| (OVER.to_owned(), names))
}

/// What operators call a limit (metadata, spans): its name, else its path in the tree, else `override`.
#[must_use]
pub fn policy_name<'a>(decision: &'a Decision, status: &Status) -> &'a str {
    match decision.rule(status) {
        Some(rule) if !rule.name.is_empty() => &rule.name,
        Some(rule) => &rule.path,
        None => "override",
    }
}

/// What clients are told that a limit is called: its name, else its place in the request. Its path in the tree would show
/// them how routes and rules are laid out inside.
#[must_use]
pub fn public_name<'a>(decision: &'a Decision, index: usize, status: &Status) -> Cow<'a, str> {
    match decision.rule(status) {
        Some(rule) if !rule.name.is_empty() => Cow::Borrowed(&rule.name),
        _ => Cow::Owned(format!("limit-{}", index + 1)),
    }
}

/// A structured-field String (RFC 9651, 3.3.3): printable ASCII in quotes; everything else becomes `_`.
fn structured_string(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            ' '..='~' => out.push(c),
            _ => out.push('_'),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::structured_string;

    #[test]
    fn structured_strings_are_printable_ascii() {
        assert_eq!(structured_string(r#"per "user"\é"#), r#""per \"user\"\\_""#);
    }
}
