//! One descriptor with a `rate_limit` → [`Rule`].

use std::sync::Arc;

use crate::rules::{OnStoreError, Rule};

use super::compile::{Compiler, Scope};
use super::limits;
use super::problem::{Problem, nearest};
use super::raw::{Descriptor, Field, FromMetadata, METADATA_KEY, Placed, RateLimit};

impl Compiler<'_> {
    pub(super) fn rule(
        &mut self,
        scope: &Scope<'_>,
        descriptor: &Descriptor,
        rate_limit: &Placed<RateLimit>,
        ours: &Placed<FromMetadata>,
    ) -> Option<Arc<Rule>> {
        let raw = &rate_limit.value;
        let name = raw.name.value().map_or("", String::as_str);
        self.short(scope, &raw.name, "name");
        let replaces = self.replaces(scope, raw, name);
        let own = self.on_store_error(scope, &raw.options.on_store_error);
        let theirs = self.on_store_error(scope, &ours.value.options.on_store_error);
        let counted = limits::compile(scope, self.defaults, rate_limit, ours, self.errors)?;
        let metadata = descriptor.metadata.value().and_then(|metadata| {
            let mut metadata = metadata.clone();
            metadata.remove(METADATA_KEY);
            (!metadata.is_empty()).then(|| Arc::new(metadata))
        });
        let rule = Arc::new(Rule {
            index: self.rules.len(),
            domain: Arc::clone(&scope.domain),
            path: path(&scope.levels).into(),
            levels: scope.levels.as_slice().into(),
            name: name.into(),
            limit: counted.limit,
            requests_per_unit: raw.requests_per_unit.value().copied().unwrap_or_default(),
            window: counted.window,
            shadow_mode: descriptor.shadow_mode.is_true(),
            quota_mode: descriptor.quota_mode.is_true(),
            detailed_metric: descriptor.detailed_metric.is_true(),
            value_to_metric: scope.value_to_metric.as_slice().into(),
            shared: scope.shared.as_slice().into(),
            replaces: replaces.into(),
            metadata,
            on_store_error: own.or(theirs).or(scope.on_store_error),
            lease: counted.lease.or(scope.lease),
            count_denied: counted.count_denied,
            source: scope.place(rate_limit.place).into(),
        });
        self.rules.push(Arc::clone(&rule));
        Some(rule)
    }

    fn replaces(&mut self, scope: &Scope<'_>, raw: &RateLimit, own: &str) -> Vec<String> {
        let mut names = Vec::with_capacity(raw.replaces.len());
        for field in &raw.replaces {
            let Some(Placed { value, place }) = field.given() else {
                continue;
            };
            let problem = if value.is_empty() {
                Problem::Empty { field: "replaces.name" }
            } else if value == own {
                let name = value.clone();
                Problem::ReplacesItself { name }
            } else {
                names.push(value.clone());
                continue;
            };
            scope.report(self.errors, problem, *place);
        }
        names
    }

    pub(super) fn on_store_error(&mut self, scope: &Scope<'_>, field: &Field<String>) -> Option<OnStoreError> {
        const WORDS: [&str; 3] = [
            OnStoreError::Local.name(),
            OnStoreError::Allow.name(),
            OnStoreError::Deny.name(),
        ];
        let given = field.given()?;
        let mode = OnStoreError::parse(&given.value);
        if mode.is_none() {
            let problem = Problem::UnknownWord {
                field: "on_store_error",
                suggestion: nearest(&given.value, &WORDS),
                word: given.value.clone(),
                allowed: &WORDS,
            };
            scope.report(self.errors, problem, given.place);
        }
        mode
    }
}

fn path(levels: &[(String, String)]) -> String {
    let mut path = String::new();
    for (at, (key, value)) in levels.iter().enumerate() {
        if at > 0 {
            path.push('.');
        }
        path.push_str(key);
        if !value.is_empty() {
            path.push('_');
            path.push_str(value);
        }
    }
    path
}
