//! One descriptor with a `rate_limit` → [`Rule`].

use std::sync::Arc;

use crate::rules::{Candidate, Defaults, Rule};

use super::super::error::ConfigErrors;
use super::super::field::{Field, Placed};
use super::super::options::{METADATA_KEY, Options};
use super::super::problem::Problem;
use super::super::raw::Descriptor;
use super::scope::Scope;
use super::{limits, plans};

/// The words of `on_limit`.
const ON_LIMIT: [&str; 2] = ["deny", "mark"];

/// Compiles a rule; `None` when something is wrong with it. Its index and tag are given when all of its descriptor's are known.
pub(super) fn compile(
    scope: &Scope<'_>,
    defaults: &Defaults,
    descriptor: &Descriptor,
    rate_limit: &Placed<Options>,
    errors: &mut ConfigErrors,
) -> Option<Rule> {
    let raw = &rate_limit.value;
    let name = raw.name.value().map_or("", String::as_str);
    scope.short(errors, "name", &raw.name);
    let replaces = replaces(scope, raw, name, errors);
    let metadata = descriptor.in_metadata.value();
    let own = scope.on_store_error(errors, &raw.on_store_error);
    let theirs = metadata.and_then(|options| scope.on_store_error(errors, &options.on_store_error));
    let said = |get: fn(&Options) -> &Field<bool>| {
        let own = get(raw).value();
        let value = own.or_else(|| metadata.and_then(|options| get(options).value()));
        value.copied().unwrap_or(true)
    };
    let (counted, plan_from) = if raw.plan_from.is_there() {
        let (counted, from) = plans::rule(scope, raw, metadata, errors)?;
        (counted, Some(from))
    } else {
        if raw.default.is_there() {
            let (field, needs) = ("default", "`plan_from: …`");
            scope.report(errors, Problem::NoEffect { field, needs }, raw.default.place());
        }
        (limits::compile(scope, defaults, rate_limit, metadata, errors)?, None)
    };
    let amount = counted.amount;
    let candidate = candidate(scope, defaults, descriptor, errors);
    let returned = descriptor.options.metadata.value().and_then(|metadata| {
        let mut metadata = metadata.clone();
        metadata.remove(METADATA_KEY);
        (!metadata.is_empty()).then(|| Arc::new(metadata))
    });
    let flags = &descriptor.options;
    Some(Rule {
        index: 0,
        tag: None,
        domain: Arc::clone(&scope.domain),
        path: path(&scope.levels).into(),
        levels: scope.levels.as_slice().into(),
        name: name.into(),
        limit: amount.limit,
        requests_per_unit: amount.requests_per_unit,
        window: amount.window,
        shadow_mode: flags.shadow_mode.is_true(),
        quota_mode: flags.quota_mode.is_true(),
        detailed_metric: flags.detailed_metric.is_true(),
        value_to_metric: scope.value_to_metric.as_slice().into(),
        shared: scope.shared.as_slice().into(),
        headers: said(|options| &options.headers),
        body: said(|options| &options.body),
        marks: marks(scope, raw, metadata, errors),
        replaces: replaces.into(),
        metadata: returned,
        on_store_error: own.or(theirs).or(scope.on_store_error),
        lease: counted.lease.or(scope.lease),
        count_denied: amount.count_denied,
        hold_first: amount.hold_first,
        plan_from,
        rlqs: counted.rlqs,
        candidate: candidate.map(Box::new),
        source: scope.place(rate_limit.place).into(),
    })
}

/// Whether what is over the limit passes with a mark.
fn marks(scope: &Scope<'_>, raw: &Options, metadata: Option<&Options>, errors: &mut ConfigErrors) -> bool {
    let on_limit = if raw.on_limit.is_there() {
        Some(&raw.on_limit)
    } else {
        metadata.map(|options| &options.on_limit)
    };
    let word = |word: &str| match word {
        "deny" => Some(false),
        "mark" => Some(true),
        _ => None,
    };
    on_limit
        .and_then(|field| scope.word(errors, "on_limit", field, &ON_LIMIT, word))
        .unwrap_or(false)
}

/// The descriptor's `candidate`, or that of its `metadata`.
fn candidate(
    scope: &Scope<'_>,
    defaults: &Defaults,
    descriptor: &Descriptor,
    errors: &mut ConfigErrors,
) -> Option<Candidate> {
    let own = descriptor.options.candidate.given();
    let theirs = descriptor
        .in_metadata
        .value()
        .and_then(|options| options.candidate.given());
    if let (Some(_), Some(theirs)) = (own, theirs) {
        let (field, other) = ("candidate", "the same in `metadata.sluicegate`");
        scope.report(errors, Problem::Conflict { field, other }, theirs.place);
    }
    limits::candidate(scope, defaults, own.or(theirs)?, errors)
}

fn replaces(scope: &Scope<'_>, raw: &Options, own: &str, errors: &mut ConfigErrors) -> Vec<String> {
    let mut names = Vec::new();
    for Placed { value, place } in raw.replaced() {
        let problem = if value.is_empty() {
            Problem::Empty { field: "replaces.name" }
        } else if value == own {
            let name = value.clone();
            Problem::ReplacesItself { name }
        } else {
            names.push(value.clone());
            continue;
        };
        scope.report(errors, problem, *place);
    }
    names
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
