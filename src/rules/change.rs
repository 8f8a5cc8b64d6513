//! What a change of rules means for their counters.

use std::collections::{BTreeMap, HashSet};

use super::{Rule, RuleSet};
use crate::model::Limit;
use crate::model::key::{Owner, counter_key};

impl Rule {
    /// Whether counters of `old`, a rule of the same path, go on as this one's: what was used stays used. They do unless
    /// the algorithm changes, or the window of a `sliding_log`, or holds, or which values share a counter.
    #[must_use]
    pub fn keeps_counters_of(&self, old: &Self) -> bool {
        match (old.limit, self.limit) {
            (Some(before), Some(after)) => {
                let same_name = name_of(old.owner(), &before) == name_of(self.owner(), &after);
                same_name && old.shared == self.shared
            }
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

    /// The rules that were there before, and whose counters start anew. One of several limits of a descriptor was there
    /// if any limit was: it is named after its window.
    #[must_use]
    pub fn starting_anew<'r>(&'r self, before: &Self) -> Vec<&'r Rule> {
        let known = before.by_path();
        let nodes: HashSet<_> = before.rules.iter().map(|rule| (&rule.domain, &rule.levels)).collect();
        let anew = self.by_path().into_iter().filter(|(path, rule)| match known.get(path) {
            Some(old) => !rule.keeps_counters_of(old),
            None => rule.tag.is_some() && nodes.contains(&(&rule.domain, &rule.levels)),
        });
        anew.map(|(_, rule)| rule).collect()
    }
}

/// What of a limit is part of its counters' names.
fn name_of(owner: Owner, limit: &Limit) -> String {
    counter_key("", owner, limit, "", []).to_string()
}
