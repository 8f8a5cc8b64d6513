//! What a change of a rule's plans means.

use std::sync::Arc;

use crate::config::problem::Clipped;
use crate::rules::plans::{PlanOrigin, PlanSource};
use crate::rules::{Rule, RuleSet};

/// Most entries of a source that are told one by one.
const MAX_ENTRIES_TOLD: usize = 20;

/// What becomes of a rule's plans. The default's limit is the rule's own, for which it speaks itself.
pub(super) fn plans(old: &Rule, new: &Rule) -> Vec<String> {
    let (was, is) = match (&old.plan_from, &new.plan_from) {
        (None, None) => return Vec::new(),
        (Some(was), None) => {
            return vec![format!(
                "no plans any more, they came from {}",
                Clipped(&written(&was.source.from))
            )];
        }
        (None, Some(is)) => return vec![format!("plans come from {}", Clipped(&written(&is.source.from)))],
        (Some(was), Some(is)) => (was, is),
    };
    let mut parts = Vec::new();
    let [was_from, is_from] = [was, is].map(|from| written(&from.source.from));
    if was_from != is_from {
        let [was, is] = [was_from, is_from].map(|from| Clipped(&from).to_string());
        parts.push(format!("plans come from {is}, not from {was}"));
    }
    if was.default.name != is.default.name {
        parts.push(format!(
            "values without an entry have the plan {}, not {}",
            is.default.name, was.default.name
        ));
    }
    for plan in &is.source.plans {
        match was.source.plan(&plan.name) {
            None => parts.push(format!("new plan {}: {}", plan.name, plan.amount)),
            Some(before) if before.amount != plan.amount => {
                parts.push(format!("plan {}: {} → {}", plan.name, before.amount, plan.amount));
            }
            Some(_) => {}
        }
    }
    let gone = was
        .source
        .plans
        .iter()
        .filter(|plan| is.source.plan(&plan.name).is_none());
    parts.extend(gone.map(|plan| format!("plan {} is gone: values that have it get the default", plan.name)));
    parts
}

/// What becomes of the entries of sources that both sets have, as far as they were read: files are, Redis and URLs are not.
pub(super) fn entries(old: &RuleSet, new: &RuleSet) -> Vec<String> {
    let mut lines = Vec::new();
    for source in &new.sources {
        let known = |was: &&Arc<PlanSource>| (&was.domain, &was.name) == (&source.domain, &source.name);
        let rows = old
            .sources
            .iter()
            .find(known)
            .and_then(|was| was.rows())
            .zip(source.rows());
        let Some((was, is)) = rows else { continue };
        let gone = was.entries().filter(|(value, _)| is.entry(value).is_none());
        let gone = gone.map(|(value, was)| (value, None, Some(was)));
        let changed = is.entries().map(|(value, row)| (value, Some(row), was.entry(value)));
        let mut changed = changed.filter(|(_, row, before)| row != before).chain(gone);
        let of = format!("{}: source {}", Clipped(&source.domain), source.name);
        for (value, row, before) in changed.by_ref().take(MAX_ENTRIES_TOLD) {
            let value = String::from_utf8_lossy(value);
            let value = Clipped(&value);
            lines.push(match (row, before) {
                (Some(row), Some(before)) => format!("{of}: {value} has {row}, not {before}"),
                (Some(row), None) => format!("{of}: new entry {value}: {row}"),
                (None, Some(before)) => format!("{of}: {value} has no entry any more, it had {before}"),
                (None, None) => continue,
            });
        }
        let left = changed.count();
        if left > 0 {
            lines.push(format!("{of}: and {left} more entries differ"));
        }
    }
    lines
}

/// A source as the rules have it: two copies of one file lie in different directories.
fn written(from: &PlanOrigin) -> String {
    match from {
        PlanOrigin::File { written, .. } => format!("file {written}"),
        other => other.to_string(),
    }
}
