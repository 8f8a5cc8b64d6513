//! Mappings with known fields: what is unknown, of the wrong type or there twice is reported in its place.

use super::error::{ConfigError, ConfigErrors, Origin, Place, Severity};
use super::field::Field;
use super::node::{Node, Value};
use super::problem::{Clipped, Problem, Quoted, nearest};

/// Longest domain, key, value, name or other text, in bytes.
pub const MAX_TEXT: usize = 4096;

/// The verdict on a field that a mapping does not have: `None` where no mapping has it.
pub(super) type Misplaced = fn(name: &str, context: &'static str) -> Option<(Severity, Problem)>;

/// Reads mappings, and keeps in mind where in the tree it is.
pub(crate) struct Reader<'a> {
    pub(crate) origin: &'a Origin,
    pub(crate) errors: &'a mut ConfigErrors,
    /// The place in the rules' tree, for errors.
    pub(crate) path: Vec<String>,
    misplaced: Misplaced,
}

/// The fields of one mapping; each stands in it once, and its name is known.
pub(crate) struct Fields<'n>(Vec<(&'static str, &'n Node)>);

impl<'n> Fields<'n> {
    /// A field's node; null counts as absent, as everywhere in these files.
    pub(crate) fn get(&self, name: &str) -> Option<&'n Node> {
        let (_, node) = self.0.iter().find(|(field, _)| *field == name)?;
        (!matches!(node.value, Value::Null)).then_some(*node)
    }

    /// Where a field stands that is null.
    pub(crate) fn null(&self, name: &str) -> Option<&'n Node> {
        let (_, node) = self.0.iter().find(|(field, _)| *field == name)?;
        matches!(node.value, Value::Null).then_some(*node)
    }

    /// All of them, in the order of the file, null ones too.
    pub(crate) fn all(&self) -> &[(&'static str, &'n Node)] {
        &self.0
    }
}

impl<'a> Reader<'a> {
    pub(crate) fn new(origin: &'a Origin, path: Vec<String>, errors: &'a mut ConfigErrors) -> Self {
        Self {
            origin,
            errors,
            path,
            misplaced: |_, _| None,
        }
    }

    /// With a verdict on fields that a mapping does not have, for [`Self::table_fields`].
    pub(super) const fn with_misplaced(mut self, misplaced: Misplaced) -> Self {
        self.misplaced = misplaced;
        self
    }

    pub(crate) fn report(&mut self, problem: Problem, place: Option<Place>) {
        self.add(Severity::Error, problem, place);
    }

    /// Warns of a field whose name alone may be meant to say something.
    pub(super) fn warn_if_null(&mut self, fields: &Fields<'_>, field: &'static str) {
        if let Some(node) = fields.null(field) {
            self.add(Severity::Warning, Problem::NoValue { field }, node.place);
        }
    }

    fn add(&mut self, severity: Severity, problem: Problem, place: Option<Place>) {
        let path = self.path.join(" / ");
        self.errors
            .add(severity, ConfigError::new(self.origin, place, path, problem));
    }

    pub(crate) fn wrong(&mut self, subject: String, expected: &'static str, node: &Node) {
        let found = describe(node);
        let problem = Problem::WrongType {
            subject,
            expected,
            found,
        };
        self.report(problem, node.place);
    }

    /// The fields of a mapping; what is not known or stands twice is reported.
    pub(crate) fn fields<'n>(
        &mut self,
        node: &'n Node,
        context: &'static str,
        allowed: &'static [&'static str],
    ) -> Option<Fields<'n>> {
        self.fields_or(node, context, allowed, |_, _| None)
    }

    /// The same for a mapping of the table of options: a field of another of its mappings is told from an unknown one.
    pub(super) fn table_fields<'n>(
        &mut self,
        node: &'n Node,
        context: &'static str,
        allowed: &'static [&'static str],
    ) -> Option<Fields<'n>> {
        self.fields_or(node, context, allowed, self.misplaced)
    }

    fn fields_or<'n>(
        &mut self,
        node: &'n Node,
        context: &'static str,
        allowed: &'static [&'static str],
        misplaced: Misplaced,
    ) -> Option<Fields<'n>> {
        let Value::Map(entries) = &node.value else {
            self.wrong(context.to_owned(), "a mapping (`field: value`)", node);
            return None;
        };
        let mut fields: Vec<(&'static str, &Node)> = Vec::with_capacity(entries.len().min(16));
        let mut lines: Vec<usize> = Vec::new();
        for (key, value) in entries {
            let name = key.text().unwrap_or_else(|| describe(key));
            let Some(field) = allowed.iter().find(|field| **field == name) else {
                let unknown = |name: String| Problem::UnknownField {
                    suggestion: nearest(&name, allowed),
                    field: name,
                    context,
                    allowed,
                };
                let (severity, problem) = misplaced(&name, context).unwrap_or_else(|| (Severity::Error, unknown(name)));
                self.add(severity, problem, key.place);
                continue;
            };
            if let Some(at) = fields.iter().position(|(known, _)| known == field) {
                let first_line = lines.get(at).copied().unwrap_or_default();
                let problem = Problem::RepeatedField { field, first_line };
                self.report(problem, key.place);
                continue;
            }
            fields.push((field, value));
            lines.push(key.place.map_or(0, |place| place.line));
        }
        Some(Fields(fields))
    }

    pub(crate) fn text(&mut self, fields: &Fields<'_>, name: &'static str) -> Field<String> {
        let Some(node) = fields.get(name) else {
            return Field::Absent;
        };
        if let Some(value) = node.text() {
            return Field::at(value, node.place);
        }
        self.wrong(format!("`{name}`"), "text", node);
        Field::Broken
    }

    pub(crate) fn truth(&mut self, fields: &Fields<'_>, name: &'static str) -> Field<bool> {
        let Some(node) = fields.get(name) else {
            return Field::Absent;
        };
        if let Value::Bool(value) = node.value {
            return Field::at(value, node.place);
        }
        self.wrong(format!("`{name}`"), "true or false (without quotes)", node);
        Field::Broken
    }

    pub(crate) fn number<N: TryFrom<i128>>(&mut self, fields: &Fields<'_>, name: &'static str, max: u64) -> Field<N> {
        let Some(node) = fields.get(name) else {
            return Field::Absent;
        };
        let Value::Int(number) = node.value else {
            self.wrong(format!("`{name}`"), "a whole number (without quotes)", node);
            return Field::Broken;
        };
        if let Ok(value) = N::try_from(number) {
            return Field::at(value, node.place);
        }
        let problem = Problem::OutOfRange {
            field: name,
            min: 0,
            max,
            found: number.to_string(),
        };
        self.report(problem, node.place);
        Field::Broken
    }
}

/// What a node is, for `…, not …`.
fn describe(node: &Node) -> String {
    match &node.value {
        Value::Null => "nothing".to_owned(),
        Value::List(_) => "a list".to_owned(),
        Value::Map(_) => "a mapping".to_owned(),
        Value::Text(text) => format!("the text {}", Quoted(text)),
        Value::Bool(_) | Value::Int(_) | Value::Float(_) => Clipped(&node.text().unwrap_or_default()).to_string(),
    }
}
