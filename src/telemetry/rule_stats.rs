//! Counters of each rule, plain atomics on the request path, turned into both metric families (ours and the names
//! that envoyproxy/ratelimit's dashboards use) only when somebody scrapes.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use prometheus::core::{Collector, Desc};
use prometheus::proto::{Counter, Gauge, LabelPair, Metric, MetricFamily, MetricType};

use super::detailed::{Detailed, DetailedSeries};
use super::labels::{MAX_LABEL, bounded, stat_name};
use super::series::{CandidateStats, RuleStats, SeriesId};
use crate::rules::{Rule, RuleSet};

/// The statistics of all rules; counters live on through a reload as long as their rule does.
#[derive(Debug)]
pub struct RuleStatsRegistry {
    /// By domain and path.
    rules: Mutex<HashMap<SeriesId, Arc<RuleStats>>>,
    /// The same for names with request values in them.
    detailed: DetailedSeries,
    /// Hits of each limit in force, by domain, path and window.
    limits: Mutex<BTreeMap<[String; 3], u32>>,
    descriptions: Vec<Desc>,
}

impl RuleStatsRegistry {
    /// An empty registry.
    ///
    /// # Errors
    /// Never for the fixed names below; the library checks them all the same.
    pub fn new() -> prometheus::Result<Self> {
        let names = FAMILIES.iter().map(|family| (family.name, family.help));
        let describe = |(name, help): (&str, &str)| Desc::new(name.into(), help.into(), vec![], HashMap::new());
        Ok(Self {
            rules: Mutex::default(),
            detailed: DetailedSeries::default(),
            limits: Mutex::default(),
            descriptions: names.chain([LIMITS]).map(describe).collect::<Result<_, _>>()?,
        })
    }

    /// The statistics for a configuration, each at its rule's index. Rules that are gone are forgotten.
    pub fn activate(&self, rules: &RuleSet) -> Vec<Arc<RuleStats>> {
        let mut known = self.rules.lock();
        let mut next = HashMap::with_capacity(rules.rules.len());
        let stats = rules
            .rules
            .iter()
            .map(|rule| {
                let id = (Arc::clone(&rule.domain), Arc::clone(&rule.path));
                let stats = known
                    .remove(&id)
                    .or_else(|| next.get(&id).map(Arc::clone))
                    .unwrap_or_else(|| {
                        Arc::new(RuleStats::new(
                            Arc::clone(&rule.domain),
                            Arc::clone(&rule.path),
                            level_names(rule),
                        ))
                    });
                if rule.candidate.is_some() {
                    stats.candidate.get_or_init(Box::default);
                }
                next.insert(id, Arc::clone(&stats));
                stats
            })
            .collect();
        let domains: HashSet<&Arc<str>> = next.keys().map(|(domain, _)| domain).collect();
        self.detailed.retain(|id, series| {
            let rule_stays = match &series.rule {
                Some(rule) => next.contains_key(&(Arc::clone(&id.0), Arc::clone(rule))),
                None => domains.contains(&id.0),
            };
            rule_stays && !next.contains_key(id)
        });
        drop(domains);
        *known = next;
        *self.limits.lock() = rules.rules.iter().filter_map(|rule| limit_of(rule)).collect();
        stats
    }

    fn limits(&self) -> MetricFamily {
        let gauge = |([domain, rule, window], hits): (&[String; 3], &u32)| {
            let mut gauge = Gauge::default();
            gauge.set_value(f64::from(*hits));
            let labels = [("domain", domain), ("rule", rule), ("window", window)];
            let mut metric = Metric::from_label(labels.map(|(name, value)| label(name, value)).into());
            metric.set_gauge(gauge);
            metric
        };
        let mut family = MetricFamily::default();
        family.set_name(LIMITS.0.into());
        family.set_help(LIMITS.1.into());
        family.set_field_type(MetricType::GAUGE);
        family.set_metric(self.limits.lock().iter().map(gauge).collect());
        family
    }

    /// The statistics of a rule with request values in its name (those of the rule whose name that is, if there is
    /// one), or `None` when the bound is reached. `rule` is the rule's path; `None` for a request's own limit.
    pub fn detailed(&self, domain: &Arc<str>, rule: Option<&Arc<str>>, keys: Vec<String>) -> Option<Arc<RuleStats>> {
        let path: Arc<str> = keys.join(".").into();
        let id = (Arc::clone(domain), Arc::clone(&path));
        if let Some(stats) = self.detailed.get(&id) {
            return Some(stats);
        }
        let rules = self.rules.lock();
        if let Some(stats) = rules.get(&id) {
            return Some(Arc::clone(stats));
        }
        self.detailed.open(id, || Detailed {
            stats: Arc::new(RuleStats::new(Arc::clone(domain), path, keys)),
            rule: rule.map(Arc::clone),
        })
    }

    fn all(&self) -> Vec<Arc<RuleStats>> {
        let rules = self.rules.lock();
        let mut all: Vec<_> = rules.values().map(Arc::clone).collect();
        // A request under way through a reload may have opened a series that is a rule's by now.
        self.detailed.for_each(|id, series| {
            if !rules.contains_key(id) {
                all.push(Arc::clone(&series.stats));
            }
        });
        all.sort_by(|a, b| (&a.domain, &a.path).cmp(&(&b.domain, &b.path)));
        all
    }
}

/// Name and text of the limits in force.
const LIMITS: (&str, &str) = (
    "sluicegate_limit",
    "Hits that a rule admits in its window, as configured",
);

/// None of a rule that is unlimited.
fn limit_of(rule: &Rule) -> Option<([String; 3], u32)> {
    rule.limit?;
    let name = |text: &str| bounded(text, MAX_LABEL).into_owned();
    let labels = [name(&rule.domain), name(&rule.path), rule.window.to_string()];
    Some((labels, rule.requests_per_unit))
}

/// `key` or `key_value` for each level, as envoyproxy/ratelimit writes them; one of several limits has its tag behind.
fn level_names(rule: &Rule) -> Vec<String> {
    let name = |(key, value): &(String, String)| match value.as_str() {
        "" => key.clone(),
        value => format!("{key}_{value}"),
    };
    let mut names: Vec<String> = rule.levels.iter().map(name).collect();
    tag_last(&mut names, rule);
    names
}

/// Tells the series of one of several limits of a descriptor from the others', and that of a rule from those whose levels
/// read the same.
pub fn tag_last(names: &mut [String], rule: &Rule) {
    // The path is the levels, joined, and what tells it apart.
    let levels = rule.levels.iter().map(|(key, value)| match value.len() {
        0 => key.len() + 1,
        length => key.len() + length + 2,
    });
    let joined = levels.sum::<usize>().saturating_sub(1);
    if let (Some(apart), Some(last)) = (rule.path.get(joined..), names.last_mut()) {
        last.push_str(apart);
    }
}

struct Family {
    name: &'static str,
    help: &'static str,
    series: &'static [Series],
}

/// A counter of the rule and, for our own names, its `outcome`.
struct Series {
    outcome: Option<&'static str>,
    read: Read,
}

#[derive(Clone, Copy)]
enum Read {
    OfRule(fn(&RuleStats) -> &AtomicU64),
    /// There only for rules with a candidate.
    OfCandidate(fn(&CandidateStats) -> &AtomicU64),
}

impl Read {
    fn load(self, stats: &RuleStats) -> Option<u64> {
        let counter = match self {
            Self::OfRule(read) => read(stats),
            Self::OfCandidate(read) => read(stats.candidate()?),
        };
        Some(counter.load(Ordering::Relaxed))
    }
}

const fn plain(read: fn(&RuleStats) -> &AtomicU64) -> Series {
    Series {
        outcome: None,
        read: Read::OfRule(read),
    }
}

const fn outcome(name: &'static str, read: fn(&RuleStats) -> &AtomicU64) -> Series {
    Series {
        outcome: Some(name),
        read: Read::OfRule(read),
    }
}

const fn candidate(name: &'static str, read: fn(&CandidateStats) -> &AtomicU64) -> Series {
    Series {
        outcome: Some(name),
        read: Read::OfCandidate(read),
    }
}

/// Ours first, then the names of envoyproxy/ratelimit's Prometheus mapping.
const FAMILIES: [Family; 9] = [
    Family {
        name: "sluicegate_decisions_total",
        help: "Descriptors decided, by rule and outcome",
        series: &[
            outcome("allowed", |s| &s.allowed),
            outcome("denied", |s| &s.denied),
            outcome("shadow_denied", |s| &s.shadow_denied),
            outcome("error", |s| &s.errors),
        ],
    },
    Family {
        name: "sluicegate_near_limit_total",
        help: "Hits admitted close to the limit",
        series: &[plain(|s| &s.near_limit)],
    },
    Family {
        name: "sluicegate_candidate_decisions_total",
        help: "Descriptors that candidate limits decided, by rule and what they would change",
        series: &[
            candidate("both_allow", |s| &s.both_allow),
            candidate("would_deny", |s| &s.would_deny),
            candidate("would_allow", |s| &s.would_allow),
            candidate("both_deny", |s| &s.both_deny),
            candidate("error", |s| &s.errors),
        ],
    },
    Family {
        name: "ratelimit_service_rate_limit_total_hits",
        help: "Hits asked for",
        series: &[plain(|s| &s.total_hits)],
    },
    Family {
        name: "ratelimit_service_rate_limit_over_limit",
        help: "Hits over the limit",
        series: &[plain(|s| &s.over_limit)],
    },
    Family {
        name: "ratelimit_service_rate_limit_near_limit",
        help: "Hits admitted close to the limit",
        series: &[plain(|s| &s.near_limit)],
    },
    Family {
        name: "ratelimit_service_rate_limit_within_limit",
        help: "Hits admitted",
        series: &[plain(|s| &s.within_limit)],
    },
    Family {
        name: "ratelimit_service_rate_limit_over_limit_with_local_cache",
        help: "Hits denied without a call to the store",
        series: &[plain(|s| &s.over_limit_with_local_cache)],
    },
    Family {
        name: "ratelimit_service_rate_limit_shadow_mode",
        help: "Hits over the limit of a rule in shadow mode",
        series: &[plain(|s| &s.shadow_mode)],
    },
];

/// A collector that shares the registry with the engine.
#[derive(Clone)]
pub struct RuleStatsCollector(pub Arc<RuleStatsRegistry>);

impl Collector for RuleStatsCollector {
    fn desc(&self) -> Vec<&Desc> {
        self.0.descriptions.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let all = self.0.all();
        FAMILIES
            .iter()
            .map(|family| family.collect(&all))
            .chain([self.0.limits()])
            .filter(|f| !f.get_metric().is_empty())
            .collect()
    }
}

impl Family {
    fn collect(&self, all: &[Arc<RuleStats>]) -> MetricFamily {
        let ours = self.name.starts_with("sluicegate_");
        let counted = all.iter().flat_map(|stats| {
            self.series.iter().filter_map(move |series| {
                let count = series.read.load(stats)?;
                let mut labels = if ours { our_labels(stats) } else { their_labels(stats) };
                labels.extend(series.outcome.map(|outcome| label("outcome", outcome)));
                Some((labels, count))
            })
        });
        let mut family = MetricFamily::default();
        family.set_name(self.name.into());
        family.set_help(self.help.into());
        family.set_field_type(MetricType::COUNTER);
        family.set_metric(sum(counted).map(metric).collect());
        family
    }
}

/// Names that differ only in what [`stat_name`] replaces are one series, as there: the same labels twice would make a
/// page that no server takes.
fn sum(counted: impl Iterator<Item = (Vec<LabelPair>, u64)>) -> impl Iterator<Item = (Vec<LabelPair>, u64)> {
    let (mut at, mut sums) = (HashMap::new(), Vec::new());
    for (labels, count) in counted {
        let values: Vec<String> = labels.iter().map(|label| label.value().to_owned()).collect();
        let index = *at.entry(values).or_insert(sums.len());
        match sums.get_mut(index) {
            None => sums.push((labels, count)),
            Some((_, sum)) => *sum = count.saturating_add(*sum),
        }
    }
    sums.into_iter()
}

fn metric((labels, count): (Vec<LabelPair>, u64)) -> Metric {
    let mut counter = Counter::default();
    #[allow(clippy::cast_precision_loss, reason = "Prometheus samples are doubles")]
    counter.set_value(count as f64);
    let mut metric = Metric::from_label(labels);
    metric.set_counter(counter);
    metric
}

fn our_labels(stats: &RuleStats) -> Vec<LabelPair> {
    vec![label("domain", &stats.domain), label("rule", &stats.path)]
}

/// `domain`, `key1`, `key2`, …
fn their_labels(stats: &RuleStats) -> Vec<LabelPair> {
    let keys = stats
        .keys
        .iter()
        .enumerate()
        .map(|(level, key)| label(&format!("key{}", level + 1), &stat_name(key)));
    std::iter::once(label("domain", &stat_name(&stats.domain)))
        .chain(keys)
        .collect()
}

/// The encoder escapes quotes, backslashes and newlines; the length is ours to bound.
fn label(name: &str, value: &str) -> LabelPair {
    let mut pair = LabelPair::default();
    pair.set_name(name.into());
    pair.set_value(bounded(value, MAX_LABEL).into_owned());
    pair
}
