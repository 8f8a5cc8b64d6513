//! `plans`, `sources` and `plan_from` → [`LimitPlan`], [`PlanSource`] and [`PlanFrom`].

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use crate::rules::plans::{LimitPlan, PlanFrom, PlanSource};
use crate::rules::{Defaults, Rule};

use super::super::error::ConfigErrors;
use super::super::field::Placed;
use super::super::options::{Level, Options};
use super::super::problem::Problem;
use super::limits::{self, Counted};
use super::scope::{FilePlans, Scope};

/// Compiles those of the scope's file.
pub(super) fn compile(scope: &mut Scope<'_>, defaults: &Defaults, errors: &mut ConfigErrors) -> FilePlans {
    let file = scope.file;
    let mut plans = Vec::with_capacity(file.plans.len());
    for written in &file.plans {
        let Some(written_options) = &written.options else {
            continue;
        };
        let depth = scope.labels.len();
        scope.labels.extend(["plans".to_owned(), written.name.clone()]);
        let options = Placed {
            value: written_options.clone(),
            place: written.place,
        };
        if let Some(counted) = limits::compile(scope, defaults, &options, None, errors).map(Counted::unleased) {
            let name = written.name.as_str().into();
            let amount = counted.amount;
            plans.push(Arc::new(LimitPlan { name, amount }));
        }
        scope.labels.truncate(depth);
    }
    let source = |written: &super::super::plans::WrittenSource| {
        let name = (Arc::clone(&scope.domain), written.name.as_str().into());
        let from = written.from.clone()?;
        let plans = plans.as_slice().into();
        Some(Arc::new(PlanSource::new(name, from, plans, *defaults)))
    };
    FilePlans {
        sources: file.sources.iter().filter_map(source).collect(),
        plans,
    }
}

/// Reports sources whose names other files of the domain have already; `known` has where each was first declared.
pub(super) fn report_duplicates(scope: &Scope<'_>, known: &mut HashMap<String, String>, errors: &mut ConfigErrors) {
    for written in &scope.file.sources {
        match known.entry(written.name.clone()) {
            Entry::Vacant(entry) => {
                entry.insert(scope.place(written.place));
            }
            Entry::Occupied(entry) => {
                let (name, first) = (entry.key().clone(), entry.get().clone());
                scope.report(errors, Problem::DuplicateSource { name, first }, written.place);
            }
        }
    }
}

/// Warns of sources that no rule of the file names, and of plans where it has no sources.
pub(super) fn warn_unused(scope: &Scope<'_>, rules: &[Arc<Rule>], errors: &mut ConfigErrors) {
    if errors.count() > 0 {
        return;
    }
    let needs = "a `rate_limit` with `plan_from`";
    let is_named = |source: &Arc<PlanSource>| {
        let from = rules.iter().filter_map(|rule| rule.plan_from.as_ref());
        from.into_iter().any(|from| Arc::ptr_eq(&from.source, source))
    };
    for (source, written) in scope.plans.sources.iter().zip(&scope.file.sources) {
        if !is_named(source) {
            let field = "sources";
            scope.warn(errors, Problem::NoEffect { field, needs }, written.place);
        }
    }
    if let (Some(first), []) = (scope.file.plans.first(), scope.plans.sources.as_slice()) {
        let field = "plans";
        scope.warn(errors, Problem::NoEffect { field, needs }, first.place);
    }
}

/// Options that say what is counted, which is the plan's to say.
fn conflicts(scope: &Scope<'_>, raw: &Options, metadata: Option<&Options>, errors: &mut ConfigErrors) {
    let beside = [
        (
            "requests_per_unit",
            raw.requests_per_unit.is_there(),
            raw.requests_per_unit.place(),
        ),
        ("unit", raw.unit.is_there(), raw.unit.place()),
        ("unlimited", raw.unlimited.is_there(), raw.unlimited.place()),
    ];
    let beside = beside
        .into_iter()
        .filter(|(_, there, _)| *there)
        .map(|(field, _, place)| (field, place));
    // What is told of a limit, and to whom, is the rule's to say.
    let counting = raw.counting().chain(metadata.into_iter().flat_map(Options::counting));
    let counting = counting.filter(|(option, _)| option.stands_on(Level::Plan));
    let counting = counting.map(|(option, place)| (option.name, place));
    for (field, place) in beside.chain(counting) {
        let other = "plan_from";
        scope.report(errors, Problem::Conflict { field, other }, place);
    }
}

/// Reports a field that names what a list of the same file does not have.
fn unlisted(
    scope: &Scope<'_>,
    errors: &mut ConfigErrors,
    (field, list): (&'static str, &str),
    asked: &Placed<String>,
    known: Vec<&str>,
) {
    let known = if known.is_empty() {
        "none".to_owned()
    } else {
        known.join(", ")
    };
    let problem = Problem::Unusable {
        field,
        word: asked.value.clone(),
        reason: format!("`{list}` of this file has no such name; it has: {known}").into(),
    };
    scope.report(errors, problem, asked.place);
}

/// A rule whose values have plans: what it counts by default, and where the others are; `None` when something is wrong
/// with it.
pub(super) fn rule(
    scope: &Scope<'_>,
    raw: &Options,
    metadata: Option<&Options>,
    errors: &mut ConfigErrors,
) -> Option<(Counted, PlanFrom)> {
    let before = errors.count();
    let asked = raw.plan_from.given()?;
    conflicts(scope, raw, metadata, errors);
    if scope.shared.last() == Some(&true) {
        // Values of different plans would count on one counter, each by its own number.
        let (field, other) = ("plan_from", "share_threshold: true");
        scope.report(errors, Problem::Conflict { field, other }, asked.place);
    }
    let source = scope.plans.sources.iter().find(|source| *source.name == *asked.value);
    // What is there and unusable has been reported.
    let is_written = scope.file.sources.iter().any(|written| written.name == asked.value);
    if source.is_none() && !is_written {
        let known = scope.plans.sources.iter().map(|source| &*source.name).collect();
        unlisted(scope, errors, ("plan_from", "sources"), asked, known);
    }
    let default = raw.default.given();
    if !raw.default.is_there() {
        let problem = Problem::Missing {
            field: "default",
            context: "a `rate_limit` with `plan_from`",
            help: "add `default: …`, the plan of values that the source does not have",
        };
        scope.report(errors, problem, asked.place);
    }
    let plan = default.and_then(|name| scope.plans.plans.iter().find(|plan| *plan.name == *name.value));
    let is_written = |name: &str| scope.file.plans.iter().any(|written| written.name == name);
    if let (Some(name), None) = (default, plan)
        && !is_written(&name.value)
    {
        let known = scope.plans.plans.iter().map(|plan| &*plan.name).collect();
        unlisted(scope, errors, ("default", "plans"), name, known);
    }
    let (source, default) = (Arc::clone(source?), Arc::clone(plan?));
    let counted = Counted {
        amount: default.amount,
        rlqs: false,
        lease: raw
            .lease
            .value()
            .or(metadata.and_then(|metadata| metadata.lease.value()))
            .copied(),
    };
    (errors.count() == before).then_some((counted, PlanFrom { source, default }))
}
