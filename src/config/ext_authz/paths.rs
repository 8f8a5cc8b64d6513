//! The path, whole or in parts.

use crate::mapping::template::MAX_SEGMENTS;
use crate::mapping::{Absent, Action, PathShape, Source, Template};

use super::super::fields::{Fields, Reader};
use super::super::node::Node;
use super::super::problem::Problem;
use super::actions::MAX_PARTS;

const PATH: [&str; 4] = ["descriptor_key", "segments", "template", "variable"];

impl Reader<'_> {
    pub(super) fn path_action(&mut self, node: &Node, normalize: bool) -> Option<Action> {
        let fields = self.fields(node, "`path`", &PATH)?;
        let key = self.word(&fields, "descriptor_key");
        let segments = self.within(&fields, "segments", 1, MAX_SEGMENTS as u64);
        let templates = match fields.get("template") {
            Some(_) => Some(self.templates(&fields, "template", normalize)?),
            None => None,
        };
        let variable = self.word(&fields, "variable");
        let place = |name| fields.get(name).and_then(|node| node.place);
        let shape = match (templates, variable, segments) {
            (Some(_), _, Some(_)) => {
                let problem = Problem::Conflict {
                    field: "segments",
                    other: "template",
                };
                self.report(problem, place("segments"));
                return None;
            }
            (Some(templates), None, None) => PathShape::Template(templates),
            (Some(templates), Some(variable), None) => {
                if let Some(without) = templates.iter().find(|t| !t.has_variable(&variable)) {
                    let problem = Problem::Unusable {
                        field: "variable",
                        reason: format!("the template `{}` has no such variable", without.text()).into(),
                        word: variable,
                    };
                    self.report(problem, place("variable"));
                    return None;
                }
                PathShape::Variable(templates, variable.into())
            }
            (None, Some(_), _) => {
                let problem = Problem::Missing {
                    field: "template",
                    context: "`path` with a `variable`",
                    help: "add `template: …`, in which the variable stands",
                };
                self.report(problem, node.place);
                return None;
            }
            (None, None, Some(count)) => PathShape::Segments(usize::try_from(count).unwrap_or(MAX_SEGMENTS)),
            (None, None, None) => PathShape::Whole,
        };
        let default = match &shape {
            PathShape::Variable(_, name) => name.clone(),
            _ => "path".into(),
        };
        Some(Action {
            key: key.map_or(default, Into::into),
            source: Source::Path(shape),
            absent: Absent::SkipList,
        })
    }

    /// One template or a list of them.
    pub(super) fn templates(
        &mut self,
        fields: &Fields<'_>,
        field: &'static str,
        normalize: bool,
    ) -> Option<Box<[Template]>> {
        let read = |reader: &mut Self, text: &str, place| match Template::parse(text, normalize) {
            Ok(template) => Some(template),
            Err(error) => {
                let problem = Problem::Unusable {
                    field,
                    word: text.to_owned(),
                    reason: error.to_string().into(),
                };
                reader.report(problem, place);
                None
            }
        };
        self.one_or_more(fields, field, MAX_PARTS, read)
    }
}
