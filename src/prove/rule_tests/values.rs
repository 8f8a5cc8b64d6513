//! Values of fields in test files: lists, pairs, ranges, durations, and the order of steps.

use std::borrow::Cow;

use crate::config::duration;
use crate::config::fields::{Fields, Reader};
use crate::config::node::{Node, Value};
use crate::config::problem::Problem;
use crate::model::time::micros;
use crate::prove::explain::Micros;

use super::case::Step;
use super::range::{Measure, Range};

pub(super) fn range(
    reader: &mut Reader<'_>,
    fields: &Fields<'_>,
    name: &'static str,
    measure: Measure,
) -> Option<Range> {
    let text = reader.text(fields, name).value().cloned()?;
    match Range::parse(&text, measure) {
        Ok(range) => Some(range),
        Err(reason) => {
            unusable(reader, fields, name, &text, reason);
            None
        }
    }
}

pub(super) fn duration_us(reader: &mut Reader<'_>, fields: &Fields<'_>, name: &'static str) -> Option<u64> {
    let text = reader.text(fields, name).value().cloned()?;
    if text == "0" {
        return Some(0);
    }
    match duration::parse(&text) {
        Ok(duration) => Some(micros(duration)),
        Err(reason) => {
            unusable(reader, fields, name, &text, reason);
            None
        }
    }
}

/// A list of texts, or one text alone.
pub(super) fn texts(reader: &mut Reader<'_>, fields: &Fields<'_>, name: &'static str) -> Vec<String> {
    let Some(node) = fields.get(name) else {
        return Vec::new();
    };
    let items = match &node.value {
        Value::List(items) => items.as_slice(),
        _ => std::slice::from_ref(node),
    };
    if items.is_empty() {
        reader.report(Problem::Empty { field: name }, node.place);
    }
    let mut all = Vec::with_capacity(items.len());
    for item in items {
        match item.text() {
            Some(text) => all.push(text),
            None => reader.wrong(format!("`{name}`"), "a text or a list of texts", item),
        }
    }
    all
}

/// A mapping of texts, in the order of the file.
pub(super) fn pairs(reader: &mut Reader<'_>, fields: &Fields<'_>, name: &'static str) -> Vec<(String, String)> {
    let Some(node) = fields.get(name) else {
        return Vec::new();
    };
    let Value::Map(entries) = &node.value else {
        reader.wrong(format!("`{name}`"), "a mapping of names to texts", node);
        return Vec::new();
    };
    let pair = |(key, value): &(Node, Node)| Some((own_text(reader, name, key)?, own_text(reader, name, value)?));
    entries.iter().filter_map(pair).collect()
}

/// The text of a name or a value in a mapping; anything else is reported, since it would not be sent.
pub(super) fn own_text(reader: &mut Reader<'_>, field: &str, node: &Node) -> Option<String> {
    let text = node.text();
    if text.is_none() {
        reader.wrong(
            format!("a name or a value in `{field}`"),
            "a text (\"\" for an empty one)",
            node,
        );
    }
    text
}

pub(super) fn list<'n>(reader: &mut Reader<'_>, node: &'n Node, subject: &str) -> &'n [Node] {
    let Value::List(items) = &node.value else {
        reader.wrong(subject.to_owned(), "a list", node);
        return &[];
    };
    items
}

/// A list that must not be empty: a test without steps could not fail.
pub(super) fn some<'n>(reader: &mut Reader<'_>, node: &'n Node, field: &'static str) -> &'n [Node] {
    let items = list(reader, node, &format!("`{field}`"));
    if items.is_empty() && matches!(node.value, Value::List(_)) {
        reader.report(Problem::Empty { field }, node.place);
    }
    items
}

pub(super) fn missing(
    reader: &mut Reader<'_>,
    node: &Node,
    field: &'static str,
    context: &'static str,
    help: &'static str,
) {
    reader.report(Problem::Missing { field, context, help }, node.place);
}

pub(super) fn unusable(
    reader: &mut Reader<'_>,
    fields: &Fields<'_>,
    field: &'static str,
    word: &str,
    reason: Cow<'static, str>,
) {
    let place = fields.get(field).and_then(|node| node.place);
    let word = word.to_owned();
    reader.report(Problem::Unusable { field, word, reason }, place);
}

/// Time does not go back: a step begins when the one before it has ended, or later.
pub(super) fn in_order(reader: &mut Reader<'_>, steps: &[Step]) {
    let mut end_us = 0;
    for step in steps {
        let begin_us = step.at_us.unwrap_or(end_us);
        if begin_us < end_us {
            let problem = Problem::Unusable {
                field: "at",
                word: Micros(begin_us).to_string(),
                reason: format!(
                    "the step before it ends at {}, and time does not go back",
                    Micros(end_us)
                )
                .into(),
            };
            reader.report(problem, step.place);
        }
        let lasts_us = step.every_us.saturating_mul(u64::from(step.times - 1));
        end_us = begin_us.saturating_add(lasts_us).max(end_us);
    }
}
