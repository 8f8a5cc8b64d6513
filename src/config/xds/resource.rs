//! `RateLimitConfig` → raw rules: what a file would say, so that both end in the same compile step.
//!
//! The schema has no field for our options; they stand in `metadata` under `sluicegate`, where the compile step finds
//! them.

use std::sync::Arc;

use prost_types::value::Kind;
use serde_json::{Map, Number, Value};

use super::super::error::Origin;
use super::super::raw::{Descriptor, Field, File, Options, RateLimit};
use crate::proto::ratelimit::config::ratelimit::v3::{
    RateLimitConfig, RateLimitDescriptor, RateLimitPolicy, RateLimitUnit,
};

/// The raw rules of the resource at this position of a response.
pub(super) fn raw(number: usize, config: RateLimitConfig) -> File {
    let name = match (config.name.as_str(), config.domain.as_str()) {
        ("", "") => format!("resource {number}"),
        ("", name) | (name, _) => format!("resource {name:?}"),
    };
    File {
        origin: Origin {
            name: Arc::from(name),
            text: None,
        },
        domain: text(config.domain),
        on_store_error: Field::Absent,
        lease: Field::Absent,
        descriptors: config.descriptors.into_iter().map(descriptor).collect(),
        ext_authz: None,
    }
}

fn descriptor(wire: RateLimitDescriptor) -> Descriptor {
    Descriptor {
        key: text(wire.key),
        value: text(wire.value),
        rate_limit: wire
            .rate_limit
            .map_or(Field::Absent, |policy| rate_limit(policy).into()),
        // prost bounds the nesting of what it decodes.
        descriptors: wire.descriptors.into_iter().map(descriptor).collect(),
        shadow_mode: truth(wire.shadow_mode),
        quota_mode: truth(wire.quota_mode),
        detailed_metric: truth(wire.detailed_metric),
        metadata: wire.metadata.map_or(Field::Absent, |metadata| object(metadata).into()),
        ..Descriptor::default()
    }
}

fn rate_limit(wire: RateLimitPolicy) -> RateLimit {
    let unit = match RateLimitUnit::try_from(wire.unit) {
        Ok(RateLimitUnit::Unknown) => Field::Absent,
        Ok(unit) => unit.as_str_name().to_owned().into(),
        // A number that nobody knows: the compile step says so.
        Err(_) => wire.unit.to_string().into(),
    };
    RateLimit {
        unit,
        requests_per_unit: wire.requests_per_unit.into(),
        unlimited: truth(wire.unlimited),
        name: text(wire.name),
        // An empty name is refused there, too.
        replaces: wire.replaces.into_iter().map(|replaced| replaced.name.into()).collect(),
        options: Options::default(),
    }
}

/// Without presence in the schema, empty is absent.
fn text(text: String) -> Field<String> {
    if text.is_empty() { Field::Absent } else { text.into() }
}

fn truth(truth: bool) -> Field<bool> {
    if truth { true.into() } else { Field::Absent }
}

fn object(object: prost_types::Struct) -> Map<String, Value> {
    object
        .fields
        .into_iter()
        .map(|(key, value)| (key, json(value)))
        .collect()
}

fn json(value: prost_types::Value) -> Value {
    match value.kind {
        None | Some(Kind::NullValue(_)) => Value::Null,
        // What is not finite is no JSON.
        Some(Kind::NumberValue(number)) => Number::from_f64(number).map_or(Value::Null, Value::Number),
        Some(Kind::StringValue(text)) => Value::String(text),
        Some(Kind::BoolValue(truth)) => Value::Bool(truth),
        Some(Kind::StructValue(value)) => Value::Object(object(value)),
        Some(Kind::ListValue(list)) => Value::Array(list.values.into_iter().map(json).collect()),
    }
}
