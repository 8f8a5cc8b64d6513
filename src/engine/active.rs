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
    overrides: HashMap<Arc<str>, Overrides>,
}

/// Limits that requests bring themselves, by domain only.
#[derive(Debug, Default)]
struct Overrides {
    stats: OnceLock<Option<Arc<RuleStats>>>,
    /// As for a rule.
    peeked: AtomicBool,
}

impl Active {
    pub(super) fn new(rules: Arc<RuleSet>, generation: u64, registry: &RuleStatsRegistry) -> Self {
        let stats = registry.activate(&rules);
        let peeked = rules.rules.iter().map(|_| AtomicBool::new(false)).collect();
        let overrides = rules
            .domains
            .keys()
            .map(|domain| (Arc::clone(domain), Overrides::default()))
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
        self.peeked.get(rule).is_some_and(|peeked| note(peeked, now))
    }

    /// The same for the limits that requests bring themselves in this domain.
    pub(super) fn is_override_peeked(&self, domain: &str, now: bool) -> bool {
        self.overrides.get(domain).is_some_and(|of| note(&of.peeked, now))
    }

    pub(super) fn stats(&self, rule: usize) -> Option<&Arc<RuleStats>> {
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

fn note(peeked: &AtomicBool, now: bool) -> bool {
    let known = peeked.load(Relaxed);
    // Mostly known already: do not write to a shared line for nothing.
    if now && !known {
        peeked.store(true, Relaxed);
    }
    known || now
}
