//! One action of a `rate_limits` entry → [`mapping::Action`](crate::mapping::Action).

use serde_json::Value;

use crate::mapping::{Absent, Action, Masks, Network, Networks, Source};

use super::EnvoyError;
use super::json::{field, items, number, path, text, truth, unknown};
use super::matchers;

/// What an action may need of what stands around it.
pub(super) struct Around<'v> {
    /// `node.cluster`
    pub local_cluster: Option<&'v str>,
    /// The route's action, with its cluster.
    pub route: &'v Value,
    /// The route's metadata.
    pub metadata: Option<&'v Value>,
}

pub(super) fn action(message: &Value, around: &Around<'_>, place: &str) -> Result<Action, EnvoyError> {
    let one = message.as_object().filter(|fields| fields.len() == 1);
    let Some((kind, inner)) = one.and_then(|fields| fields.iter().next()) else {
        return Err(EnvoyError::wrong(place, "an action is a mapping with one field"));
    };
    let place = format!("{place}, {kind}");
    let snake = snake(kind);
    let known: &[&str] = match snake.as_str() {
        "source_cluster" | "destination_cluster" | "remote_address" => &[],
        "request_headers" => &["header_name", "descriptor_key", "skip_if_absent"],
        "query_parameters" => &["query_parameter_name", "descriptor_key", "skip_if_absent"],
        "masked_remote_address" => &["v4_prefix_mask_len", "v6_prefix_mask_len"],
        "remote_address_match" => &["descriptor_key", "descriptor_value", "address_matcher"],
        "generic_key" => &["descriptor_key", "descriptor_value"],
        "header_value_match" => &["descriptor_key", "descriptor_value", "expect_match", "headers"],
        "query_parameter_value_match" => &["descriptor_key", "descriptor_value", "expect_match", "query_parameters"],
        "metadata" => &[
            "descriptor_key",
            "metadata_key",
            "default_value",
            "source",
            "skip_if_absent",
        ],
        _ => return Err(EnvoyError::unsupported(&place, "this kind of action")),
    };
    if let Some(field) = unknown(inner, known) {
        return Err(EnvoyError::unsupported(&place, field));
    }
    let skip = match truth(inner, "skip_if_absent") {
        Some(true) => Absent::SkipEntry,
        _ => Absent::SkipList,
    };
    let (key, source, absent) = match snake.as_str() {
        "source_cluster" => ("source_cluster".into(), source_cluster(around, &place)?, skip),
        "destination_cluster" => ("destination_cluster".into(), destination(around, &place)?, skip),
        "remote_address" => ("remote_address".into(), Source::RemoteAddress, skip),
        "masked_remote_address" => ("masked_remote_address".into(), masked(inner), skip),
        "remote_address_match" => (key(inner, "remote_address_match"), address_match(inner, &place)?, skip),
        "request_headers" => {
            let name = matchers::header_name(inner, "header_name", &place)?;
            (text(inner, "descriptor_key"), Source::FirstHeader(name), skip)
        }
        "query_parameters" => {
            let name = text(inner, "query_parameter_name").into();
            (text(inner, "descriptor_key"), Source::Query(name), skip)
        }
        "generic_key" => (key(inner, "generic_key"), Source::Fixed(value(inner, &place)?), skip),
        "header_value_match" => {
            let source = Source::HeaderMatch {
                value: value(inner, &place)?,
                expect_match: truth(inner, "expect_match").unwrap_or(true),
                headers: matchers::headers(inner, "headers", &place)?,
            };
            (key(inner, "header_match"), source, skip)
        }
        "query_parameter_value_match" => {
            let source = Source::QueryMatch {
                value: value(inner, &place)?,
                expect_match: truth(inner, "expect_match").unwrap_or(true),
                parameters: matchers::queries(inner, "query_parameters", &place)?,
            };
            (key(inner, "query_match"), source, skip)
        }
        _ => return route_metadata(inner, around, skip, &place),
    };
    Ok(Action {
        key: key.into(),
        source,
        absent,
    })
}

fn snake(name: &str) -> String {
    let mut out = String::with_capacity(name.len() + 4);
    for c in name.chars() {
        if c.is_ascii_uppercase() {
            out.push('_');
        }
        out.push(c.to_ascii_lowercase());
    }
    out
}

fn key(inner: &Value, default: &str) -> String {
    Some(text(inner, "descriptor_key"))
        .filter(|key| !key.is_empty())
        .unwrap_or_else(|| default.to_owned())
}

/// A fixed value; newer Envoys read `%…%` in it as a format.
fn value(inner: &Value, place: &str) -> Result<Box<str>, EnvoyError> {
    let value = text(inner, "descriptor_value");
    if value.contains('%') {
        return Err(EnvoyError::unsupported(place, "a format in descriptor_value"));
    }
    Ok(value.into())
}

fn masked(inner: &Value) -> Source {
    let length = |name, default: u8| {
        let given = number(inner, name).and_then(|length| u8::try_from(length).ok());
        given.unwrap_or(default)
    };
    Source::MaskedRemoteAddress(Masks {
        v4_prefix_mask_len: length("v4_prefix_mask_len", 32),
        v6_prefix_mask_len: length("v6_prefix_mask_len", 128),
    })
}

/// The client's address by its format (as Envoy Gateway writes it), or a fixed value.
fn address_match(inner: &Value, place: &str) -> Result<Source, EnvoyError> {
    let value = match text(inner, "descriptor_value").as_str() {
        "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%" => None,
        _ => Some(value(inner, place)?),
    };
    let matcher = field(inner, "address_matcher").unwrap_or(&Value::Null);
    let ranges = items(matcher, "ranges").iter().map(|range| {
        let prefix = text(range, "address_prefix");
        let wrong = |_| EnvoyError::wrong(place, format!("{prefix:?} is no IP address"));
        let length = number(range, "prefix_len").unwrap_or_default();
        Ok(Network::new(
            prefix.parse().map_err(wrong)?,
            u8::try_from(length).unwrap_or(u8::MAX),
        ))
    });
    let networks = Networks {
        ranges: ranges.collect::<Result<_, _>>()?,
        invert: truth(matcher, "invert_match").unwrap_or_default(),
    };
    Ok(Source::RemoteAddressMatch { value, networks })
}

fn source_cluster(around: &Around<'_>, place: &str) -> Result<Source, EnvoyError> {
    let Some(cluster) = around.local_cluster else {
        return Err(EnvoyError::unsupported(
            place,
            "the configuration has no node.cluster (--service-cluster)",
        ));
    };
    Ok(Source::Fixed(cluster.into()))
}

fn destination(around: &Around<'_>, place: &str) -> Result<Source, EnvoyError> {
    if field(around.route, "cluster").is_some() {
        return Ok(Source::Fixed(text(around.route, "cluster").into()));
    }
    let weighted = path(around.route, &["weighted_clusters"]).map(|clusters| items(clusters, "clusters"));
    match weighted {
        Some([only]) => Ok(Source::Fixed(text(only, "name").into())),
        _ if field(around.route, "cluster_header").is_some() => Ok(Source::FirstHeader(matchers::header_name(
            around.route,
            "cluster_header",
            place,
        )?)),
        _ => Err(EnvoyError::unsupported(
            place,
            "a route whose cluster is drawn by weight, or by a plugin",
        )),
    }
}

/// `metadata` of the route's own configuration; that of other filters is known to Envoy alone.
fn route_metadata(inner: &Value, around: &Around<'_>, skip: Absent, place: &str) -> Result<Action, EnvoyError> {
    if !matches!(text(inner, "source").as_str(), "ROUTE_ENTRY" | "1") {
        return Err(EnvoyError::unsupported(place, "metadata that other filters write"));
    }
    let Some(metadata_key) = field(inner, "metadata_key") else {
        return Err(EnvoyError::wrong(place, "it has no metadata_key"));
    };
    let filter = text(metadata_key, "key");
    let mut found = around
        .metadata
        .and_then(|metadata| field(metadata, "filter_metadata")?.get(&filter));
    for segment in items(metadata_key, "path") {
        found = found.and_then(|value| value.get(text(segment, "key")));
    }
    let found = found.and_then(Value::as_str).unwrap_or_default().to_owned();
    let value = if found.is_empty() {
        text(inner, "default_value")
    } else {
        found
    };
    let source = if value.is_empty() {
        // A parameter without a name is in no request.
        Source::QueryMatch {
            value: Box::default(),
            expect_match: false,
            parameters: Box::default(),
        }
    } else {
        Source::Fixed(value.into())
    };
    Ok(Action {
        key: text(inner, "descriptor_key").into(),
        source,
        absent: skip,
    })
}
