//! What came of a replay, for people and (by serde) for programs.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::time::{Duration, UNIX_EPOCH};

use serde::{Serialize, Serializer};

use crate::config::problem::Clipped;
use crate::prove::explain::RuleName;
use crate::rules::Rule;

use super::demand::Quantiles;
use super::keys::DeniedKey;
use super::options::Options;
use super::series::Series;
use super::tally::{RuleTally, Tally};
use super::unreadable::Unreadable;

/// Keys whose change is followed.
const MAX_CHANGED: usize = 20_000;

/// What one side made of a request: whether it was denied, and by which counters.
pub struct Answer {
    /// Whether it was denied.
    pub denied: bool,
    /// Names of the counters that denied it.
    pub by: Vec<Box<str>>,
}

/// How two sets of rules differ, request by request.
#[derive(Debug, Default)]
pub struct Change {
    newly_denied: u64,
    newly_allowed: u64,
    keys: HashMap<Box<str>, (u64, u64)>,
}

impl Change {
    /// Compares the two answers to a request.
    pub fn add(&mut self, new: &Answer, old: &Answer) {
        let by = match (new.denied, old.denied) {
            (true, false) => {
                self.newly_denied += 1;
                &new.by
            }
            (false, true) => {
                self.newly_allowed += 1;
                &old.by
            }
            _ => return,
        };
        for name in by {
            if self.keys.len() >= MAX_CHANGED && !self.keys.contains_key(name) {
                continue;
            }
            let counts = self.keys.entry(name.clone()).or_default();
            counts.0 += u64::from(new.denied);
            counts.1 += u64::from(old.denied);
        }
    }
}

/// A moment, as RFC 3339.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment(pub u64);

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match UNIX_EPOCH.checked_add(Duration::from_micros(self.0)) {
            Some(time) => write!(f, "{}", humantime::format_rfc3339_millis(time)),
            None => write!(f, "{} µs", self.0),
        }
    }
}

impl Serialize for Moment {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// What came of a replay.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Lines read.
    pub lines: u64,
    /// Lines that could not be used.
    pub unreadable: Unreadable,
    /// The first request.
    pub from: Moment,
    /// The last one.
    pub to: Moment,
    /// Requests that were decided.
    pub requests: u64,
    /// Those that would have been denied.
    pub denied: u64,
    /// Those that no rule limits.
    pub unlimited: u64,
    /// By rule, in the order of the files.
    pub rules: Vec<RuleReport>,
    /// Compared with the other rules, if there are any.
    pub against: Option<Against>,
    /// Share of denied requests that the advised limits are for, 0 to 1.
    pub deny_share: f64,
    /// What to know about the numbers.
    pub notes: Vec<String>,
    /// All requests over time.
    pub series: Series,
}

/// One rule.
#[derive(Debug, Serialize)]
pub struct RuleReport {
    /// Domain, path and name.
    pub rule: String,
    /// As configured; `None` = unlimited.
    pub limit: Option<String>,
    /// Requests that it applied to.
    pub requests: u64,
    /// Those that it would have denied.
    pub denied: u64,
    /// Those that were over it without being denied by it: in shadow mode, marked, or as one of several quotas.
    pub shadow_denied: u64,
    /// Distinct counters.
    pub keys: u64,
    /// When it would first have denied.
    pub first_denied: Option<Moment>,
    /// The longest time in which every request of one key was denied, in microseconds.
    pub longest_denial_us: u64,
    /// Keys that were denied most.
    pub worst: Vec<WorstKey>,
    /// What keys ask for in a window.
    pub demand: Quantiles,
    /// Over time.
    pub series: Series,
}

/// A key that was denied.
#[derive(Debug, Serialize)]
pub struct WorstKey {
    /// Its entries.
    pub key: String,
    /// Requests denied.
    pub denied: u64,
    /// The first of them.
    pub first: Moment,
    /// The last of them.
    pub last: Moment,
    /// The longest time in which all its requests were denied, in microseconds.
    pub longest_us: u64,
}

/// The same requests by other rules.
#[derive(Debug, Serialize)]
pub struct Against {
    /// Requests that those would have denied.
    pub denied: u64,
    /// Denied now and not by them.
    pub newly_denied: u64,
    /// Allowed now and not by them.
    pub newly_allowed: u64,
    /// By domain and path: denied by them, and now; where these differ.
    pub rules: Vec<ChangedRule>,
    /// Keys that differ most.
    pub keys: Vec<ChangedKey>,
}

/// A rule whose denials differ.
#[derive(Debug, Serialize)]
pub struct ChangedRule {
    /// Domain and path.
    pub rule: String,
    /// Denied by the other rules; `None` = they have no such rule.
    pub before: Option<u64>,
    /// Denied now; `None` = there is no such rule any more.
    pub after: Option<u64>,
}

/// A key whose denials differ.
#[derive(Debug, Serialize)]
pub struct ChangedKey {
    /// Its entries.
    pub key: String,
    /// Requests denied now and not by the other rules.
    pub newly_denied: u64,
    /// Requests allowed now and not by the other rules.
    pub newly_allowed: u64,
}

impl Report {
    pub(super) fn new(
        options: &Options,
        lines: u64,
        unreadable: Unreadable,
        (from, to): (u64, u64),
        tally: &Tally,
        old: Option<(&Tally, &Change)>,
        notes: Vec<String>,
    ) -> Self {
        Self {
            lines,
            unreadable,
            from: Moment(from),
            to: Moment(to),
            requests: tally.requests,
            denied: tally.denied,
            unlimited: tally.unlimited,
            rules: tally
                .rules
                .iter()
                .map(|rule| RuleReport::new(options, rule, tally))
                .collect(),
            against: old.map(|(old, change)| Against::new(options, old, tally, change)),
            deny_share: options.deny_share,
            notes,
            series: tally.series.clone(),
        }
    }
}

impl RuleReport {
    fn new(options: &Options, tally: &RuleTally, all: &Tally) -> Self {
        let rule = &tally.rule;
        let every = all.keys.worst(rule.index, usize::MAX);
        let worst = every.iter().take(options.top).map(|key| WorstKey::from(*key));
        Self {
            rule: RuleName(rule).to_string(),
            limit: rule.limit.map(|limit| {
                let (count, window) = (rule.requests_per_unit, rule.window);
                format!("{count} per {window}, {}", limit.algorithm.kind())
            }),
            requests: tally.requests,
            denied: tally.denied,
            shadow_denied: tally.shadow_denied,
            keys: tally.keys,
            first_denied: tally.first_denied_us.map(Moment),
            longest_denial_us: every.iter().map(|key| key.longest_us).max().unwrap_or_default(),
            worst: worst.collect(),
            demand: tally.demand.quantiles(options.deny_share),
            series: tally.series.clone(),
        }
    }
}

impl From<&DeniedKey> for WorstKey {
    fn from(key: &DeniedKey) -> Self {
        Self {
            key: key.name.to_string(),
            denied: key.denied,
            first: Moment(key.first_us),
            last: Moment(key.last_us),
            longest_us: key.longest_us,
        }
    }
}

impl Against {
    fn new(options: &Options, old: &Tally, new: &Tally, change: &Change) -> Self {
        let name = |rule: &Rule| format!("{} / {}", Clipped(&rule.domain), Clipped(&rule.path));
        let denied = |tally: &Tally| -> BTreeMap<String, u64> {
            tally.rules.iter().map(|rule| (name(&rule.rule), rule.denied)).collect()
        };
        let (before, after) = (denied(old), denied(new));
        let mut names: Vec<&String> = before.keys().chain(after.keys()).collect();
        names.sort_unstable();
        names.dedup();
        let rules = names.into_iter().map(|name| ChangedRule {
            rule: name.clone(),
            before: before.get(name).copied(),
            after: after.get(name).copied(),
        });
        let mut keys: Vec<ChangedKey> = change
            .keys
            .iter()
            .map(|(key, (newly_denied, newly_allowed))| ChangedKey {
                key: key.to_string(),
                newly_denied: *newly_denied,
                newly_allowed: *newly_allowed,
            })
            .collect();
        keys.sort_by(|one, other| {
            let size = |key: &ChangedKey| key.newly_denied + key.newly_allowed;
            size(other).cmp(&size(one)).then_with(|| one.key.cmp(&other.key))
        });
        keys.truncate(options.top);
        Self {
            denied: old.denied,
            newly_denied: change.newly_denied,
            newly_allowed: change.newly_allowed,
            rules: rules.filter(|rule| rule.before != rule.after).collect(),
            keys,
        }
    }
}
