//! All limits of one descriptor: its `rate_limit`, or the entries of `rate_limits`.

use std::cmp::Reverse;
use std::collections::HashMap;

use crate::model::Algorithm;
use crate::model::key::Tag;
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
        for (field, place) in in_metadata.counting() {
            scope.report(errors, Problem::NeedsRateLimit { field }, place.or(metadata));
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
/// that it goes on where others come to stand beside it; the others are named after their windows, so that their order
/// does not matter.
pub(super) fn tag(scope: &Scope<'_>, limits: &[&Placed<Options>], rules: &mut [Rule], errors: &mut ConfigErrors) {
    if limits.len() < 2 || rules.len() < limits.len() {
        return;
    }
    let longest = (0..rules.len()).max_by_key(|at| (rank(&rules[*at]), Reverse(*at)));
    let mut same: HashMap<u64, u8> = HashMap::new();
    let mut kinds = Vec::new();
    for (at, (rule, written)) in rules.iter_mut().zip(limits).enumerate() {
        let Some(limit) = rule.limit else {
            scope.report(errors, Problem::UnlimitedOfSeveral, written.value.unlimited.place());
            continue;
        };
        let (algorithm, window) = (limit.algorithm.kind(), rule.window);
        let kind = (algorithm, window.seconds(), window.zone, rule.marks);
        if kinds.contains(&kind) {
            scope.report(errors, Problem::SameLimit { window, algorithm }, written.place);
        }
        kinds.push(kind);
        if Some(at) == longest {
            continue;
        }
        let number = same.entry(window.seconds()).or_default();
        *number = number.saturating_add(1);
        let tag = Tag {
            seconds: window.seconds(),
            number: *number,
        };
        rule.path = format!("{}#{tag}", rule.path).into();
        rule.tag = Some(tag);
    }
}

/// The window of a limit. Permits in flight are no quota: they have none.
fn rank(rule: &Rule) -> u64 {
    let counts = rule.limit.filter(|limit| limit.algorithm != Algorithm::Concurrency);
    counts.map_or(0, |limit| limit.window_us)
}
