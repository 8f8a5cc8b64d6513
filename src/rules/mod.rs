//! Compiled rules and the question "which rule applies": pure data and pure functions.

mod change;
pub mod cidr;
pub mod matcher;
pub mod pattern;
pub mod trace;
pub mod tree;
pub mod value_set;

use std::sync::Arc;

use crate::model::key::{Owner, Tag};
use crate::model::{AlgorithmKind, Limit, Window};

pub use matcher::{CountedAs, Matched};
pub use tree::{Domain, Level, Node, RuleSet};
pub use value_set::ValueSet;

/// What happens when the store cannot answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum OnStoreError {
    /// This process counts by itself until the store is back.
    #[default]
    Local,
    /// Everything passes.
    Allow,
    /// Everything is denied.
    Deny,
}

impl OnStoreError {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Local, Self::Allow, Self::Deny];

    /// The word in rules files and flags.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::Allow => "allow",
            Self::Deny => "deny",
        }
    }

    /// Reads the word.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|mode| mode.name() == word)
    }
}

/// Most limits of one descriptor.
pub const MAX_LIMITS: usize = 8;

/// A rule: a `rate_limit` of a node of the tree.
#[derive(Debug, Clone, PartialEq)]
pub struct Rule {
    /// Position in [`RuleSet::rules`]; dense, so that per-rule counters can live in a plain list.
    pub index: usize,
    /// The domain it belongs to.
    pub domain: Arc<str>,
    /// Path in the tree below the domain, `key` or `key_value` joined by dots, as envoyproxy/ratelimit names its
    /// statistics, then `#` and the tag; made of rule text only, never of request values.
    pub path: Arc<str>,
    /// Which of several limits of its descriptor it is; `None` = the only one, or the one with the longest window, so that
    /// a quota keeps its counters when a shorter limit comes to stand beside it.
    pub tag: Option<Tag>,
    /// The same path level by level: (key, value or empty), for labels.
    pub levels: Arc<[(String, String)]>,
    /// `rate_limit.name`, or empty.
    pub name: Arc<str>,
    /// What to count; `None` = unlimited.
    pub limit: Option<Limit>,
    /// As configured, for answers.
    pub requests_per_unit: u32,
    /// As configured, for answers.
    pub window: Window,
    /// Counted and reported, never denies.
    pub shadow_mode: bool,
    /// The request is over only if all its quota rules are.
    pub quota_mode: bool,
    /// Request values enter the metric's key (bounded).
    pub detailed_metric: bool,
    /// For each level: whether its request value enters the metric's key (bounded).
    pub value_to_metric: Arc<[bool]>,
    /// For each level: whether all values that match its wildcard share one counter, and so one series.
    pub shared: Arc<[bool]>,
    /// Names of rules that this one replaces within a request.
    pub replaces: Arc<[String]>,
    /// Returned in dynamic metadata.
    pub metadata: Option<Arc<serde_json::Map<String, serde_json::Value>>>,
    /// Overrides the global setting.
    pub on_store_error: Option<OnStoreError>,
    /// Whether hits may be leased ahead; `None` = the global setting.
    pub lease: Option<bool>,
    /// Hits count even if they are denied.
    pub count_denied: bool,
    /// A limit that is tried beside this one.
    pub candidate: Option<Box<Candidate>>,
    /// Questions with 0 hits hold what requests have cost on average: this much until that is known.
    pub hold_first: Option<u64>,
    /// Where it is written: `file:line`, or the name of a resource without lines.
    pub source: Arc<str>,
}

impl Rule {
    /// Whose counters its limit's are.
    #[must_use]
    pub fn owner(&self) -> Owner {
        self.tag.map_or(Owner::Rule, Owner::Several)
    }
}

/// A limit that is decided beside the one in force, on counters of its own, and never denies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Candidate {
    /// What to count.
    pub limit: Limit,
    /// As configured.
    pub requests_per_unit: u32,
    /// As configured.
    pub window: Window,
    /// Hits count even if they are denied.
    pub count_denied: bool,
}

/// What the compile step fills in where a file is silent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Defaults {
    /// `--default-algorithm`.
    pub algorithm: AlgorithmKind,
    /// Denied hits count where a rule does not say, as in envoyproxy/ratelimit.
    pub count_denied: bool,
    /// `MERGE_DOMAIN_CONFIG`: the same domain may stand in several files.
    pub merge_domains: bool,
}

impl Default for Defaults {
    fn default() -> Self {
        Self {
            algorithm: AlgorithmKind::SlidingWindow,
            count_denied: false,
            merge_domains: false,
        }
    }
}
