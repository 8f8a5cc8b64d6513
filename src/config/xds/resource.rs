//! `RateLimitConfig` → raw rules: what a file would say, so that both end in the same compile step.
//!
//! The schema has no field for native options; they stand in `metadata` under `sluicegate`.

use std::sync::Arc;

use prost_types::value::Kind;
use serde_json::{Map, Number, Value};

use super::super::error::{ConfigErrors, Origin};
use super::super::field::Field;
use super::super::options::Options;
use super::super::problem::Clipped;
use super::super::raw::{self, Descriptor, File};
use super::super::read;
use crate::proto::ratelimit::config::ratelimit::v3::{
    RateLimitConfig, RateLimitDescriptor, RateLimitPolicy, RateLimitUnit,
};

/// The raw rules of the resource at this position of a response.
pub(super) fn raw(number: usize, config: RateLimitConfig, errors: &mut ConfigErrors) -> File {
    let name = match (config.name.as_str(), config.domain.as_str()) {
        ("", "") => format!("resource {number}"),
        ("", name) | (name, _) => format!("resource {name:?}"),
    };
    let origin = Origin {
        name: Arc::from(name),
        text: None,
    };
    let mut path = Vec::new();
    if !config.domain.is_empty() {
        path.push(Clipped(&config.domain).to_string());
    }
    let descriptors = Descriptors {
        origin: &origin,
        path,
        errors,
    }
    .read(config.descriptors);
    File {
        domain: text(config.domain),
        descriptors,
        ..File::empty(&origin)
    }
}

/// Reads descriptors, and keeps in mind where in the tree it is.
struct Descriptors<'a> {
    origin: &'a Origin,
    path: Vec<String>,
    errors: &'a mut ConfigErrors,
}

impl Descriptors<'_> {
    fn read(&mut self, descriptors: Vec<RateLimitDescriptor>) -> Vec<Descriptor> {
        let numbered = (1..).zip(descriptors);
        numbered.map(|(number, wire)| self.descriptor(number, wire)).collect()
    }

    fn descriptor(&mut self, number: usize, wire: RateLimitDescriptor) -> Descriptor {
        let given = |text: &'_ str| (!text.is_empty()).then(|| text.to_owned());
        let (key, value) = (given(&wire.key), given(&wire.value));
        self.path.push(raw::label(number, key.as_deref(), value.as_deref()));
        let metadata = wire.metadata.map(object);
        let in_metadata = metadata.as_ref().map_or(Field::Absent, |metadata| {
            read::options_in_metadata(self.origin, self.path.clone(), metadata, self.errors)
        });
        let descriptor = Descriptor {
            place: None,
            key: text(wire.key),
            value: text(wire.value),
            rate_limit: wire
                .rate_limit
                .map_or(Field::Absent, |policy| rate_limit(policy).into()),
            // prost bounds the nesting of what it decodes.
            descriptors: self.read(wire.descriptors),
            options: Options {
                shadow_mode: truth(wire.shadow_mode),
                quota_mode: truth(wire.quota_mode),
                detailed_metric: truth(wire.detailed_metric),
                metadata: metadata.map_or(Field::Absent, Field::from),
                ..Options::default()
            },
            in_metadata,
        };
        self.path.pop();
        descriptor
    }
}

fn rate_limit(wire: RateLimitPolicy) -> Options {
    let unit = match RateLimitUnit::try_from(wire.unit) {
        Ok(RateLimitUnit::Unknown) => Field::Absent,
        Ok(unit) => unit.as_str_name().to_owned().into(),
        // A number that nobody knows: the compile step says so.
        Err(_) => wire.unit.to_string().into(),
    };
    // An empty name is an error in envoyproxy/ratelimit, too.
    let replaces: Vec<_> = wire.replaces.into_iter().map(|replaced| replaced.name.into()).collect();
    Options {
        unit,
        requests_per_unit: wire.requests_per_unit.into(),
        unlimited: truth(wire.unlimited),
        name: text(wire.name),
        replaces: replaces.into(),
        ..Options::default()
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
