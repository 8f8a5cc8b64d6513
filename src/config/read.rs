//! YAML nodes → raw rules: the tree. Unknown fields, wrong types, fields that stand twice: every error of a file in one
//! go.

use serde_json::Value as Json;

use super::error::{ConfigErrors, Origin};
use super::field::Field;
use super::fields::{Fields, Reader};
use super::node::{Node, Value};
use super::options::{Level, METADATA_KEY, Options, misplaced};
use super::problem::{Clipped, Problem};
use super::raw::{self, Descriptor, File};

/// Reads a file's text. What cannot be used is reported and left out.
pub(super) fn read(origin: &Origin, text: &str, errors: &mut ConfigErrors) -> File {
    let mut reader = Reader::new(origin, Vec::new(), errors).with_misplaced(misplaced);
    match Node::parse(text) {
        Ok(root) => reader.file(&root),
        Err((problem, place)) => {
            reader.report(problem, place);
            unknown(origin)
        }
    }
}

/// Reads the options in `metadata` that comes from no text.
pub(super) fn options_in_metadata(
    origin: &Origin,
    path: Vec<String>,
    metadata: &serde_json::Map<String, Json>,
    errors: &mut ConfigErrors,
) -> Field<Options> {
    let Some(options) = metadata.get(METADATA_KEY) else {
        return Field::Absent;
    };
    let mut reader = Reader::new(origin, path, errors).with_misplaced(misplaced);
    let node = Node::from_json(options);
    match reader.level(&node, Level::Metadata) {
        Some(fields) => reader.options(&fields, Level::Metadata).into(),
        None => Field::Broken,
    }
}

/// A file that could not be read: nothing is known of it, so nothing is missed in it.
fn unknown(origin: &Origin) -> File {
    File {
        domain: Field::Broken,
        ..File::empty(origin)
    }
}

impl Reader<'_> {
    fn file(&mut self, root: &Node) -> File {
        if matches!(root.value, Value::Null) {
            return File::empty(self.origin);
        }
        if let (Some(_), Some(kind)) = (text_in(root, "apiVersion"), text_in(root, "kind")) {
            self.report(Problem::Resource { kind }, root.place);
            return unknown(self.origin);
        }
        let domain = text_in(root, "domain");
        self.path.extend(domain.map(|domain| Clipped(&domain).to_string()));
        let Some(fields) = self.level(root, Level::File) else {
            return unknown(self.origin);
        };
        File {
            origin: self.origin.clone(),
            domain: self.text(&fields, "domain"),
            options: self.options(&fields, Level::File),
            descriptors: self.descriptors(&fields),
            ext_authz: self.ext_authz(&fields),
            plans: self.plans(&fields),
            sources: self.sources(&fields),
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
        let fields = self.level(node, Level::Descriptor);
        let descriptor = fields.map(|fields| Descriptor {
            place: node.place,
            key: self.text(&fields, "key"),
            value: self.text(&fields, "value"),
            options: self.options(&fields, Level::Descriptor),
            in_metadata: fields
                .get("metadata")
                .map_or(Field::Absent, |metadata| self.options_in_metadata(metadata)),
            rate_limit: self.rate_limit(&fields),
            descriptors: self.descriptors(&fields),
        });
        self.path.pop();
        descriptor
    }

    fn rate_limit(&mut self, fields: &Fields<'_>) -> Field<Options> {
        let Some(node) = fields.get("rate_limit") else {
            return Field::Absent;
        };
        if let Value::List(_) = &node.value {
            self.report(Problem::ListOfOne, node.place);
            return Field::Broken;
        }
        match self.level(node, Level::RateLimit) {
            Some(fields) => Field::at(self.options(&fields, Level::RateLimit), node.place),
            None => Field::Broken,
        }
    }
}

/// What a descriptor is called in paths.
fn label(number: usize, node: &Node) -> String {
    let field = |name| text_in(node, name);
    raw::label(number, field("key").as_deref(), field("value").as_deref())
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
