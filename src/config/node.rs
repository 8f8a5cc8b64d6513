//! YAML as a tree of nodes that know their place, within bounds.
//!
//! The tree is walked by hand (`read.rs`), because a derived deserializer stops at the first error and we want all.

use std::fmt;
use std::sync::Arc;
use std::thread;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_yaml::options::{DuplicateKeyPolicy, NonFiniteFloatPolicy};
use serde_yaml::{Error, Spanned};

use super::error::Place;
use super::problem::Problem;

/// Deepest nesting of YAML collections. A level of descriptors takes two.
const MAX_DEPTH: usize = 80;
/// Most nodes in a file, after aliases are written out.
const MAX_NODES: usize = 1_000_000;
/// Most nodes that aliases may write out.
const MAX_REPLAYED: usize = 200_000;

/// For [`MAX_DEPTH`] levels, four times over.
const STACK_BYTES: usize = 12 << 20;

/// A node and its place.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    pub(crate) value: Value,
    /// Where it is used.
    pub(crate) place: Option<Place>,
    /// The text of a number or a truth value as it was written, for where a text is wanted (`value: 007`).
    written: Option<Arc<str>>,
}

/// What a node holds.
#[derive(Debug, Clone)]
pub(crate) enum Value {
    Null,
    Bool(bool),
    Int(i128),
    Float(f64),
    Text(String),
    List(Vec<Node>),
    Map(Vec<(Node, Node)>),
}

impl Node {
    /// Reads one document, on a thread whose stack is large enough for the deepest that is allowed: the parser takes
    /// up to 35 KB a level in a debug build, and callers' stacks are what they are.
    ///
    /// # Errors
    /// The first thing that is not YAML, and its place; there is no reading on after it.
    pub(crate) fn parse(text: &str) -> Result<Self, (Problem, Option<Place>)> {
        let gave_up = |reason: String| (Problem::Unreadable { reason }, None);
        thread::scope(|scope| {
            let builder = thread::Builder::new().stack_size(STACK_BYTES);
            let parsing = builder
                .spawn_scoped(scope, || Self::parse_here(text))
                .map_err(|error| gave_up(format!("no thread to read it on: {error}")))?;
            let parsed = parsing.join();
            parsed.unwrap_or_else(|_| Err(gave_up("the YAML parser gave up".to_owned())))
        })
    }

    fn parse_here(text: &str) -> Result<Self, (Problem, Option<Place>)> {
        // A byte order mark is no part of the document.
        let body = text.strip_prefix('\u{feff}').unwrap_or(text);
        let skipped = text.len() - body.len();
        let body = without_empty_end(body);
        let options = serde_yaml::options! {
            budget: serde_yaml::budget! {
                max_depth: MAX_DEPTH,
                flow_nesting_limit: MAX_DEPTH,
                max_nodes: MAX_NODES,
                max_events: 3 * MAX_NODES,
                max_documents: 2,
                // Bounded by what they write out instead.
                enforce_alias_anchor_ratio: false,
            },
            alias_limits: serde_yaml::alias_limits! { max_total_replayed_events: MAX_REPLAYED },
            duplicate_keys: DuplicateKeyPolicy::LastWins,
            non_finite_float_policy: NonFiniteFloatPolicy::PassThrough,
            with_snippet: false,
        };
        serde_yaml::from_str_with_options::<Spanned<Parsed>>(body, options)
            .map(|parsed| Self::place(parsed, body, skipped))
            .map_err(|error| problem(&error, body, skipped))
    }

    /// A mapping without fields, for where nothing was written.
    pub(super) const fn empty_map(place: Option<Place>) -> Self {
        Self {
            value: Value::Map(Vec::new()),
            place,
            written: None,
        }
    }

    /// A tree that comes from no text.
    pub(super) fn from_json(value: &serde_json::Value) -> Self {
        use serde_json::Value as Json;
        let bare = |value| Self {
            value,
            place: None,
            written: None,
        };
        bare(match value {
            Json::Null => Value::Null,
            Json::Bool(value) => Value::Bool(*value),
            Json::Number(number) => json_number(number),
            Json::String(text) => Value::Text(text.clone()),
            Json::Array(items) => Value::List(items.iter().map(Self::from_json).collect()),
            Json::Object(fields) => Value::Map(
                fields
                    .iter()
                    .map(|(key, value)| (bare(Value::Text(key.clone())), Self::from_json(value)))
                    .collect(),
            ),
        })
    }

    fn place(parsed: Spanned<Parsed>, body: &str, skipped: usize) -> Self {
        let used = locate(&parsed.referenced, body, skipped);
        let written = || locate(&parsed.defined, body, 0).and_then(|at| written(body, at));
        let child = |node| Self::place(node, body, skipped);
        let (value, written) = match parsed.value {
            Parsed::Null => (Value::Null, None),
            Parsed::Bool(value) => (Value::Bool(value), written()),
            Parsed::Int(value) => (Value::Int(value), written()),
            Parsed::Float(value) => (Value::Float(value), written()),
            Parsed::Text(text) => (Value::Text(text), None),
            Parsed::List(items) => (Value::List(items.into_iter().map(child).collect()), None),
            Parsed::Map(fields) => {
                let fields = fields
                    .into_iter()
                    .map(|(key, value)| (Self::place(key, body, skipped), Self::place(value, body, skipped)));
                (Value::Map(fields.collect()), None)
            }
        };
        Self {
            value,
            place: used,
            written,
        }
    }

    /// The text of a scalar, as it was written; `None` for null and collections.
    pub(crate) fn text(&self) -> Option<String> {
        let written = || self.written.as_deref().map(ToOwned::to_owned);
        match &self.value {
            Value::Text(text) => Some(text.clone()),
            Value::Bool(value) => Some(written().unwrap_or_else(|| value.to_string())),
            Value::Int(value) => Some(written().unwrap_or_else(|| value.to_string())),
            Value::Float(value) => Some(written().unwrap_or_else(|| value.to_string())),
            Value::Null | Value::List(_) | Value::Map(_) => None,
        }
    }
}

/// Protobuf's Struct has only doubles: whole ones count as integers.
#[allow(
    clippy::cast_possible_truncation,
    reason = "a float-to-integer cast saturates, and the value is checked to be whole"
)]
fn json_number(number: &serde_json::Number) -> Value {
    if let Some(value) = number.as_i128() {
        return Value::Int(value);
    }
    match number.as_f64() {
        Some(value) if value.fract() == 0.0 => Value::Int(value as i128),
        Some(value) => Value::Float(value),
        None => Value::Text(number.to_string()),
    }
}

/// The source text of a plain scalar.
fn written(body: &str, at: Place) -> Option<Arc<str>> {
    let text = body.get(at.offset..at.offset.checked_add(at.length)?)?;
    // A tag or quotes in front: then the parsed value says it better.
    let plain = !text.is_empty() && !text.starts_with(['!', '"', '\'', '&', '|', '>']);
    plain.then(|| text.into())
}

fn locate(location: &serde_yaml::Location, body: &str, skipped: usize) -> Option<Place> {
    let number = |value: u64| usize::try_from(value).ok();
    let span = location.span();
    let line = number(location.line()).filter(|line| *line > 0)?;
    let column = number(location.column())?;
    // The scanner's own errors come without bytes.
    let offset = match span.byte_offset() {
        Some(offset) => number(offset)?,
        None => offset_of(body, line, column)?,
    };
    Some(Place {
        line,
        column,
        offset: offset.checked_add(skipped)?,
        length: number(span.byte_len().unwrap_or_default())?,
    })
}

/// Where a line and column (both from 1, columns in characters) begin, in bytes.
fn offset_of(body: &str, line: usize, column: usize) -> Option<usize> {
    let lines = body.split_inclusive('\n').take(line.checked_sub(1)?);
    let start: usize = lines.map(str::len).sum();
    let rest = body.get(start..)?;
    let chars = rest.char_indices().map(|(at, _)| at);
    let within = chars.chain([rest.len()]).nth(column.saturating_sub(1));
    start.checked_add(within.unwrap_or(rest.len()))
}

/// A text without a `---` behind which nothing stands: templates leave such, and it begins no document.
fn without_empty_end(text: &str) -> &str {
    let (mut kept, mut at) = (text, text.len());
    for line in text.split_inclusive('\n').rev() {
        at -= line.len();
        match line.trim() {
            "---" if line.starts_with('-') => kept = &text[..at],
            "" => {}
            comment if comment.starts_with('#') => {}
            _ => break,
        }
    }
    kept
}

fn problem(error: &Error, body: &str, skipped: usize) -> (Problem, Option<Place>) {
    let mut error = error.without_snippet();
    while let Error::AliasError { error: inner, .. } = error {
        error = inner;
    }
    let location = error.location();
    let place = location.as_ref().and_then(|at| locate(at, body, skipped));
    let at_star = || {
        let at = location.as_ref().and_then(|at| locate(at, body, 0))?;
        body.get(at.offset..)?.starts_with('*').then_some(())
    };
    let reason = without_location(&error.to_string());
    let problem = match error {
        Error::MultipleDocuments { .. } => Problem::SeveralDocuments,
        Error::Budget { .. }
        | Error::AliasReplayLimitExceeded { .. }
        | Error::AliasExpansionLimitExceeded { .. }
        | Error::AliasReplayStackDepthExceeded { .. }
        | Error::RecursiveReferencesRequireWeakTypes { .. } => Problem::TooComplex { reason },
        // What the scanner says of brackets in brackets.
        _ if reason.contains("recursion limit") => Problem::TooComplex { reason },
        _ if at_star().is_some() => Problem::UnquotedWildcard,
        _ => Problem::Syntax { reason },
    };
    (problem, place)
}

/// The message without its position, which stands in front of ours already.
fn without_location(message: &str) -> String {
    let line = message.lines().next().unwrap_or_default();
    let end = line.rfind(" at line ").unwrap_or(line.len());
    let plain = |c: char| if c.is_control() { '?' } else { c };
    line[..end].chars().map(plain).collect()
}

/// What the deserializer hands over.
enum Parsed {
    Null,
    Bool(bool),
    Int(i128),
    Float(f64),
    Text(String),
    List(Vec<Spanned<Parsed>>),
    Map(Vec<(Spanned<Parsed>, Spanned<Parsed>)>),
}

impl<'de> Deserialize<'de> for Parsed {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ParsedVisitor)
    }
}

struct ParsedVisitor;

impl<'de> Visitor<'de> for ParsedVisitor {
    type Value = Parsed;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("YAML")
    }

    fn visit_unit<E>(self) -> Result<Parsed, E> {
        Ok(Parsed::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Parsed, E> {
        Ok(Parsed::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Parsed, E> {
        Ok(Parsed::Int(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Parsed, E> {
        Ok(Parsed::Int(value.into()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Parsed, E> {
        Ok(Parsed::Float(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Parsed, E> {
        Ok(Parsed::Text(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Parsed, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Parsed::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Parsed, A::Error> {
        let mut map = Vec::new();
        while let Some(field) = fields.next_entry()? {
            map.push(field);
        }
        Ok(Parsed::Map(map))
    }
}
