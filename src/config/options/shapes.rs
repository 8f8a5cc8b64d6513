//! Readers of the options that are mappings or lists.

use serde_json::Value as Json;

use super::super::field::Field;
use super::super::fields::Reader;
use super::super::node::{Node, Value};
use super::super::problem::Problem;
use super::option::{Hold, Level, Options, Rlqs, WrittenWindow};

const REPLACES: [&str; 1] = ["name"];
const HOLD: [&str; 2] = ["ttl", "adaptive"];
const WINDOW: [&str; 2] = ["calendar", "time_zone"];
const ADAPTIVE: [&str; 1] = ["first"];
const RLQS: [&str; 2] = ["bucket", "refill"];

/// `replaces`: the names in it.
pub(super) fn replaces(reader: &mut Reader<'_>, node: &Node, into: &mut Options) {
    let Value::List(items) = &node.value else {
        reader.wrong("`replaces`".to_owned(), "a list of `name: …`", node);
        into.replaces = Field::Broken;
        return;
    };
    let name = |item: &Node| {
        let Some(fields) = reader.table_fields(item, "an entry of `replaces`", &REPLACES) else {
            return Field::Broken;
        };
        match reader.text(&fields, "name") {
            // `name:` with nothing behind it is an empty name, which the compile step refuses.
            Field::Absent => Field::at(String::new(), item.place),
            name => name,
        }
    };
    into.replaces = Field::at(items.iter().map(name).collect(), node.place);
}

/// `value_in`
pub(super) fn value_in(reader: &mut Reader<'_>, node: &Node, into: &mut Options) {
    into.value_in = texts(reader, node, "`value_in`", "a list of values");
}

/// `value_cidr`
pub(super) fn value_cidr(reader: &mut Reader<'_>, node: &Node, into: &mut Options) {
    into.value_cidr = texts(reader, node, "`value_cidr`", "a list of networks, as in `[10.0.0.0/8]`");
}

fn texts(reader: &mut Reader<'_>, node: &Node, name: &str, expected: &'static str) -> Field<Vec<Field<String>>> {
    let Value::List(items) = &node.value else {
        reader.wrong(name.to_owned(), expected, node);
        return Field::Broken;
    };
    let text = |item: &Node| match item.text() {
        Some(text) => Field::at(text, item.place),
        None => {
            reader.wrong(format!("an entry of {name}"), "text", item);
            Field::Broken
        }
    };
    Field::at(items.iter().map(text).collect(), node.place)
}

/// `rate_limits`: the options of each of them.
pub(super) fn rate_limits(reader: &mut Reader<'_>, node: &Node, into: &mut Options) {
    let Value::List(items) = &node.value else {
        reader.wrong("`rate_limits`".to_owned(), "a list of limits", node);
        into.rate_limits = Field::Broken;
        return;
    };
    let limit = |(number, item): (usize, &Node)| {
        reader.path.push(limit_label(number));
        let limit = match reader.level(item, Level::RateLimit) {
            Some(fields) => Field::at(reader.options(&fields, Level::RateLimit), item.place),
            None => Field::Broken,
        };
        reader.path.pop();
        limit
    };
    into.rate_limits = Field::at(items.iter().enumerate().map(limit).collect(), node.place);
}

/// What errors call the entry of `rate_limits` at a position.
pub(in super::super) fn limit_label(position: usize) -> String {
    format!("rate_limits #{}", position + 1)
}

/// `candidate`: the options of its limit.
pub(super) fn candidate(reader: &mut Reader<'_>, node: &Node, into: &mut Options) {
    into.candidate = match reader.level(node, Level::Candidate) {
        Some(fields) => Field::at(Box::new(reader.options(&fields, Level::Candidate)), node.place),
        None => Field::Broken,
    };
}

/// `rlqs`: which keys of a bucket make its descriptor.
pub(super) fn rlqs(reader: &mut Reader<'_>, node: &Node, into: &mut Options) {
    let Some(fields) = reader.table_fields(node, "`rlqs`", &RLQS) else {
        into.rlqs = Field::Broken;
        return;
    };
    let bucket = match fields.get("bucket") {
        None => Field::Absent,
        Some(node) => match &node.value {
            Value::List(items) => {
                let key = |item: &Node| match item.text().filter(|key| !key.is_empty()) {
                    Some(key) => Field::at(key, item.place),
                    None => {
                        reader.wrong("an entry of `bucket`".to_owned(), "a key of the bucket id", item);
                        Field::Broken
                    }
                };
                Field::at(items.iter().map(key).collect(), node.place)
            }
            _ => {
                reader.wrong("`bucket`".to_owned(), "a list of keys", node);
                Field::Broken
            }
        },
    };
    let refill = match fields.get("refill") {
        None => Field::Absent,
        Some(node) => match &node.value {
            Value::Bool(refill) => Field::at(*refill, node.place),
            _ => {
                reader.wrong("`refill`".to_owned(), "true or false", node);
                Field::Broken
            }
        },
    };
    into.rlqs = Field::at(Rlqs { bucket, refill }, node.place);
}

/// `window`: a length, or a unit of a calendar.
pub(super) fn window(reader: &mut Reader<'_>, node: &Node) -> Field<WrittenWindow> {
    if let Some(text) = node.text() {
        return Field::at(WrittenWindow::Length(text), node.place);
    }
    let Value::Map(_) = &node.value else {
        reader.wrong(
            "`window`".to_owned(),
            "a text, or `{ calendar: …, time_zone: … }`",
            node,
        );
        return Field::Broken;
    };
    match reader.table_fields(node, "`window`", &WINDOW) {
        Some(fields) => {
            let (calendar, time_zone) = (reader.text(&fields, "calendar"), reader.text(&fields, "time_zone"));
            Field::at(WrittenWindow::Calendar { calendar, time_zone }, node.place)
        }
        None => Field::Broken,
    }
}

/// `hold`: how long, and whether by an estimate of our own.
pub(super) fn hold(reader: &mut Reader<'_>, node: &Node) -> Field<Hold> {
    match reader.table_fields(node, "`hold`", &HOLD) {
        Some(fields) => {
            let ttl = reader.text(&fields, "ttl");
            reader.warn_if_null(&fields, "adaptive");
            let adaptive = fields.get("adaptive").map_or(Field::Absent, |node| {
                match reader.table_fields(node, "`adaptive`", &ADAPTIVE) {
                    Some(fields) => Field::at(reader.number(&fields, "first", u64::from(u32::MAX)), node.place),
                    None => Field::Broken,
                }
            });
            Field::at(Hold { ttl, adaptive }, node.place)
        }
        None => Field::Broken,
    }
}

/// `metadata`, with everything in it.
pub(super) fn metadata(reader: &mut Reader<'_>, node: &Node, into: &mut Options) {
    into.metadata = match &node.value {
        Value::Map(_) => match json(reader, node) {
            Json::Object(value) => Field::at(value, node.place),
            _ => Field::Broken,
        },
        _ => {
            reader.wrong("`metadata`".to_owned(), "a mapping", node);
            Field::Broken
        }
    };
}

fn json(reader: &mut Reader<'_>, node: &Node) -> Json {
    match &node.value {
        Value::Null => Json::Null,
        Value::Bool(value) => Json::Bool(*value),
        Value::Int(value) => {
            let number = serde_json::Number::from_i128(*value);
            number.map_or_else(|| Json::String(value.to_string()), Json::Number)
        }
        Value::Float(value) => {
            if !value.is_finite() {
                reader.report(Problem::NotFinite, node.place);
            }
            Json::from(*value)
        }
        Value::Text(text) => Json::String(text.clone()),
        Value::List(items) => items.iter().map(|item| json(reader, item)).collect(),
        Value::Map(entries) => {
            let entry = |(key, value): &(Node, Node)| {
                let Some(name) = key.text() else {
                    reader.wrong("a key in `metadata`".to_owned(), "text", key);
                    return None;
                };
                Some((name, json(reader, value)))
            };
            Json::Object(entries.iter().filter_map(entry).collect())
        }
    }
}
