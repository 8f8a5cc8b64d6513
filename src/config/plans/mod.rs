//! `plans` and `sources` of a rules file: limits by name, and where it stands which value has which.
//!
//! | file | what is in it |
//! |---|---|
//! | `mod` | the two sections as they are written |
//! | `lines` | the entries of a source: `value,plan` or `value,100/hour`, then optionally `,expiry` |
//! | `file` | a source that is a file |

pub mod file;
pub mod lines;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::duration;
use super::error::Place;
use super::fields::{Fields, MAX_TEXT, Reader};
use super::node::{Node, Value};
use super::options::{Level, Options};
use super::problem::Problem;
use crate::rules::plans::PlanOrigin;

/// Most plans of a file.
const MAX_PLANS: usize = 1000;
/// Most sources of a file.
const MAX_SOURCES: usize = 16;
/// Longest name of a plan or source, in bytes.
const MAX_NAME: usize = 64;

const SOURCE: &[&str] = &["file", "redis", "http"];
const REDIS: &[&str] = &["hash"];
const HTTP: &[&str] = &["url", "every"];

/// How often a URL is asked where nothing is said.
const USUAL_EVERY: Duration = Duration::from_secs(30);
/// The shortest and the longest time between two questions.
const EVERY: std::ops::RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(86_400);

/// A plan as it is written.
#[derive(Debug, Clone)]
pub struct WrittenPlan {
    /// Its name.
    pub name: String,
    /// Where it is.
    pub place: Option<Place>,
    /// Its limit; `None` = unusable, which has been reported.
    pub options: Option<Options>,
}

/// A source as it is written.
#[derive(Debug, Clone)]
pub struct WrittenSource {
    /// Its name.
    pub name: String,
    /// Where it is.
    pub place: Option<Place>,
    /// What it is read from; `None` = unusable, which has been reported.
    pub from: Option<PlanOrigin>,
}

impl Reader<'_> {
    /// `plans`
    pub(super) fn plans(&mut self, fields: &Fields<'_>) -> Vec<WrittenPlan> {
        self.named(fields, "plans", MAX_PLANS, |reader, name, place, node| {
            let fields = reader.level(node, Level::Plan);
            let options = fields.map(|fields| reader.options(&fields, Level::Plan));
            WrittenPlan { name, place, options }
        })
    }

    /// `sources`
    pub(super) fn sources(&mut self, fields: &Fields<'_>) -> Vec<WrittenSource> {
        self.named(fields, "sources", MAX_SOURCES, |reader, name, place, node| {
            let from = reader.source(node);
            WrittenSource { name, place, from }
        })
    }

    /// The fields of a mapping whose names the file chooses.
    fn named<T>(
        &mut self,
        fields: &Fields<'_>,
        section: &'static str,
        max: usize,
        mut read: impl FnMut(&mut Self, String, Option<Place>, &Node) -> T,
    ) -> Vec<T> {
        let Some(node) = fields.get(section) else {
            return Vec::new();
        };
        let Value::Map(entries) = &node.value else {
            self.wrong(format!("`{section}`"), "a mapping of names", node);
            return Vec::new();
        };
        if entries.len() > max {
            self.report(Problem::TooMany { field: section, max }, node.place);
            return Vec::new();
        }
        let mut names: Vec<String> = Vec::new();
        let mut found = Vec::new();
        for (key, value) in entries {
            let name = key.text().unwrap_or_default();
            let reason = match () {
                () if names.contains(&name) => Some("it stands here twice: keep one of them"),
                () if !is_name(&name) => {
                    Some("a name has letters, digits, `-`, `_` and `.`, at most 64, and does not begin with a digit")
                }
                () => None,
            };
            if let Some(reason) = reason {
                let reason = reason.into();
                let problem = Problem::Unusable {
                    field: section,
                    word: name,
                    reason,
                };
                self.report(problem, key.place);
                continue;
            }
            names.push(name.clone());
            let depth = self.path.len();
            self.path.extend([section.to_owned(), name.clone()]);
            found.push(read(self, name, key.place, value));
            self.path.truncate(depth);
        }
        found
    }

    fn source(&mut self, node: &Node) -> Option<PlanOrigin> {
        let before = self.errors.count();
        let fields = self.fields(node, "a source", SOURCE)?;
        let given: Vec<_> = SOURCE
            .iter()
            .filter_map(|kind| Some((*kind, fields.get(kind)?)))
            .collect();
        let [(kind, node)] = given.as_slice() else {
            let problem = Problem::NotOne {
                context: "a source",
                allowed: SOURCE,
            };
            if self.errors.count() == before {
                self.report(problem, node.place);
            }
            return None;
        };
        match *kind {
            "file" => self.path_of(&fields),
            "redis" => {
                let fields = self.fields(node, "`redis`", REDIS)?;
                let help = "add `hash: …`, the key of a hash with a field for each value";
                Some(PlanOrigin::Redis(
                    self.text_needed(&fields, "hash", "`redis`", help, node.place)?.into(),
                ))
            }
            _ => self.http(node),
        }
    }

    /// A path; relative to the rules file.
    fn path_of(&mut self, fields: &Fields<'_>) -> Option<PlanOrigin> {
        let path = self.text_needed(fields, "file", "a source", "give its path", None)?;
        let directory = Path::new(&*self.origin.name).parent().unwrap_or(Path::new(""));
        Some(PlanOrigin::File {
            path: directory.join(&path).to_string_lossy().into(),
            written: path.into(),
        })
    }

    fn http(&mut self, node: &Node) -> Option<PlanOrigin> {
        let fields = self.fields(node, "`http`", HTTP)?;
        let help = "add `url: …`, which answers with a line for each value";
        let url = self.text_needed(&fields, "url", "`http`", help, node.place)?;
        let place = fields.get("url").and_then(|node| node.place);
        let parsed: Result<http::Uri, _> = url.parse();
        let reason = match &parsed {
            Err(error) => Some(format!("{error}: write it as in `http://tenants.internal/plans.csv`")),
            Ok(uri) if !matches!(uri.scheme_str(), Some("http" | "https")) => {
                Some("it begins with neither `http://` nor `https://`".to_owned())
            }
            Ok(uri)
                if uri
                    .authority()
                    .is_some_and(|authority| authority.as_str().contains('@')) =>
            {
                Some("a login in it would be shown wherever rules are: let the network say who may ask".to_owned())
            }
            Ok(_) => None,
        };
        if let Some(reason) = reason {
            let problem = Problem::Unusable {
                field: "url",
                word: url,
                reason: reason.into(),
            };
            self.report(problem, place);
            return None;
        }
        let every = match self.text(&fields, "every").given() {
            None => USUAL_EVERY,
            Some(text) => {
                let parsed = duration::parse(&text.value);
                let reason = match parsed {
                    Ok(every) if EVERY.contains(&every) => return Some(PlanOrigin::Http { url: url.into(), every }),
                    Ok(_) => "allowed are 1s to 1d".into(),
                    Err(reason) => reason,
                };
                let problem = Problem::BadDuration {
                    field: "every",
                    word: text.value.clone(),
                    reason,
                    example: "every: 30s",
                };
                self.report(problem, text.place);
                return None;
            }
        };
        Some(PlanOrigin::Http { url: url.into(), every })
    }

    /// A text that has to be there.
    fn text_needed(
        &mut self,
        fields: &Fields<'_>,
        field: &'static str,
        context: &'static str,
        help: &'static str,
        place: Option<Place>,
    ) -> Option<String> {
        let text = self.text(fields, field);
        let problem = match text.given() {
            None if text.is_there() => return None,
            None => Problem::Missing { field, context, help },
            Some(text) if text.value.is_empty() => Problem::Empty { field },
            Some(text) if text.value.len() > MAX_TEXT => Problem::TooLong { field, max: MAX_TEXT },
            Some(text) => return Some(text.value.clone()),
        };
        self.report(problem, text.place().or(place));
        None
    }
}

/// A name that no limit (`100/hour`) can be taken for.
fn is_name(name: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    (1..=MAX_NAME).contains(&name.len()) && name.chars().all(allowed) && !name.starts_with(|c: char| c.is_ascii_digit())
}

/// A path, URL or key as the name of what is read, for errors and logs.
#[must_use]
pub fn origin(from: &PlanOrigin) -> Arc<str> {
    match from {
        PlanOrigin::File { path: text, .. } | PlanOrigin::Http { url: text, .. } => Arc::clone(text),
        other => other.to_string().into(),
    }
}
