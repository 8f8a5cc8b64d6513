//! The rules in force with their statistics.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};

use crate::model::key::{Identity, Owner};
use crate::rules::{Rule, RuleId, RuleSet};
use crate::telemetry::{RuleStats, RuleStatsRegistry};

/// The rules in force; a request keeps the ones that were in force when it began.
#[derive(Debug)]
pub struct Active {
    /// The rules.
    pub rules: Arc<RuleSet>,
    /// Number of the configuration; grows with each one.
    pub generation: u64,
    stats: Vec<Arc<RuleStats>>,
    /// By rule.
    usage: Vec<Usage>,
    overrides: HashMap<Arc<str>, Overrides>,
}

/// Statistics of limits that requests bring themselves, for one domain.
#[derive(Debug)]
struct Overrides {
    stats: OnceLock<Option<Arc<RuleStats>>>,
    usage: Usage,
}

/// How requests use a limit.
#[derive(Debug, Default)]
pub(super) struct Usage {
    /// A descriptor has checked the limit with 0 hits, or without hits of its own.
    peeked: AtomicBool,
    /// Hits that came after such a check were denied, and so not counted.
    forgot: AtomicBool,
    /// The mean cost of requests, in 1/[`COST_PARTS`] hits; 0 = no request has ended.
    cost: AtomicU64,
}

/// Fixed-point parts of a hit in a mean cost.
const COST_PARTS: u64 = 256;
/// A new cost changes the mean by one part in this many.
const COST_WEIGHT: u64 = 16;
/// Highest cost that is counted.
const MAX_COST: u64 = 1 << 40;

impl Usage {
    /// The usage of a limit that stays under new rules.
    fn after(before: Option<&Self>) -> Self {
        let cost = before.map_or(0, |before| before.cost.load(Relaxed));
        Self {
            peeked: AtomicBool::new(before.is_some_and(Self::is_peeked)),
            cost: AtomicU64::new(cost),
            ..Self::default()
        }
    }

    /// Whether descriptors peek at this limit before they bring their cost.
    pub fn is_peeked(&self) -> bool {
        self.peeked.load(Relaxed)
    }

    /// Records that a descriptor has peeked at this limit.
    pub fn record_peek(&self) {
        // Mostly set already: a needless write would contend for the cache line.
        if !self.is_peeked() {
            self.peeked.store(true, Relaxed);
        }
    }

    /// The expected cost of a request: the mean of those that have ended, at least 1; `first` while none has.
    pub fn mean_cost(&self, first: u64) -> u64 {
        match self.cost.load(Relaxed) {
            0 => first,
            cost => cost.div_ceil(COST_PARTS),
        }
    }

    /// Records the cost of a request. Of two at the same moment one may be lost: the mean is an estimate.
    pub fn record_cost(&self, hits: u64) {
        let new = hits.clamp(1, MAX_COST) * COST_PARTS;
        let mean = match self.cost.load(Relaxed) {
            0 => new,
            mean => mean - mean / COST_WEIGHT + new / COST_WEIGHT,
        };
        self.cost.store(mean.max(1), Relaxed);
    }

    /// Records hits that were denied and not counted; returns whether they are the first.
    pub fn record_forgotten(&self) -> bool {
        !self.forgot.swap(true, Relaxed)
    }
}

impl Active {
    /// Rules that stay in force keep their usage, as they keep their counters.
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
            .map(|rule| Usage::after(known.get(&rule.id()).copied()))
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

    /// The usage of each rule.
    fn known_rules(&self) -> impl Iterator<Item = (RuleId<'_>, &Usage)> {
        let rules = self.rules.rules.iter().zip(&self.usage);
        rules.map(|(rule, usage)| (rule.id(), usage))
    }

    /// The rule at an index of this configuration.
    #[must_use]
    pub fn rule(&self, index: usize) -> Option<&Arc<Rule>> {
        self.rules.rules.get(index)
    }

    /// The path of the rule at an index.
    pub(super) fn path(&self, rule: Option<usize>) -> Option<&str> {
        Some(&self.rule(rule?)?.path)
    }

    /// The rule whose counters have this identity now; `None` for the limit of a request. A shared pattern is found by its own
    /// text. A name that was shortened does not say its rule, which is then the one of the path that was noted with it.
    #[must_use]
    pub fn rule_of(&self, identity: &Identity, noted: Option<&str>) -> Option<&Rule> {
        if identity.owner == Owner::Override {
            return None;
        }
        if identity.shortened {
            let is_it = |rule: &&Arc<Rule>| noted == Some(&*rule.path) && *rule.domain == *identity.domain;
            return self.rules.rules.iter().find(is_it).map(|rule| &**rule);
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

    /// The statistics of a rule.
    #[must_use]
    pub fn stats(&self, rule: usize) -> Option<&Arc<RuleStats>> {
        self.stats.get(rule)
    }

    /// The statistics of a domain's overrides. The first request with a limit of its own creates the series.
    pub(super) fn override_stats(&self, registry: &RuleStatsRegistry, domain: &str) -> Option<&Arc<RuleStats>> {
        let (domain, overrides) = self.overrides.get_key_value(domain)?;
        overrides
            .stats
            .get_or_init(|| registry.detailed(domain, None, vec!["override".into()]))
            .as_ref()
    }
}
