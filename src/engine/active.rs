//! The rules in force with their statistics.

use std::collections::{HashMap, HashSet};
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
    /// By rule: a descriptor has asked with 0 hits, or with none of its own.
    asked: Vec<AtomicBool>,
    overrides: HashMap<Arc<str>, Overrides>,
}

/// Limits that requests bring themselves, by domain only.
#[derive(Debug)]
struct Overrides {
    stats: OnceLock<Option<Arc<RuleStats>>>,
    /// As for a rule.
    asked: AtomicBool,
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
        let known: HashSet<_> = before.into_iter().flat_map(Self::asked_rules).collect();
        let asked = rules
            .rules
            .iter()
            .map(|rule| AtomicBool::new(known.contains(&(&*rule.domain, &*rule.path))))
            .collect();
        let overrides = |domain: &Arc<str>| Overrides {
            stats: OnceLock::new(),
            asked: AtomicBool::new(before.is_some_and(|before| before.is_override_asked(domain, false))),
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
            asked,
            overrides,
        }
    }

    /// By domain and path.
    fn asked_rules(&self) -> impl Iterator<Item = (&str, &str)> {
        let rules = self.rules.rules.iter().zip(&self.asked);
        rules.filter_map(|(rule, asked)| asked.load(Relaxed).then_some((&*rule.domain, &*rule.path)))
    }

    /// The rule at an index of this configuration.
    #[must_use]
    pub fn rule(&self, index: usize) -> Option<&Arc<Rule>> {
        self.rules.rules.get(index)
    }

    /// Whether descriptors ask on this rule before they pay: with 0 hits, or with none of their own. `now` is one that
    /// does.
    pub(super) fn is_asked(&self, rule: usize, now: bool) -> bool {
        self.asked.get(rule).is_some_and(|asked| note(asked, now))
    }

    /// The same for the limits that requests bring themselves in this domain.
    pub(super) fn is_override_asked(&self, domain: &str, now: bool) -> bool {
        self.overrides.get(domain).is_some_and(|of| note(&of.asked, now))
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

fn note(asked: &AtomicBool, now: bool) -> bool {
    let known = asked.load(Relaxed);
    // Mostly known already: do not write to a shared line for nothing.
    if now && !known {
        asked.store(true, Relaxed);
    }
    known || now
}
