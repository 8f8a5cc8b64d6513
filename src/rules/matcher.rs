//! Which rule applies to a descriptor's entries.

use std::sync::Arc;

use smallvec::SmallVec;

use crate::model::Entry;

use super::tree::{Level, Node};
use super::{Domain, Rule};

/// The rules that apply.
#[derive(Debug, Clone)]
pub struct Matched<'r> {
    /// At least one; several where a node has several limits.
    pub rules: &'r [Arc<Rule>],
    /// For each entry, in order: the wildcard whose matches share one counter (`share_threshold`), if that is how it matched.
    pub shared: SmallVec<[Option<&'r str>; 4]>,
}

impl Domain {
    /// The rules that stand on the node of the last entry.
    ///
    /// At each level: the exact key and value first, then the most specific wildcard, then the key alone. What is taken
    /// is taken: an exact node that leads nowhere is not left again for a sibling. The cost is the number of entries,
    /// whatever the number of rules (and for wildcards see [`super::pattern`]); nothing is allocated up to four entries.
    #[must_use]
    pub fn find<'r>(&'r self, entries: &[Entry]) -> Option<Matched<'r>> {
        self.find_probed(entries, &mut || {})
    }

    /// [`Self::find`], calling `probe` once for each look into a hash map: the cost as a number that tests can hold on to.
    pub fn find_probed<'r>(&'r self, entries: &[Entry], probe: &mut impl FnMut()) -> Option<Matched<'r>> {
        let mut level = &self.root;
        let mut last = None;
        let mut shared = SmallVec::new();
        for entry in entries {
            let node = level.step(entry, probe)?;
            shared.push(node.shared.as_deref());
            level = &node.children;
            last = Some(node);
        }
        let rules = &*last?.rules;
        (!rules.is_empty()).then_some(Matched { rules, shared })
    }
}

impl Level {
    fn step(&self, entry: &Entry, probe: &mut impl FnMut()) -> Option<&Node> {
        probe();
        let values = self.keys.get(entry.key.as_str())?;
        if !values.exact.is_empty() {
            probe();
        }
        let id = values
            .exact
            .get(entry.value.as_str())
            .copied()
            .or_else(|| values.patterns.find(&entry.value, probe))
            .or(values.any)?;
        values.nodes.get(id as usize)
    }
}
