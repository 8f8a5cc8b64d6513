//! What a change of a rule's plans means.

use crate::config::problem::Clipped;
use crate::rules::Rule;
use crate::rules::plans::PlanOrigin;

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

/// A source as the rules have it: two copies of one file lie in different directories.
fn written(from: &PlanOrigin) -> String {
    match from {
        PlanOrigin::File { written, .. } => format!("file {written}"),
        other => other.to_string(),
    }
}
