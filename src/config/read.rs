//! YAML nodes → raw rules: unknown fields, wrong types, fields that stand twice; every error of a file in one go.

use serde_json::{Map, Value as Json};

use super::error::{ConfigErrors, Origin};
use super::fields::{Fields, Reader};
use super::node::{Node, Value};
use super::problem::{Clipped, Problem};
use super::raw::{Descriptor, Field, File, FromMetadata, METADATA_KEY, Options, Placed, RateLimit};

const FILE: [&str; 5] = ["domain", "descriptors", "on_store_error", "lease", "ext_authz"];
const DESCRIPTOR: [&str; 12] = [
    "key",
    "value",
    "rate_limit",
    "descriptors",
    "shadow_mode",
    "quota_mode",
    "detailed_metric",
    "value_to_metric",
    "share_threshold",
    "metadata",
    "on_store_error",
    "lease",
];
const RATE_LIMIT: [&str; 14] = [
    "unit",
    "requests_per_unit",
    "unlimited",
    "name",
    "replaces",
    "algorithm",
    "unit_multiplier",
    "window",
    "burst",
    "precision",
    "max_delay",
    "count_denied",
    "on_store_error",
    "lease",
];
const FROM_METADATA: [&str; 11] = [
    "algorithm",
    "unit_multiplier",
    "window",
    "burst",
    "precision",
    "max_delay",
    "count_denied",
    "on_store_error",
    "lease",
    "share_threshold",
    "value_to_metric",
];
const REPLACES: [&str; 1] = ["name"];

/// Reads a file's text. What cannot be used is reported and left out.
pub(super) fn read(origin: &Origin, text: &str, errors: &mut ConfigErrors) -> File {
    let mut reader = Reader::new(origin, Vec::new(), errors);
    match Node::parse(text) {
        Ok(root) => reader.file(&root),
        Err((problem, place)) => {
            reader.report(problem, place);
            // Nothing is known of it, so nothing is missed in it.
            File {
                domain: Field::Broken,
                ..empty(origin)
            }
        }
    }
}

/// Reads our options out of metadata that comes from no text.
pub(super) fn from_metadata(
    origin: &Origin,
    path: &[String],
    options: &Json,
    errors: &mut ConfigErrors,
) -> FromMetadata {
    let mut reader = Reader::new(origin, path.to_vec(), errors);
    reader.our_options(&Node::from_json(options))
}

fn empty(origin: &Origin) -> File {
    File {
        origin: origin.clone(),
        domain: Field::Absent,
        on_store_error: Field::Absent,
        lease: Field::Absent,
        descriptors: Vec::new(),
        ext_authz: None,
    }
}

impl Reader<'_> {
    fn file(&mut self, root: &Node) -> File {
        if matches!(root.value, Value::Null) {
            return empty(self.origin);
        }
        let domain = text_in(root, "domain");
        self.path.extend(domain.map(|domain| Clipped(&domain).to_string()));
        let Some(fields) = self.fields(root, "a rules file", &FILE) else {
            return File {
                domain: Field::Broken,
                ..empty(self.origin)
            };
        };
        File {
            origin: self.origin.clone(),
            domain: self.text(&fields, "domain"),
            on_store_error: self.text(&fields, "on_store_error"),
            lease: self.truth(&fields, "lease"),
            descriptors: self.descriptors(&fields),
            ext_authz: self.ext_authz(&fields),
        }
    }

    fn descriptors(&mut self, fields: &Fields<'_>) -> Vec<Descriptor> {
        let Some(node) = fields.get("descriptors") else {
            return Vec::new();
        };
        let Value::List(items) = &node.value else {
            self.wrong("`descriptors`".to_owned(), "a list", node);
            return Vec::new();
        };
        let numbered = (1..).zip(items);
        numbered
            .filter_map(|(number, item)| self.descriptor(number, item))
            .collect()
    }

    fn descriptor(&mut self, number: usize, node: &Node) -> Option<Descriptor> {
        self.path.push(label(number, node));
        let fields = self.fields(node, "a descriptor", &DESCRIPTOR);
        let descriptor = fields.map(|fields| Descriptor {
            place: node.place,
            key: self.text(&fields, "key"),
            value: self.text(&fields, "value"),
            shadow_mode: self.truth(&fields, "shadow_mode"),
            quota_mode: self.truth(&fields, "quota_mode"),
            detailed_metric: self.truth(&fields, "detailed_metric"),
            value_to_metric: self.truth(&fields, "value_to_metric"),
            share_threshold: self.truth(&fields, "share_threshold"),
            on_store_error: self.text(&fields, "on_store_error"),
            lease: self.truth(&fields, "lease"),
            metadata: self.metadata(&fields),
            from_metadata: self.options_in_metadata(&fields),
            rate_limit: self.rate_limit(&fields),
            descriptors: self.descriptors(&fields),
        });
        self.path.pop();
        descriptor
    }

    fn rate_limit(&mut self, fields: &Fields<'_>) -> Field<RateLimit> {
        let Some(node) = fields.get("rate_limit") else {
            return Field::Absent;
        };
        let Some(fields) = self.fields(node, "`rate_limit`", &RATE_LIMIT) else {
            return Field::Broken;
        };
        let value = RateLimit {
            unit: self.text(&fields, "unit"),
            requests_per_unit: self.number(&fields, "requests_per_unit", u32::MAX.into()),
            unlimited: self.truth(&fields, "unlimited"),
            name: self.text(&fields, "name"),
            replaces: self.replaces(&fields),
            options: self.options(&fields),
        };
        Field::Given(Placed {
            value,
            place: node.place,
        })
    }

    fn options(&mut self, fields: &Fields<'_>) -> Options {
        Options {
            algorithm: self.text(fields, "algorithm"),
            unit_multiplier: self.number(fields, "unit_multiplier", u32::MAX.into()),
            window: self.text(fields, "window"),
            burst: self.number(fields, "burst", u64::MAX),
            precision: self.number(fields, "precision", u32::MAX.into()),
            max_delay: self.text(fields, "max_delay"),
            count_denied: self.truth(fields, "count_denied"),
            on_store_error: self.text(fields, "on_store_error"),
            lease: self.truth(fields, "lease"),
        }
    }

    fn our_options(&mut self, node: &Node) -> FromMetadata {
        let Some(fields) = self.fields(node, "`metadata.sluicegate`", &FROM_METADATA) else {
            return FromMetadata::default();
        };
        FromMetadata {
            options: self.options(&fields),
            share_threshold: self.truth(&fields, "share_threshold"),
            value_to_metric: self.truth(&fields, "value_to_metric"),
        }
    }

    fn options_in_metadata(&mut self, fields: &Fields<'_>) -> Field<FromMetadata> {
        let Some(Value::Map(entries)) = fields.get("metadata").map(|node| &node.value) else {
            return Field::Absent;
        };
        let ours = |(key, _): &&(Node, Node)| key.text().as_deref() == Some(METADATA_KEY);
        let Some((_, node)) = entries.iter().find(ours) else {
            return Field::Absent;
        };
        Field::Given(Placed {
            value: self.our_options(node),
            place: node.place,
        })
    }

    fn replaces(&mut self, fields: &Fields<'_>) -> Vec<Field<String>> {
        let Some(node) = fields.get("replaces") else {
            return Vec::new();
        };
        let Value::List(items) = &node.value else {
            self.wrong("`replaces`".to_owned(), "a list of `name: …`", node);
            return Vec::new();
        };
        let name = |item: &Node| {
            let Some(fields) = self.fields(item, "an entry of `replaces`", &REPLACES) else {
                return Field::Broken;
            };
            match self.text(&fields, "name") {
                // `name:` with nothing behind it is an empty name, which the compile step refuses.
                Field::Absent => Field::Given(Placed {
                    value: String::new(),
                    place: item.place,
                }),
                name => name,
            }
        };
        items.iter().map(name).collect()
    }

    fn metadata(&mut self, fields: &Fields<'_>) -> Field<Map<String, Json>> {
        let Some(node) = fields.get("metadata") else {
            return Field::Absent;
        };
        match &node.value {
            Value::Map(_) => {}
            _ => {
                self.wrong("`metadata`".to_owned(), "a mapping", node);
                return Field::Broken;
            }
        }
        match self.json(node) {
            Json::Object(value) => Field::Given(Placed {
                value,
                place: node.place,
            }),
            _ => Field::Broken,
        }
    }

    fn json(&mut self, node: &Node) -> Json {
        match &node.value {
            Value::Null => Json::Null,
            Value::Bool(value) => Json::Bool(*value),
            Value::Int(value) => {
                let number = serde_json::Number::from_i128(*value);
                number.map_or_else(|| Json::String(value.to_string()), Json::Number)
            }
            Value::Float(value) => {
                if !value.is_finite() {
                    self.report(Problem::NotFinite, node.place);
                }
                Json::from(*value)
            }
            Value::Text(text) => Json::String(text.clone()),
            Value::List(items) => items.iter().map(|item| self.json(item)).collect(),
            Value::Map(entries) => {
                let entry = |(key, value): &(Node, Node)| {
                    let Some(name) = key.text() else {
                        self.wrong("a key in `metadata`".to_owned(), "text", key);
                        return None;
                    };
                    Some((name, self.json(value)))
                };
                Json::Object(entries.iter().filter_map(entry).collect())
            }
        }
    }
}

/// What a descriptor is called in paths.
fn label(number: usize, node: &Node) -> String {
    let field = |name| text_in(node, name);
    super::raw::label(number, field("key").as_deref(), field("value").as_deref())
}

/// A text in a mapping, unless empty.
fn text_in(node: &Node, name: &str) -> Option<String> {
    let Value::Map(entries) = &node.value else {
        return None;
    };
    let named = |(key, _): &&(Node, Node)| matches!(&key.value, Value::Text(text) if text == name);
    let (_, value) = entries.iter().find(named)?;
    value.text().filter(|text| !text.is_empty())
}
