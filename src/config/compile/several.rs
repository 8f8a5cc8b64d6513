//! All limits of one descriptor: its `rate_limit`, or the entries of `rate_limits`.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::sync::Arc;

use crate::model::calendar::Zone;
use crate::model::key::Tag;
use crate::model::{Algorithm, AlgorithmKind};
use crate::rules::{MAX_LIMITS, Rule};

use super::super::error::{ConfigErrors, Place};
use super::super::field::{Field, Placed};
use super::super::options::Options;
use super::super::problem::Problem;
use super::super::raw::Descriptor;
use super::scope::Scope;

pub(super) use super::super::options::limit_label as label;

/// The limits of a descriptor as they are written; what cannot stand together is reported.
pub(super) fn limits<'d>(
    scope: &Scope<'_>,
    descriptor: &'d Descriptor,
    in_metadata: &'d Options,
    errors: &mut ConfigErrors,
) -> Vec<&'d Placed<Options>> {
    let (own, theirs) = (&descriptor.options.rate_limits, &in_metadata.rate_limits);
    let mut conflict = |field, other, place: Option<Place>| {
        scope.report(errors, Problem::Conflict { field, other }, place);
    };
    if own.is_there() && theirs.is_there() {
        conflict("rate_limits", "the same in `metadata.sluicegate`", theirs.place());
    }
    let list = if own.is_there() { own } else { theirs };
    if list.is_there() && descriptor.rate_limit.is_there() {
        conflict("rate_limits", "rate_limit", list.place());
    }
    let candidates = [&descriptor.options.candidate, &in_metadata.candidate];
    if let (true, Some(candidate)) = (list.is_there(), candidates.iter().find(|field| field.is_there())) {
        conflict("candidate", "rate_limits", candidate.place());
    }
    if !descriptor.rate_limit.is_there() {
        let metadata = descriptor.in_metadata.place();
        for (option, place) in in_metadata.counting() {
            let field = option.name;
            let problem = if list.is_there() {
                Problem::OfEachLimit { field }
            } else {
                Problem::NeedsRateLimit { field }
            };
            scope.report(errors, problem, place.or(metadata));
        }
    }
    match (&descriptor.rate_limit, list) {
        (Field::Given(limit), _) => vec![limit],
        (_, Field::Given(list)) => entries(scope, list, errors),
        _ => Vec::new(),
    }
}

fn entries<'d>(
    scope: &Scope<'_>,
    list: &'d Placed<Vec<Field<Options>>>,
    errors: &mut ConfigErrors,
) -> Vec<&'d Placed<Options>> {
    let field = "rate_limits";
    if list.value.is_empty() {
        let help = "add a limit to it, as in `- { requests_per_unit: 10, unit: second }`, or leave it out";
        let context = "`rate_limits`";
        let problem = Problem::Missing {
            field: "requests_per_unit",
            context,
            help,
        };
        scope.report(errors, problem, list.place);
    }
    if list.value.len() > MAX_LIMITS {
        let problem = Problem::TooManyLimits { field, max: MAX_LIMITS };
        scope.report(errors, problem, list.place);
    }
    list.value.iter().filter_map(Field::given).collect()
}

/// Names the limits of a descriptor apart. The one with the longest window keeps the descriptor's own name and counters, so
/// that it goes on where others come to stand beside it; the others are named after their windows, and those of one window
/// numbered by what they are, so that their order does not matter. A limit with plans has a window for each: it comes before all others, so that its
/// name depends on none of them.
pub(super) fn tag(scope: &Scope<'_>, limits: &[&Placed<Options>], rules: &mut [Rule], errors: &mut ConfigErrors) {
    if limits.len() < 2 || rules.len() < limits.len() {
        return;
    }
    let names: Vec<Arc<str>> = rules.iter().map(|rule| Arc::clone(&rule.name)).collect();
    for (rule, written) in rules.iter().zip(limits) {
        for name in written.value.replaced() {
            if names.iter().any(|other| **other == *name.value && *other != rule.name) {
                let problem = Problem::ReplacesSibling {
                    name: name.value.clone(),
                };
                scope.report(errors, problem, name.place);
            }
        }
    }
    let holds = |rule: &Rule| rule.limit.is_some_and(|limit| limit.hold_us > 0);
    let counts = |rule: &Rule| rule.limit.is_some() && !holds(rule);
    if rules.iter().any(holds)
        && let Some(written) = rules.iter().position(counts).and_then(|at| limits.get(at))
    {
        scope.warn(errors, Problem::CountsEstimates, written.place);
    }
    let mut order: Vec<usize> = (0..rules.len()).collect();
    order.sort_by_cached_key(|at| kind(&rules[*at]));
    let mut before: Option<LimitKind> = None;
    let mut same: HashMap<u64, u8> = HashMap::new();
    for (position, at) in order.into_iter().enumerate() {
        let (Some(rule), Some(written)) = (rules.get_mut(at), limits.get(at)) else {
            continue;
        };
        let this = kind(rule);
        match (&rule.plan_from, rule.limit) {
            (None, None) => scope.report(errors, Problem::UnlimitedOfSeveral, written.value.unlimited.place()),
            _ if before.as_ref() != Some(&this) => {}
            (Some(_), _) => scope.report(errors, Problem::SameSource, written.value.plan_from.place()),
            (None, Some(limit)) => {
                let (window, algorithm) = (rule.window, limit.algorithm.kind());
                scope.report(errors, Problem::SameLimit { window, algorithm }, written.place);
            }
        }
        before = Some(this);
        if position == 0 {
            continue;
        }
        let seconds = if rule.plan_from.is_some() {
            Tag::PLANS
        } else {
            rule.window.seconds()
        };
        let number = same.entry(seconds).or_default();
        *number = number.saturating_add(1);
        let tag = Tag {
            seconds,
            number: *number,
        };
        rule.path = format!("{}#{tag}", rule.path).into();
        rule.tag = Some(tag);
    }
}

/// What a limit among several is, in the order of their names: its source of plans, or else its window, the longest first,
/// its algorithm and its calendar, and whether it marks.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum LimitKind {
    Plans(Arc<str>),
    Window(Reverse<u64>, u64, Option<AlgorithmKind>, Option<Zone>, bool),
}

fn kind(rule: &Rule) -> LimitKind {
    if let Some(from) = &rule.plan_from {
        return LimitKind::Plans(Arc::clone(&from.source.name));
    }
    // Permits in flight are no quota: they have no window.
    let quota = rule.limit.filter(|limit| limit.algorithm != Algorithm::Concurrency);
    let rank = Reverse(quota.map_or(0, |limit| limit.window_us));
    let algorithm = rule.limit.map(|limit| limit.algorithm.kind());
    LimitKind::Window(rank, rule.window.seconds(), algorithm, rule.window.zone, rule.marks)
}
