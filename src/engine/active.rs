//! The rules in force with their statistics.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};

use crate::model::key::{Identity, Owner};
use crate::rules::{Rule, RuleSet};
use crate::telemetry::{RuleStats, RuleStatsRegistry};

/// What a request pins on entry.
#[derive(Debug)]
pub struct Active {
    /// The rules.
    pub rules: Arc<RuleSet>,
    /// Counts up with every configuration.
    pub generation: u64,
    stats: Vec<Arc<RuleStats>>,
    /// By rule.
    usage: Vec<Usage>,
    overrides: HashMap<Arc<str>, Overrides>,
}

/// Limits that requests bring themselves, by domain only.
#[derive(Debug)]
struct Overrides {
    stats: OnceLock<Option<Arc<RuleStats>>>,
    usage: Usage,
}

/// How requests use a limit.
#[derive(Debug, Default)]
pub(super) struct Usage {
    /// A descriptor has asked with 0 hits, or with none of its own.
    peeked: AtomicBool,
    /// Hits that came after such a question were denied, and so not counted.
    forgot: AtomicBool,
    /// What requests have cost on average, in 1/[`COST_PARTS`] hits; 0 = nothing is known.
    cost: AtomicU64,
}

/// Parts of a hit in which a mean cost is kept.
const COST_PARTS: u64 = 256;
/// What a new cost weighs in the mean: one part in so many.
const COST_WEIGHT: u64 = 16;
/// Costs above this count as this much.
const MAX_COST: u64 = 1 << 40;

impl Usage {
    /// What is known of a limit that goes on under new rules.
    fn after(before: Option<&Self>) -> Self {
        let cost = before.map_or(0, |before| before.cost.load(Relaxed));
        Self {
            peeked: AtomicBool::new(before.is_some_and(Self::is_peeked)),
            cost: AtomicU64::new(cost),
            ..Self::default()
        }
    }

    /// Whether descriptors ask on this limit before they pay.
    pub fn is_peeked(&self) -> bool {
        self.peeked.load(Relaxed)
    }

    pub fn record_peek(&self) {
        // Mostly known already: do not write to a shared line for nothing.
        if !self.is_peeked() {
            self.peeked.store(true, Relaxed);
        }
    }

    /// What a request is going to cost: the mean of those that are done, at least 1, or `first` before any is.
    pub fn mean_cost(&self, first: u64) -> u64 {
        match self.cost.load(Relaxed) {
            0 => first,
            cost => cost.div_ceil(COST_PARTS),
        }
    }

    /// Records what a request has cost. Two at the same moment may count as one: it is an estimate.
    pub fn record_cost(&self, hits: u64) {
        let new = hits.clamp(1, MAX_COST) * COST_PARTS;
        let mean = match self.cost.load(Relaxed) {
            0 => new,
            mean => mean - mean / COST_WEIGHT + new / COST_WEIGHT,
        };
        self.cost.store(mean.max(1), Relaxed);
    }

    /// Records a forgotten charge; whether it is the first.
    pub fn record_forgotten(&self) -> bool {
        !self.forgot.swap(true, Relaxed)
    }
}

impl Active {
    /// What is known of how rules are asked lives on, as their counters do.
    pub(super) fn new(
        rules: Arc<RuleSet>,
        generation: u64,
        registry: &RuleStatsRegistry,
        before: Option<&Self>,
    ) -> Self {
        let stats = registry.activate(&rules);
        let known: HashMap<_, _> = before.into_iter().flat_map(Self::known_rules).collect();
        let usage = rules
            .rules
            .iter()
            .map(|rule| Usage::after(known.get(&(&*rule.domain, &*rule.path)).copied()))
            .collect();
        let overrides = |domain: &Arc<str>| Overrides {
            stats: OnceLock::new(),
            usage: Usage::after(before.and_then(|before| before.override_usage(domain))),
        };
        let overrides = rules
            .domains
            .keys()
            .map(|domain| (Arc::clone(domain), overrides(domain)))
            .collect();
        Self {
            rules,
            generation,
            stats,
            usage,
            overrides,
        }
    }

    /// By domain and path.
    fn known_rules(&self) -> impl Iterator<Item = ((&str, &str), &Usage)> {
        let rules = self.rules.rules.iter().zip(&self.usage);
        rules.map(|(rule, usage)| ((&*rule.domain, &*rule.path), usage))
    }

    /// The rule at an index of this configuration.
    #[must_use]
    pub fn rule(&self, index: usize) -> Option<&Arc<Rule>> {
        self.rules.rules.get(index)
    }

    /// The rule that counts under this identity now; none of a limit that a request brought, nor of a name that is not
    /// known whole. A shared pattern is found by its own text.
    #[must_use]
    pub fn rule_of(&self, identity: &Identity) -> Option<&Rule> {
        if identity.owner == Owner::Override || identity.shortened {
            return None;
        }
        let domain = self.rules.domains.get(identity.domain.as_str())?;
        let rules = domain.find_named(&identity.levels);
        match identity.owner {
            Owner::Candidate => rules.first(),
            owner => rules.iter().find(|rule| rule.owner() == owner),
        }
        .map(|rule| &**rule)
    }

    /// How requests use the rule at an index.
    pub(super) fn usage(&self, rule: usize) -> Option<&Usage> {
        self.usage.get(rule)
    }

    /// How requests use the limits that they bring themselves in this domain.
    pub(super) fn override_usage(&self, domain: &str) -> Option<&Usage> {
        self.overrides.get(domain).map(|of| &of.usage)
    }

    /// What was counted of a rule.
    #[must_use]
    pub fn stats(&self, rule: usize) -> Option<&Arc<RuleStats>> {
        self.stats.get(rule)
    }

    /// Opens the series when a request first brings a limit of its own.
    pub(super) fn override_stats(&self, registry: &RuleStatsRegistry, domain: &str) -> Option<&Arc<RuleStats>> {
        let (domain, overrides) = self.overrides.get_key_value(domain)?;
        overrides
            .stats
            .get_or_init(|| registry.detailed(domain, None, vec!["override".into()]))
            .as_ref()
    }
}
