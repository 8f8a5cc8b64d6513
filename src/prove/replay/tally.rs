//! What is counted of one set of rules' decisions.

use std::sync::Arc;

use crate::engine::{Counted, Decision, StatusLimit};
use crate::model::Descriptor;
use crate::model::time::SECOND_US;
use crate::rules::{Rule, RuleSet};

use super::demand::Demand;
use super::keys::Keys;
use super::series::Series;

/// Counts of one rule.
pub struct RuleTally {
    /// The rule.
    pub rule: Arc<Rule>,
    /// Requests that it applied to.
    pub requests: u64,
    /// Those that it denied.
    pub denied: u64,
    /// Those that were over it without being denied by it: shadow mode, or one of several quotas.
    pub shadow_denied: u64,
    /// Distinct counters.
    pub keys: u64,
    /// When it first denied, in microseconds since the Unix epoch.
    pub first_denied_us: Option<u64>,
    /// What its keys ask for.
    pub demand: Demand,
    /// By the step of time.
    pub series: Series,
}

/// Counts of all rules.
pub struct Tally {
    /// By index.
    pub rules: Vec<RuleTally>,
    /// All keys.
    pub keys: Keys,
    /// Requests that became descriptors.
    pub requests: u64,
    /// Those that were denied.
    pub denied: u64,
    /// Those that became no descriptor, or matched no rule.
    pub unlimited: u64,
    /// Of all requests.
    pub series: Series,
}

impl Tally {
    /// Nothing counted yet.
    #[must_use]
    pub fn new(rules: &RuleSet) -> Self {
        let tally = |rule: &Arc<Rule>| RuleTally {
            rule: Arc::clone(rule),
            requests: 0,
            denied: 0,
            shadow_denied: 0,
            keys: 0,
            first_denied_us: None,
            demand: Demand::default(),
            series: Series::default(),
        };
        Self {
            rules: rules.rules.iter().map(tally).collect(),
            keys: Keys::default(),
            requests: 0,
            denied: 0,
            unlimited: 0,
            series: Series::default(),
        }
    }

    /// Hashes of the counters that a request asks about; of each its descriptor, and the rule that counts it.
    pub fn hash(
        &self,
        descriptors: &[Descriptor],
        rules: impl Iterator<Item = (usize, Option<usize>)>,
        hashes: &mut Vec<u64>,
    ) {
        hashes.extend(rules.map(|(at, rule)| {
            let tally = rule.and_then(|index| self.rules.get(index));
            let hash = tally.zip(descriptors.get(at));
            hash.map_or(0, |(tally, descriptor)| self.keys.hash(&tally.rule, descriptor))
        }));
    }

    /// A request, and whether any rule counted it.
    pub fn add(&mut self, at_us: u64, denied: bool, is_limited: bool) {
        self.requests += 1;
        self.denied += u64::from(denied);
        self.unlimited += u64::from(!is_limited);
        self.series.add(at_us, denied);
    }

    /// One call about a request, with the hash of each status' counter; whether any rule counts it.
    pub fn add_call(&mut self, at_us: u64, descriptors: &[Descriptor], hashes: &[u64], decision: &Decision) -> bool {
        let mut is_limited = false;
        for (status, hash) in decision.statuses.iter().zip(hashes) {
            let Some(descriptor) = descriptors.get(status.descriptor) else {
                continue;
            };
            let StatusLimit::Counted(counted) = &status.limit else {
                continue;
            };
            is_limited = true;
            let denies = counted.denied && status.over_limit && decision.over_limit;
            self.add_counted(at_us, descriptor, *hash, counted, denies);
        }
        is_limited
    }

    fn add_counted(&mut self, at_us: u64, descriptor: &Descriptor, key: u64, counted: &Counted, denies: bool) {
        let Some(tally) = counted.rule.and_then(|index| self.rules.get_mut(index)) else {
            return;
        };
        tally.requests += 1;
        tally.series.add(at_us, denies);
        let number = match tally.rule.window.calendar() {
            Some(calendar) => calendar.window_at(at_us).end_s,
            None => at_us / tally.rule.window.micros().max(SECOND_US),
        };
        let hits = u32::try_from(descriptor.hits_addend.unwrap_or(1)).unwrap_or(u32::MAX);
        let is_new = self.keys.ask(key, hits, number, tally.rule.index, &mut tally.demand);
        tally.keys += u64::from(is_new);
        if denies {
            tally.denied += 1;
            tally.first_denied_us.get_or_insert(at_us);
            self.keys.deny(key, at_us, &tally.rule, descriptor);
        } else {
            tally.shadow_denied += u64::from(counted.denied);
            self.keys.admit(key);
        }
    }

    /// The log is over, and so is each key's window.
    pub fn finish(&mut self) {
        for (rule, hits) in self.keys.open_windows() {
            if let Some(tally) = self.rules.get_mut(rule) {
                tally.demand.add(hits);
            }
        }
    }
}
