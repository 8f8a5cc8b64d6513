//! Which rule applies to a descriptor's entries.

use std::net::IpAddr;
use std::sync::Arc;

use smallvec::SmallVec;

use crate::model::Entry;

use super::pattern::NodeId;
use super::tree::{Level, Node, Values};
use super::{Domain, Rule};

/// The rules that apply.
#[derive(Debug, Clone)]
pub struct Matched<'r> {
    /// At least one; several where a node has several limits.
    pub rules: &'r [Arc<Rule>],
    /// For each entry, in order: as what its value is counted.
    pub values: SmallVec<[CountedAs<'r>; 4]>,
}

/// As what a value is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CountedAs<'r> {
    /// For itself.
    Own,
    /// Under the name of the wildcard or set whose values share one counter (`share_threshold`).
    Shared(&'r str),
    /// As this address, however it is written.
    Address(IpAddr),
}

/// What of a level a value has matched, in the order in which it is tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum How {
    /// The value itself.
    Value,
    /// A list.
    List,
    /// A network.
    Network(IpAddr),
    /// A wildcard.
    Pattern,
    /// A regular expression.
    Regex,
    /// The key alone.
    Key,
}

impl Domain {
    /// The rules that stand on the node of the last entry.
    ///
    /// At each level: the exact key and value first, then a list that has the value, the network with the longest prefix, the
    /// most specific wildcard, the first regular expression that matches, the key alone. What is taken is taken: an exact
    /// node that leads nowhere is not left again for a sibling. The cost is the number of entries, whatever the number of
    /// rules (for wildcards see [`super::pattern`], for the others [`super::value_set`]); nothing is allocated up to four
    /// entries.
    #[must_use]
    pub fn find<'r>(&'r self, entries: &[Entry]) -> Option<Matched<'r>> {
        self.find_probed(entries, &mut || {})
    }

    /// [`Self::find`], calling `probe` once for each look into a hash map: the cost as a number that tests can hold on to.
    pub fn find_probed<'r>(&'r self, entries: &[Entry], probe: &mut impl FnMut()) -> Option<Matched<'r>> {
        let mut level = &self.root;
        let mut last = None;
        let mut values = SmallVec::new();
        for entry in entries {
            let (node, how) = level.step(entry, probe)?;
            values.push(match (&node.shared, how) {
                (Some(name), _) => CountedAs::Shared(name),
                (None, How::Network(address)) => CountedAs::Address(address),
                (None, _) => CountedAs::Own,
            });
            level = &node.children;
            last = Some(node);
        }
        let rules = &*last?.rules;
        (!rules.is_empty()).then_some(Matched { rules, values })
    }
}

impl Level {
    fn step(&self, entry: &Entry, probe: &mut impl FnMut()) -> Option<(&Node, How)> {
        probe();
        let values = self.keys.get(entry.key.as_str())?;
        let (id, how) = values.find(&entry.value, probe)?;
        Some((values.nodes.get(id as usize)?, how))
    }
}

impl Values {
    /// The node that a value leads to, and how.
    pub(super) fn find(&self, value: &str, probe: &mut impl FnMut()) -> Option<(NodeId, How)> {
        for (texts, how) in [(&self.exact, How::Value), (&self.listed, How::List)] {
            if !texts.is_empty() {
                probe();
                if let Some(id) = texts.get(value) {
                    return Some((*id, how));
                }
            }
        }
        if let Some((id, address)) = self.networks.find(value, probe) {
            return Some((id, How::Network(address)));
        }
        let pattern = self.patterns.find(value, probe).map(|id| (id, How::Pattern));
        let regex = |probe| Some((self.regexes.find(value, probe)?, How::Regex));
        pattern.or_else(|| regex(probe)).or_else(|| Some((self.any?, How::Key)))
    }
}

impl Domain {
    /// The rules that count under these keys and values, of which those with `true` are names of shared counters.
    #[must_use]
    pub fn find_named(&self, levels: &[(String, String, bool)]) -> &[Arc<Rule>] {
        let (mut level, mut rules) = (&self.root, &[][..]);
        for (key, value, is_shared) in levels {
            let Some(values) = level.keys.get(key.as_str()) else {
                return &[];
            };
            let named = values.sets.get(value.as_str()).filter(|_| *is_shared).copied();
            let id = named.or_else(|| values.find(value, &mut || {}).map(|(id, _)| id));
            let Some(node) = id.and_then(|id| values.nodes.get(id as usize)) else {
                return &[];
            };
            (level, rules) = (&node.children, &node.rules);
        }
        rules
    }
}
