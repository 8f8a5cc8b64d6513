//! What a change of rules means for their counters.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use super::{Rule, RuleSet};
use crate::model::Limit;
use crate::model::key::{Owner, Tag, counter_key};

/// What tells a rule from all others: its domain, its levels, and which of several limits it is.
pub type RuleId<'r> = (&'r str, &'r [(String, String)], Option<Tag>);

/// The same of a rule before and after a change; `None` = it was not there, or is gone.
pub type RuleChange<'r> = (Option<&'r Rule>, Option<&'r Rule>);

impl Rule {
    /// What tells it from all others.
    #[must_use]
    pub fn id(&self) -> RuleId<'_> {
        (&self.domain, &self.levels, self.tag)
    }

    /// Whether counters of `old`, which was this rule, go on as this one's: what was used stays used. They do unless the
    /// algorithm changes, or the window of a `sliding_log`, or holds, or which values share a counter. Where values have
    /// plans, this is said of those without an entry.
    #[must_use]
    pub fn keeps_counters_of(&self, old: &Self) -> bool {
        self.shares_as(old) && is_kept((old.owner(), old.limit), (self.owner(), self.limit))
    }

    /// The plans of `old`, which was this rule, or of this one where that had none, whose values start anew.
    #[must_use]
    pub fn plans_starting_anew(&self, old: &Self) -> Vec<Arc<str>> {
        let Some(from) = old.plan_from.as_ref().or(self.plan_from.as_ref()) else {
            return Vec::new();
        };
        // A plan that is gone, or was not there yet: its values have the default.
        let limit = |rule: &Self, name: &str| {
            let plan = rule.plan_from.as_ref().and_then(|from| from.source.plan(name));
            (rule.owner(), plan.map_or(rule.limit, |plan| plan.amount.limit))
        };
        let names = from.source.plans.iter().map(|plan| &plan.name);
        let anew = names.filter(|name| !self.shares_as(old) || !is_kept(limit(old, name), limit(self, name)));
        anew.cloned().collect()
    }

    /// Whether the same values share a counter as in `old`, under the same name.
    fn shares_as(&self, old: &Self) -> bool {
        let names = |rule: &Self| -> Vec<Option<String>> {
            let levels = rule.levels.iter().zip(rule.shared.iter());
            levels
                .map(|((_, value), shared)| shared.then(|| value.clone()))
                .collect()
        };
        names(self) == names(old)
    }

    /// [`Self::id`] without the contents of sets of values.
    fn kin(&self) -> (&str, Vec<(&str, &str)>, Option<Tag>) {
        let levels = self.levels.iter().map(|(key, value)| {
            let set = ["in(", "cidr(", "regex("]
                .into_iter()
                .find(|set| value.starts_with(set));
            (key.as_str(), set.filter(|_| value.ends_with(')')).unwrap_or(value))
        });
        (&self.domain, levels.collect(), self.tag)
    }
}

impl RuleSet {
    fn by_id(&self) -> BTreeMap<RuleId<'_>, &Rule> {
        self.rules.iter().map(|rule| (rule.id(), &**rule)).collect()
    }

    /// Each rule of both sets with what it was before, in the order of their names. A rule whose set of values was written
    /// anew is the one that it was, if there is one such rule on each side.
    #[must_use]
    pub fn changes<'r>(&'r self, before: &'r Self) -> Vec<RuleChange<'r>> {
        let (old, new) = (before.by_id(), self.by_id());
        let mut gone = HashMap::<_, Vec<&Rule>>::new();
        for rule in old.values().filter(|rule| !new.contains_key(&rule.id())) {
            gone.entry(rule.kin()).or_default().push(rule);
        }
        let mut added = HashMap::<_, Vec<&Rule>>::new();
        for rule in new.values().filter(|rule| !old.contains_key(&rule.id())) {
            added.entry(rule.kin()).or_default().push(rule);
        }
        let other = |all: &HashMap<_, Vec<&'r Rule>>, rule: &'r Rule| match all.get(&rule.kin()).map(Vec::as_slice) {
            Some([one]) => Some(*one),
            _ => None,
        };
        let is_pair = |was: &'r Rule, is: &'r Rule| {
            let both = other(&gone, is).zip(other(&added, was));
            both.is_some_and(|(was_one, is_one)| was_one.id() == was.id() && is_one.id() == is.id())
        };
        let mut changes: Vec<RuleChange<'_>> = Vec::with_capacity(new.len());
        for rule in new.values() {
            let was = old.get(&rule.id()).copied();
            let was = was.or_else(|| other(&gone, rule).filter(|was| is_pair(was, rule)));
            changes.push((was, Some(rule)));
        }
        let left = old.values().filter(|rule| !new.contains_key(&rule.id()));
        let left = left.filter(|was| !other(&added, was).is_some_and(|is| is_pair(was, is)));
        changes.extend(left.map(|rule| (Some(*rule), None)));
        changes.sort_by_key(|(was, is)| is.or(*was).map(Rule::id));
        changes
    }

    /// The rules that were there before, and whose counters start anew. One of several limits of a descriptor was there if
    /// a limit of it is gone, or counts as another one now: they are named after their windows.
    #[must_use]
    pub fn starting_anew<'r>(&'r self, before: &'r Self) -> Vec<&'r Rule> {
        let changes = self.changes(before);
        let renamed: HashSet<_> = changes
            .iter()
            .filter_map(|(was, is)| {
                let was = (*was)?;
                let stays = is.is_some_and(|is| is.window == was.window || is.tag.is_some());
                (!stays).then_some((&was.domain, &was.levels))
            })
            .collect();
        let anew = changes.iter().filter_map(|(was, is)| {
            let is = (*is)?;
            let is_anew = match was {
                Some(was) => !is.keeps_counters_of(was) || !is.plans_starting_anew(was).is_empty(),
                None => is.tag.is_some() && renamed.contains(&(&is.domain, &is.levels)),
            };
            is_anew.then_some(is)
        });
        anew.collect()
    }
}

/// Whether a limit's counters go on as another's.
fn is_kept(before: (Owner, Option<Limit>), after: (Owner, Option<Limit>)) -> bool {
    match (before, after) {
        ((was, Some(before)), (is, Some(after))) => name_of(was, &before) == name_of(is, &after),
        // Nothing was counted, or nothing is.
        _ => true,
    }
}

/// What of a limit is part of its counters' names.
fn name_of(owner: Owner, limit: &Limit) -> String {
    counter_key("", owner, limit, "", []).to_string()
}
