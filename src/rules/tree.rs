//! The compiled tree.

use std::collections::HashMap;
use std::sync::Arc;

use hashbrown::hash_map::Entry;

use crate::mapping::Mappings;
use crate::model;

use super::Rule;
use super::cidr::CidrTables;
use super::pattern::{NodeId, Patterns, is_pattern};
use super::plans::PlanSource;
use super::value_set::{Regexes, ValueSet};

/// All rules of one configuration. Immutable; a request pins one on entry.
#[derive(Debug, Default)]
pub struct RuleSet {
    /// By name.
    pub domains: HashMap<Arc<str>, Domain>,
    /// Every rule, at its [`Rule::index`].
    pub rules: Vec<Arc<Rule>>,
    /// Where plans come from, of all files.
    pub sources: Vec<Arc<PlanSource>>,
    /// How requests that come with their attributes become descriptors.
    pub ext_authz: Mappings,
}

/// The rules of one domain.
#[derive(Debug)]
pub struct Domain {
    /// The domain's name.
    pub name: Arc<str>,
    /// The first level.
    pub(crate) root: Level,
    /// How the buckets of RLQS become descriptors; `None` where Envoys may not enforce these rules themselves.
    pub quota: Option<QuotaMapping>,
}

/// How a bucket of RLQS becomes a descriptor.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct QuotaMapping {
    /// The keys that make the descriptor, in its order; empty = all of them, sorted.
    pub bucket: Box<[Box<str>]>,
    /// Leases of token buckets refill by the second.
    pub refill: bool,
}

impl QuotaMapping {
    /// The entries of a bucket's descriptor, from all that it has, sorted. A key that the bucket does not have is left out.
    #[must_use]
    pub fn entries(&self, mut bucket: Vec<model::Entry>) -> Vec<model::Entry> {
        if self.bucket.is_empty() {
            return bucket;
        }
        let mut take = |key: &str| {
            let place = bucket.iter().position(|entry| entry.key == key)?;
            Some(bucket.swap_remove(place))
        };
        self.bucket.iter().filter_map(|key| take(key)).collect()
    }
}

/// The nodes below one node, by key.
#[derive(Debug, Default)]
pub struct Level {
    pub(crate) keys: hashbrown::HashMap<Box<str>, Values>,
}

/// The nodes of one key at one level.
#[derive(Debug, Default)]
pub(crate) struct Values {
    pub(crate) nodes: Vec<Node>,
    /// By value as it is written; patterns too, because a request may carry the very text of one.
    pub(crate) exact: hashbrown::HashMap<Box<str>, NodeId>,
    /// `value_in`
    pub(super) listed: hashbrown::HashMap<Box<str>, NodeId>,
    /// `value_cidr`
    pub(super) networks: CidrTables,
    pub(super) patterns: Patterns,
    /// `value_regex`
    pub(super) regexes: Regexes,
    /// Lists, networks and expressions by the name of their set.
    pub(crate) sets: hashbrown::HashMap<Box<str>, NodeId>,
    /// The key alone.
    pub(super) any: Option<NodeId>,
}

/// A place in the tree.
#[derive(Debug, Default)]
pub struct Node {
    /// What applies to requests that end here: at most [`MAX_LIMITS`](super::MAX_LIMITS).
    pub rules: Box<[Arc<Rule>]>,
    /// What stands below.
    pub children: Level,
    /// `share_threshold`: the pattern or set in whose name all matching values share one counter.
    pub shared: Option<Box<str>>,
}

impl Domain {
    /// A domain with what stands on its first level; nothing can be added any more.
    #[must_use]
    pub fn new(name: Arc<str>, mut root: Level) -> Self {
        root.compile();
        Self {
            name,
            root,
            quota: None,
        }
    }

    /// The same whose rules Envoys may enforce themselves.
    #[must_use]
    pub fn with_quota(self, quota: Option<QuotaMapping>) -> Self {
        Self { quota, ..self }
    }
}

impl Domain {
    /// Whether some rule counts descriptors with these keys in this order, whatever their values; a key with `true` may
    /// be left out. For checking a configuration: costs what lies below the keys.
    #[must_use]
    pub fn has_rule_for<'k>(&self, keys: impl IntoIterator<Item = (&'k str, bool)>) -> bool {
        let mut levels = vec![&self.root];
        let mut last: Vec<&Node> = Vec::new();
        for (key, optional) in keys {
            let found = levels.iter().filter_map(|level| level.keys.get(key));
            let mut nodes: Vec<&Node> = found.flat_map(|values| &values.nodes).collect();
            if optional {
                nodes.append(&mut last);
            } else {
                levels.clear();
            }
            levels.extend(nodes.iter().map(|node| &node.children));
            last = nodes;
        }
        last.iter().any(|node| !node.rules.is_empty())
    }
}

impl Level {
    /// Adds a node under a key and a value (`None` or empty = the key alone).
    ///
    /// # Errors
    /// Gives the node back if one stands there already.
    pub fn insert(&mut self, key: &str, value: Option<&str>, node: Node) -> Result<(), Box<Node>> {
        let values = self.keys.entry_ref(key).or_default();
        let Ok(id) = NodeId::try_from(values.nodes.len()) else {
            return Err(Box::new(node));
        };
        match value.filter(|value| !value.is_empty()) {
            None if values.any.is_some() => return Err(Box::new(node)),
            None => values.any = Some(id),
            Some(value) => match values.exact.entry(value.into()) {
                Entry::Occupied(_) => return Err(Box::new(node)),
                Entry::Vacant(slot) => {
                    slot.insert(id);
                    if is_pattern(value) {
                        values.patterns.insert(value, id);
                    }
                }
            },
        }
        values.nodes.push(node);
        Ok(())
    }

    /// Adds a node under a key and a set of values; of values that stand in two sets, the first set's node has them.
    ///
    /// # Errors
    /// Gives the node back if there are too many.
    pub fn insert_set(&mut self, key: &str, set: &ValueSet, node: Node) -> Result<(), Box<Node>> {
        let values = self.keys.entry_ref(key).or_default();
        let Ok(id) = NodeId::try_from(values.nodes.len()) else {
            return Err(Box::new(node));
        };
        match set {
            ValueSet::In(list) => {
                for value in list {
                    values.listed.entry_ref(value.as_str()).or_insert(id);
                }
            }
            ValueSet::Cidr(networks) => {
                let networks = networks.iter();
                networks.for_each(|network| values.networks.insert(*network, id));
            }
            ValueSet::Regex(regex) => values.regexes.insert(regex, id),
        }
        values.sets.entry(set.to_string().into()).or_insert(id);
        values.nodes.push(node);
        Ok(())
    }

    /// As deep as rules are nested, which is bounded.
    fn compile(&mut self) {
        for values in self.keys.values_mut() {
            values.regexes.compile();
            values.nodes.iter_mut().for_each(|node| node.children.compile());
        }
    }
}
