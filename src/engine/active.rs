//! The rules in force with their statistics.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};

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
    /// By rule: a request has asked with an explicit 0 hits how it stands.
    peeked: Vec<AtomicBool>,
    /// Limits that requests bring themselves, counted by domain only.
    overrides: HashMap<Arc<str>, OnceLock<Option<Arc<RuleStats>>>>,
}

impl Active {
    pub(super) fn new(rules: Arc<RuleSet>, generation: u64, registry: &RuleStatsRegistry) -> Self {
        let stats = registry.activate(&rules);
        let peeked = rules.rules.iter().map(|_| AtomicBool::new(false)).collect();
        let overrides = rules
            .domains
            .keys()
            .map(|domain| (Arc::clone(domain), OnceLock::new()))
            .collect();
        Self {
            rules,
            generation,
            stats,
            peeked,
            overrides,
        }
    }

    /// The rule at an index of this configuration.
    #[must_use]
    pub fn rule(&self, index: usize) -> Option<&Arc<Rule>> {
        self.rules.rules.get(index)
    }

    /// Whether a request has asked for no hits on this rule, and so looks before it pays; `now` is one that does.
    pub(super) fn is_peeked(&self, rule: usize, now: bool) -> bool {
        let Some(peeked) = self.peeked.get(rule) else {
            return false;
        };
        let known = peeked.load(Relaxed);
        // Mostly known already: do not write to a shared line for nothing.
        if now && !known {
            peeked.store(true, Relaxed);
        }
        known || now
    }

    pub(super) fn stats(&self, rule: usize) -> Option<&Arc<RuleStats>> {
        self.stats.get(rule)
    }

    /// Opens the series when a request first brings a limit of its own.
    pub(super) fn override_stats(&self, registry: &RuleStatsRegistry, domain: &str) -> Option<&Arc<RuleStats>> {
        let (domain, stats) = self.overrides.get_key_value(domain)?;
        stats
            .get_or_init(|| registry.detailed(domain, None, vec!["override".into()]))
            .as_ref()
    }
}
