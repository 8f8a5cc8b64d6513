//! What holds on the way down to a descriptor, and how what is wrong there is reported.

use std::sync::Arc;

use crate::rules::OnStoreError;
use crate::rules::plans::{LimitPlan, PlanSource};

use super::super::error::{ConfigError, ConfigErrors, Place, Severity};
use super::super::field::Field;
use super::super::fields::MAX_TEXT;
use super::super::problem::{Problem, nearest};
use super::super::raw::File;

/// The plans and sources of one file.
#[derive(Debug, Clone, Default)]
pub(super) struct FilePlans {
    pub(super) plans: Vec<Arc<LimitPlan>>,
    pub(super) sources: Vec<Arc<PlanSource>>,
}

/// A place in the tree.
pub(super) struct Scope<'f> {
    pub(super) file: &'f File,
    pub(super) domain: Arc<str>,
    pub(super) levels: Vec<(String, String)>,
    pub(super) value_to_metric: Vec<bool>,
    pub(super) shared: Vec<bool>,
    /// The path in errors.
    pub(super) labels: Vec<String>,
    /// The nearest `on_store_error` above.
    pub(super) on_store_error: Option<OnStoreError>,
    /// The nearest `lease` above.
    pub(super) lease: Option<bool>,
    /// The plans and sources of the file.
    pub(super) plans: FilePlans,
}

impl<'f> Scope<'f> {
    pub(super) fn new(file: &'f File) -> Self {
        Self {
            file,
            domain: file.domain.value().map_or("", String::as_str).into(),
            levels: Vec::new(),
            value_to_metric: Vec::new(),
            shared: Vec::new(),
            labels: Vec::new(),
            on_store_error: None,
            lease: file.options.lease.value().copied(),
            plans: FilePlans::default(),
        }
    }

    /// Whether Envoys may enforce the file's rules themselves.
    pub(super) fn has_rlqs(&self) -> bool {
        self.file.options.rlqs.is_there()
    }

    /// Where something is declared: what a later error says of an earlier one, and a rule of itself.
    pub(super) fn place(&self, place: Option<Place>) -> String {
        let name = &self.file.origin.name;
        place.map_or_else(|| name.to_string(), |at| format!("{name}:{}", at.line))
    }

    pub(super) fn report(&self, errors: &mut ConfigErrors, problem: Problem, place: Option<Place>) {
        self.add(errors, Severity::Error, problem, place);
    }

    pub(super) fn warn(&self, errors: &mut ConfigErrors, problem: Problem, place: Option<Place>) {
        self.add(errors, Severity::Warning, problem, place);
    }

    fn add(&self, errors: &mut ConfigErrors, severity: Severity, problem: Problem, place: Option<Place>) {
        errors.add(severity, self.error(problem, place));
    }

    /// What is wrong, with its place.
    pub(super) fn error(&self, problem: Problem, place: Option<Place>) -> ConfigError {
        ConfigError::new(&self.file.origin, place, self.labels.join(" / "), problem)
    }

    /// One of several words; a wrong one is reported.
    pub(super) fn word<T>(
        &self,
        errors: &mut ConfigErrors,
        name: &'static str,
        field: &Field<String>,
        allowed: &'static [&'static str],
        parse: impl Fn(&str) -> Option<T>,
    ) -> Option<T> {
        let given = field.given()?;
        let parsed = parse(&given.value);
        if parsed.is_none() {
            let problem = Problem::UnknownWord {
                field: name,
                suggestion: nearest(&given.value, allowed),
                word: given.value.clone(),
                allowed,
            };
            self.report(errors, problem, given.place);
        }
        parsed
    }

    pub(super) fn on_store_error(&self, errors: &mut ConfigErrors, field: &Field<String>) -> Option<OnStoreError> {
        const WORDS: [&str; 3] = [
            OnStoreError::Local.name(),
            OnStoreError::Allow.name(),
            OnStoreError::Deny.name(),
        ];
        self.word(errors, "on_store_error", field, &WORDS, OnStoreError::parse)
    }

    /// Whether a text is there and can be used; `missing` says what it is missing in, and the cure.
    pub(super) fn required(
        &self,
        errors: &mut ConfigErrors,
        name: &'static str,
        field: &Field<String>,
        (context, help): (&'static str, &'static str),
        place: Option<Place>,
    ) -> bool {
        match field {
            Field::Broken => false,
            Field::Absent => {
                let problem = Problem::Missing {
                    field: name,
                    context,
                    help,
                };
                self.report(errors, problem, place);
                false
            }
            Field::Given(text) if text.value.is_empty() => {
                self.report(errors, Problem::Empty { field: name }, text.place);
                false
            }
            Field::Given(_) => self.short(errors, name, field),
        }
    }

    /// Whether a text is not too long.
    pub(super) fn short(&self, errors: &mut ConfigErrors, name: &'static str, field: &Field<String>) -> bool {
        let long = field.given().filter(|text| text.value.len() > MAX_TEXT);
        if let Some(text) = long {
            let problem = Problem::TooLong {
                field: name,
                max: MAX_TEXT,
            };
            self.report(errors, problem, text.place);
        }
        long.is_none()
    }
}
