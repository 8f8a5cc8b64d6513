//! What a change of rules means for their counters.

use std::collections::BTreeMap;

use super::{Rule, RuleSet};
use crate::model::Limit;
use crate::model::key::{Owner, counter_key};

impl Rule {
    /// Whether counters of `old`, a rule of the same path, go on as this one's: what was used stays used. They do unless
    /// the algorithm changes, or the window of a `sliding_log`, or holds, or which values share a counter.
    #[must_use]
    pub fn keeps_counters_of(&self, old: &Self) -> bool {
        match (old.limit, self.limit) {
            (Some(before), Some(after)) => name_of(&before) == name_of(&after) && old.shared == self.shared,
            // Nothing was counted, or nothing is.
            (None, _) | (_, None) => true,
        }
    }
}

impl RuleSet {
    /// The rules by domain and path.
    #[must_use]
    pub fn by_path(&self) -> BTreeMap<(&str, &str), &Rule> {
        let rules = self.rules.iter();
        rules.map(|rule| ((&*rule.domain, &*rule.path), &**rule)).collect()
    }

    /// The rules that were there before, and whose counters start anew.
    #[must_use]
    pub fn starting_anew<'r>(&'r self, before: &Self) -> Vec<&'r Rule> {
        let before = before.by_path();
        let anew = self.by_path().into_iter().filter(|(path, rule)| {
            let old = before.get(path);
            old.is_some_and(|old| !rule.keeps_counters_of(old))
        });
        anew.map(|(_, rule)| rule).collect()
    }
}

/// What of a limit is part of its counters' names.
fn name_of(limit: &Limit) -> String {
    counter_key("", Owner::Rule, limit, "", []).to_string()
}
