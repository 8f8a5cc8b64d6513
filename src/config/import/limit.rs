//! A limits file of limitador → limits, with every refusal in its place.

use super::super::error::{ConfigErrors, Origin, Place};
use super::super::fields::{Fields, MAX_TEXT, Reader};
use super::super::node::{Node, Value};
use super::super::problem::{Clipped, Problem};
use super::condition::{self, Unsupported, WantedValues};
use crate::algorithms::limit::{LimitSpec, build};
use crate::model::{AlgorithmKind, Unit, Window};

/// One limit, as a path of entries.
#[derive(Debug, Clone)]
pub(super) struct LimitadorLimit {
    /// Its number in the file, from 1.
    pub(super) number: usize,
    /// Its first line.
    pub(super) line: usize,
    pub(super) namespace: String,
    pub(super) name: Option<String>,
    pub(super) max_value: u32,
    pub(super) seconds: u32,
    /// In the order in which conditions, then variables, name them.
    pub(super) entries: Vec<LimitEntry>,
    /// It names entries by plain names.
    pub(super) plain: bool,
}

/// One entry that a limit asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct LimitEntry {
    pub(super) key: String,
    pub(super) values: WantedValues,
    /// Each value counts alone.
    pub(super) alone: bool,
}

const CONTEXT: &str = "a limit of limitador";
const FIELDS: &[&str] = &[
    "id",
    "namespace",
    "name",
    "max_value",
    "seconds",
    "conditions",
    "variables",
];

/// Reads the file; what cannot be translated is reported and left out.
pub(super) fn read(origin: &Origin, text: &str, errors: &mut ConfigErrors) -> Vec<LimitadorLimit> {
    let mut reader = Reader::new(origin, Vec::new(), errors);
    let root = match Node::parse(text) {
        Ok(root) => root,
        Err((problem, place)) => {
            reader.report(problem, place);
            return Vec::new();
        }
    };
    let items = match &root.value {
        Value::List(items) if !items.is_empty() => items,
        Value::Map(fields)
            if fields
                .iter()
                .any(|(key, _)| key.text().as_deref() == Some("apiVersion")) =>
        {
            let kind = fields.iter().find(|(key, _)| key.text().as_deref() == Some("kind"));
            let kind = kind.and_then(|(_, kind)| kind.text()).unwrap_or_default();
            reader.report(Problem::Resource { kind }, root.place);
            return Vec::new();
        }
        _ => {
            reader.wrong("a limits file of limitador".to_owned(), "a list of limits", &root);
            return Vec::new();
        }
    };
    let mut limits: Vec<LimitadorLimit> = Vec::new();
    for (number, item) in (1..).zip(items) {
        reader.path = vec![format!("limit {number}")];
        let Some(limit) = reader.limit(number, item) else {
            continue;
        };
        let same = |known: &&LimitadorLimit| {
            known.namespace == limit.namespace && known.seconds == limit.seconds && same_entries(known, &limit)
        };
        if let Some(known) = limits.iter().find(same) {
            let first = format!("limit {}, line {}", known.number, known.line);
            reader.report(Problem::DuplicateDescriptor { first }, item.place);
            continue;
        }
        limits.push(limit);
    }
    limits
}

fn same_entries(a: &LimitadorLimit, b: &LimitadorLimit) -> bool {
    a.entries.len() == b.entries.len() && a.entries.iter().all(|entry| b.entries.contains(entry))
}

impl Reader<'_> {
    fn limit(&mut self, number: usize, node: &Node) -> Option<LimitadorLimit> {
        let before = self.errors.count();
        let fields = self.fields(node, CONTEXT, FIELDS)?;
        let namespace = self.required(&fields, "namespace", node.place, Self::namespace);
        let name = self.text(&fields, "name").value().cloned();
        self.path.extend(name.as_deref().map(|name| Clipped(name).to_string()));
        let max_value = self.required(&fields, "max_value", node.place, |reader, node| {
            reader.count("max_value", node, 0)
        });
        let seconds = self.required(&fields, "seconds", node.place, |reader, node| {
            reader.count("seconds", node, 1)
        });
        let (entries, plain) = self.entries(&fields);
        let limit = LimitadorLimit {
            number,
            line: node.place.map_or(0, |place| place.line),
            namespace: namespace?,
            name,
            max_value: max_value?,
            seconds: seconds?,
            entries,
            plain,
        };
        let window = Window::times(Unit::Second, limit.seconds);
        let spec = LimitSpec::new(AlgorithmKind::SlidingWindow, limit.max_value.into(), window);
        if let Err(error) = build(&spec) {
            self.report(Problem::Limit(error), node.place);
        }
        (self.errors.count() == before).then_some(limit)
    }

    fn required<T>(
        &mut self,
        fields: &Fields<'_>,
        field: &'static str,
        whole: Option<Place>,
        read: impl FnOnce(&mut Self, &Node) -> Option<T>,
    ) -> Option<T> {
        let Some(node) = fields.get(field) else {
            let problem = Problem::Missing {
                field,
                context: CONTEXT,
                help: "limitador needs it, too: add it",
            };
            self.report(problem, whole);
            return None;
        };
        read(self, node)
    }

    fn namespace(&mut self, node: &Node) -> Option<String> {
        let field = "namespace";
        let problem = match node.text() {
            None => {
                self.wrong("`namespace`".to_owned(), "text", node);
                return None;
            }
            Some(text) if text.is_empty() => Problem::Empty { field },
            Some(text) if text.len() > MAX_TEXT => Problem::TooLong { field, max: MAX_TEXT },
            Some(text) => return Some(text),
        };
        self.report(problem, node.place);
        None
    }

    fn count(&mut self, field: &'static str, node: &Node, min: u32) -> Option<u32> {
        let Value::Int(number) = node.value else {
            self.wrong(format!("`{field}`"), "a whole number (without quotes)", node);
            return None;
        };
        let count = u32::try_from(number).ok().filter(|count| *count >= min);
        if count.is_none() {
            let problem = Problem::OutOfRange {
                field,
                min: min.into(),
                max: u32::MAX.into(),
                found: number.to_string(),
            };
            self.report(problem, node.place);
        }
        count
    }

    /// The entries of a limit's conditions and variables, each key once.
    fn entries(&mut self, fields: &Fields<'_>) -> (Vec<LimitEntry>, bool) {
        let mut entries: Vec<LimitEntry> = Vec::new();
        let mut plain = false;
        for (text, place) in self.texts(fields, "conditions") {
            let asked = match condition::condition(&text) {
                Ok(asked) => asked,
                Err(reason) => {
                    self.refuse("conditions", text, reason, place);
                    continue;
                }
            };
            for asked in asked {
                plain |= asked.plain;
                match entries.iter().find(|known| known.key == asked.key) {
                    None => entries.push(LimitEntry {
                        key: asked.key,
                        values: asked.values,
                        alone: false,
                    }),
                    Some(known) if known.values == asked.values => {}
                    Some(_) => {
                        let reason = "another condition of this limit asks for the same entry: keep the narrower one";
                        self.refuse("conditions", text.clone(), reason.to_owned(), place);
                    }
                }
            }
        }
        for (text, place) in self.texts(fields, "variables") {
            match condition::variable(&text) {
                Err(reason) => self.refuse("variables", text, reason, place),
                Ok((key, is_plain)) => {
                    plain |= is_plain;
                    match entries.iter_mut().find(|known| known.key == key) {
                        Some(known) => known.alone = true,
                        None => entries.push(LimitEntry {
                            key,
                            values: WantedValues::Any,
                            alone: true,
                        }),
                    }
                }
            }
        }
        for entry in &mut entries {
            // One value is one counter, whether it is counted alone or not.
            entry.alone |= matches!(entry.values, WantedValues::Exact(_));
        }
        (entries, plain)
    }

    /// A list of texts; null is an empty one, as in limitador.
    fn texts(&mut self, fields: &Fields<'_>, field: &'static str) -> Vec<(String, Option<Place>)> {
        let Some(node) = fields.get(field) else {
            return Vec::new();
        };
        let Value::List(items) = &node.value else {
            self.wrong(format!("`{field}`"), "a list of texts", node);
            return Vec::new();
        };
        let mut texts = Vec::with_capacity(items.len());
        for item in items {
            match item.text() {
                Some(text) => texts.push((text, item.place)),
                None => self.wrong(format!("an entry of `{field}`"), "text", item),
            }
        }
        texts
    }

    fn refuse(&mut self, field: &'static str, word: String, reason: Unsupported, place: Option<Place>) {
        let reason = reason.into();
        self.report(Problem::Unusable { field, word, reason }, place);
    }
}
