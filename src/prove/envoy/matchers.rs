//! Envoy's matchers of texts, headers and query parameters → those of [`mapping`](crate::mapping).

use serde_json::Value;

use crate::mapping::matcher::{Comparison, QueryMatcher};
use crate::mapping::{HeaderMatcher, StringMatcher};

use super::EnvoyError;
use super::json::{field, items, path, text, truth, unknown};
use super::view::written_by_envoy;

pub(super) fn headers(message: &Value, name: &str, place: &str) -> Result<Box<[HeaderMatcher]>, EnvoyError> {
    items(message, name)
        .iter()
        .map(|matcher| header(matcher, place))
        .collect()
}

fn header(message: &Value, place: &str) -> Result<HeaderMatcher, EnvoyError> {
    let name = header_name(message, "name", place)?;
    let place = format!("{place}, header {name}");
    let old = |field: &str| field.strip_suffix("_match").and_then(comparison);
    let known = [
        "name",
        "string_match",
        "present_match",
        "invert_match",
        "treat_missing_header_as_empty",
        "exact_match",
        "prefix_match",
        "suffix_match",
        "contains_match",
        "safe_regex_match",
    ];
    if let Some(unknown) = unknown(message, &known) {
        return Err(EnvoyError::unsupported(&place, unknown));
    }
    let inverted = truth(message, "invert_match").unwrap_or_default();
    let mut value = None;
    if let Some(matcher) = field(message, "string_match") {
        value = Some(string(matcher, &place)?);
    }
    for kind in ["exact_match", "prefix_match", "suffix_match", "contains_match"] {
        if field(message, kind).is_some() {
            let fixed = old(kind).map(|comparison| StringMatcher::fixed(comparison, &text(message, kind), false));
            value = fixed;
        }
    }
    if let Some(regex) = field(message, "safe_regex_match") {
        value = Some(regex_of(regex, &place)?);
    }
    let present = truth(message, "present_match").unwrap_or(true);
    Ok(HeaderMatcher {
        name,
        value,
        invert_match: inverted == present,
        treat_missing_header_as_empty: truth(message, "treat_missing_header_as_empty").unwrap_or_default(),
    })
}

/// A header's name in lower case; not of one that Envoy itself writes before its filters see the request.
pub(super) fn header_name(message: &Value, field: &str, place: &str) -> Result<Box<str>, EnvoyError> {
    let name = text(message, field).to_ascii_lowercase();
    if written_by_envoy(&name) {
        return Err(EnvoyError::unsupported(
            place,
            format!("Envoy itself writes the header {name}"),
        ));
    }
    Ok(name.into())
}

pub(super) fn queries(message: &Value, name: &str, place: &str) -> Result<Box<[QueryMatcher]>, EnvoyError> {
    items(message, name)
        .iter()
        .map(|matcher| query(matcher, place))
        .collect()
}

fn query(message: &Value, place: &str) -> Result<QueryMatcher, EnvoyError> {
    if let Some(unknown) = unknown(message, &["name", "string_match", "present_match"]) {
        return Err(EnvoyError::unsupported(
            place,
            format!("query parameter matcher: {unknown}"),
        ));
    }
    let value = field(message, "string_match")
        .map(|matcher| string(matcher, place))
        .transpose()?;
    Ok(QueryMatcher {
        name: text(message, "name").into(),
        absent: value.is_none() && truth(message, "present_match") == Some(false),
        value,
    })
}

pub(super) fn string(message: &Value, place: &str) -> Result<StringMatcher, EnvoyError> {
    let ignore_case = truth(message, "ignore_case").unwrap_or_default();
    for kind in ["exact", "prefix", "suffix", "contains"] {
        if let (Some(_), Some(comparison)) = (field(message, kind), comparison(kind)) {
            return Ok(StringMatcher::fixed(comparison, &text(message, kind), ignore_case));
        }
    }
    match field(message, "safe_regex") {
        Some(regex) => regex_of(regex, place),
        None => {
            let kind = unknown(message, &["ignore_case"]).unwrap_or("an empty string matcher");
            Err(EnvoyError::unsupported(place, kind))
        }
    }
}

fn comparison(kind: &str) -> Option<Comparison> {
    Some(match kind {
        "exact" => Comparison::Exact,
        "prefix" => Comparison::Prefix,
        "suffix" => Comparison::Suffix,
        "contains" => Comparison::Contains,
        _ => return None,
    })
}

pub(super) fn regex_of(message: &Value, place: &str) -> Result<StringMatcher, EnvoyError> {
    let pattern = path(message, &["regex"]).and_then(Value::as_str).unwrap_or_default();
    StringMatcher::regex(pattern)
        .map_err(|reason| EnvoyError::unsupported(place, format!("regular expression: {reason}")))
}
