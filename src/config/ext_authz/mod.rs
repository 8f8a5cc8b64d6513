//! The `ext_authz` section of a rules file → [`mapping`](crate::mapping), read straight from YAML: no other source has it.
//!
//! | file | what is in it |
//! |---|---|
//! | `mod` | the section, and its lists |
//! | `settings` | the client's address, answers, hits |
//! | `actions`, `paths`, `metadata` | one entry of a descriptor |
//! | `matchers` | headers, texts, requests |

mod actions;
mod matchers;
mod metadata;
mod paths;
mod settings;

use std::sync::Arc;

use crate::mapping::lists::{MAX_ACTIONS, MAX_LISTS};
use crate::mapping::{FailureMode, List, Mapping};

use super::error::Place;
use super::fields::{Fields, MAX_TEXT, Reader};
use super::node::{Node, Value};
use super::problem::{Problem, nearest};

const SECTION: [&str; 7] = [
    "default",
    "domain_extension",
    "client_address",
    "normalize_path",
    "failure_mode",
    "answers",
    "rate_limits",
];
const LIST: [&str; 3] = ["match", "hits_addend", "actions"];
const FAILURE_MODES: [&str; 2] = ["allow", "deny"];
/// The context extension that names a domain where the file does not say.
const DOMAIN_EXTENSION: &str = "domain";

/// A section as it was read; what is wrong in it has been reported.
#[derive(Debug, Clone)]
pub struct Section {
    /// Where it stands.
    pub place: Option<Place>,
    /// `default: true`
    pub default: bool,
    /// The context extension by which requests name the domain.
    pub extension: String,
    /// Everything else; the domain is filled in by the compile step.
    pub mapping: Mapping,
    /// Where each list stands.
    pub lists: Vec<Option<Place>>,
}

impl Reader<'_> {
    /// Reads the section, if the file has one.
    pub(super) fn ext_authz(&mut self, file: &Fields<'_>) -> Option<Section> {
        let node = file.get("ext_authz")?;
        self.path.push("ext_authz".to_owned());
        let section = self
            .fields(node, "`ext_authz`", &SECTION)
            .map(|fields| self.section(node, &fields));
        self.path.pop();
        section
    }

    fn section(&mut self, node: &Node, fields: &Fields<'_>) -> Section {
        let extension = self.word(fields, "domain_extension");
        let normalize_path = self.truth(fields, "normalize_path").value().copied().unwrap_or(true);
        let (places, lists) = self
            .lists(node, fields, normalize_path)
            .into_iter()
            .unzip::<_, _, _, Vec<_>>();
        Section {
            place: node.place,
            default: self.truth(fields, "default").is_true(),
            extension: extension.unwrap_or_else(|| DOMAIN_EXTENSION.to_owned()),
            mapping: Mapping {
                domain: Arc::from(""),
                client: self.client_address(fields),
                normalize_path,
                lists: lists.into(),
                answers: self.answers(fields),
                failure_mode: self.failure_mode(fields),
            },
            lists: places,
        }
    }

    fn failure_mode(&mut self, fields: &Fields<'_>) -> Option<FailureMode> {
        let field = self.text(fields, "failure_mode");
        let given = field.given()?;
        let mode = [FailureMode::Allow, FailureMode::Deny]
            .into_iter()
            .find(|mode| mode.name() == given.value);
        if mode.is_none() {
            let problem = Problem::UnknownWord {
                field: "failure_mode",
                suggestion: nearest(&given.value, &FAILURE_MODES),
                word: given.value.clone(),
                allowed: &FAILURE_MODES,
            };
            self.report(problem, given.place);
        }
        mode
    }

    fn lists(&mut self, section: &Node, fields: &Fields<'_>, normalize: bool) -> Vec<(Option<Place>, List)> {
        let Some(node) = fields.get("rate_limits") else {
            let problem = Problem::Missing {
                field: "rate_limits",
                context: "`ext_authz`",
                help: "add `rate_limits:` with a list of `actions`, as in Envoy's routes",
            };
            self.report(problem, section.place);
            return Vec::new();
        };
        let Some(items) = self.items(node, "rate_limits", MAX_LISTS) else {
            return Vec::new();
        };
        let numbered = (1..).zip(items);
        numbered
            .filter_map(|(number, item)| {
                self.path.push(format!("rate_limits #{number}"));
                let list = self.list(item, normalize);
                self.path.pop();
                Some((item.place, list?))
            })
            .collect()
    }

    fn list(&mut self, node: &Node, normalize: bool) -> Option<List> {
        let fields = self.fields(node, "an entry of `rate_limits`", &LIST)?;
        let matcher = self.request_matcher(&fields, normalize);
        let hits = self.hits_addend(&fields);
        let Some(actions) = fields.get("actions") else {
            let problem = Problem::Missing {
                field: "actions",
                context: "an entry of `rate_limits`",
                help: "add `actions:`, one for each entry of the descriptor",
            };
            self.report(problem, node.place);
            return None;
        };
        let items = self.items(actions, "actions", MAX_ACTIONS)?;
        let read: Vec<_> = (1..)
            .zip(items)
            .map(|(number, item)| {
                self.path.push(format!("actions #{number}"));
                let action = self.action(item, normalize);
                self.path.pop();
                action
            })
            .collect();
        // A list without one of its actions would count something else.
        let actions = read.into_iter().collect::<Option<Vec<_>>>()?;
        Some(List {
            matcher,
            hits,
            actions: actions.into(),
        })
    }

    /// The items of a list that has to have at least one.
    fn items<'n>(&mut self, node: &'n Node, field: &'static str, max: usize) -> Option<&'n [Node]> {
        let Value::List(items) = &node.value else {
            self.wrong(format!("`{field}`"), "a list", node);
            return None;
        };
        if items.is_empty() {
            self.report(Problem::Empty { field }, node.place);
            return None;
        }
        if items.len() > max {
            self.report(Problem::TooMany { field, max }, node.place);
            return None;
        }
        Some(items)
    }

    /// A text that is not empty and not too long, if it is there.
    fn word(&mut self, fields: &Fields<'_>, name: &'static str) -> Option<String> {
        let field = self.text(fields, name);
        let given = field.given()?;
        let problem = match given.value.len() {
            0 => Problem::Empty { field: name },
            length if length > MAX_TEXT => Problem::TooLong {
                field: name,
                max: MAX_TEXT,
            },
            _ => return Some(given.value.clone()),
        };
        self.report(problem, given.place);
        None
    }

    /// The same, where it has to be there.
    fn needed(
        &mut self,
        node: &Node,
        fields: &Fields<'_>,
        name: &'static str,
        (context, help): (&'static str, &'static str),
    ) -> Option<String> {
        if fields.get(name).is_none() {
            let problem = Problem::Missing {
                field: name,
                context,
                help,
            };
            self.report(problem, node.place);
        }
        self.word(fields, name)
    }

    /// A whole number within bounds, if it is there.
    fn within(&mut self, fields: &Fields<'_>, name: &'static str, min: u64, max: u64) -> Option<u64> {
        let field = self.number::<u64>(fields, name, max);
        let given = field.given()?;
        if (min..=max).contains(&given.value) {
            return Some(given.value);
        }
        let problem = Problem::OutOfRange {
            field: name,
            min,
            max,
            found: given.value.to_string(),
        };
        self.report(problem, given.place);
        None
    }

    /// A name of a header, in lower case; HTTP/2's pseudo-headers too.
    fn header_name(&mut self, fields: &Fields<'_>, name: &'static str) -> Option<Box<str>> {
        let written = self.word(fields, name)?;
        let plain = written.strip_prefix(':').unwrap_or(&written);
        if http::HeaderName::from_bytes(plain.as_bytes()).is_err() {
            let place = fields.get(name).and_then(|node| node.place);
            self.report(
                Problem::Unusable {
                    field: name,
                    word: written,
                    reason: "it is no name of a header".into(),
                },
                place,
            );
            return None;
        }
        Some(written.to_ascii_lowercase().into())
    }
}
