//! Compiled rules and the question "which rule applies": pure data and pure functions.

mod amount;
mod change;
pub mod cidr;
mod defaults;
pub mod matcher;
pub mod pattern;
mod plan_rows;
pub mod plans;
pub mod trace;
pub mod tree;
pub mod value_set;

use std::sync::Arc;

use crate::model::key::{Owner, Tag};
use crate::model::{Entry, Limit, Window};

pub use change::{RuleChange, RuleId};
pub use defaults::Defaults;
pub use matcher::{CountedAs, Matched};
pub use tree::{Domain, Level, Node, QuotaMapping, RuleSet};
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
    /// Clients are told of it in headers.
    pub headers: bool,
    /// Clients are told of it in the body of a denial.
    pub body: bool,
    /// What is over passes, and the upstream is told.
    pub marks: bool,
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
    /// Where the limits of single values come from; the limit above is that of all others.
    pub plan_from: Option<plans::PlanFrom>,
    /// A limit that is tried beside this one.
    pub candidate: Option<Box<Candidate>>,
    /// Questions with 0 hits hold what requests have cost on average: this much until that is known.
    pub hold_first: Option<u64>,
    /// Envoys may enforce it themselves, by quotas that are leased to them (RLQS): the limit's holds are such leases.
    pub rlqs: bool,
    /// Where it is written: `file:line`, or the name of a resource without lines.
    pub source: Arc<str>,
}

impl Rule {
    /// Whose counters its limit's are.
    #[must_use]
    pub fn owner(&self) -> Owner {
        self.tag.map_or(Owner::Rule, Owner::Several)
    }

    /// Every limit by which it may count: its own, and those of plans and entries of its source.
    #[must_use]
    pub fn limits(&self) -> Vec<Limit> {
        let planned = self.plan_from.iter().flat_map(|from| from.source.limits());
        self.limit.into_iter().chain(planned).collect()
    }

    /// What it counts for the value that a descriptor ends with, and whether that is the default of a source that has no
    /// plan for the value.
    pub fn amount_for(
        &self,
        entries: &[Entry],
        matched: &Matched<'_>,
        now_us: impl FnOnce() -> u64,
    ) -> (plans::Amount, bool) {
        let Some(from) = &self.plan_from else {
            return (self.amount(), false);
        };
        let value = matched.value_of_last(entries);
        let given = value.and_then(|value| from.given(&value, now_us()));
        given.map_or_else(|| (self.amount(), true), |plan| (plan.amount, false))
    }

    /// What it counts where no plan says otherwise.
    #[must_use]
    pub const fn amount(&self) -> plans::Amount {
        plans::Amount {
            limit: self.limit,
            requests_per_unit: self.requests_per_unit,
            window: self.window,
            count_denied: self.count_denied,
            hold_first: self.hold_first,
        }
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
