//! What came of a replay, for people and (by serde) for programs.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, UNIX_EPOCH};

use serde::{Serialize, Serializer};

use crate::config::problem::Clipped;
use crate::model::{Limit, Window};
use crate::prove::explain::RuleName;
use crate::rules::Rule;

use super::change::Change;
use super::demand::Quantiles;
use super::keys::DeniedKey;
use super::options::Options;
use super::series::Series;
use super::side::Side;
use super::tally::{RuleTally, Tally};
use super::unreadable::Unreadable;

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
    /// When requests came, unless none did.
    #[serde(flatten)]
    pub span: Option<ReplaySpan>,
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

/// When requests came.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct ReplaySpan {
    /// The first one.
    pub from: Moment,
    /// The last one.
    pub to: Moment,
}

impl ReplaySpan {
    /// The span with one more request, which is the latest.
    pub(super) fn extended(span: Option<Self>, at_us: u64) -> Self {
        let to = Moment(at_us);
        Self {
            from: span.map_or(to, |span| span.from),
            to,
        }
    }
}

/// What a rule's candidate limit would have decided.
#[derive(Debug, Serialize)]
pub struct CandidateReport {
    /// As configured.
    pub limit: String,
    /// Requests that only the candidate denies.
    pub would_deny: u64,
    /// Requests that only the rule's own limit denies.
    pub would_allow: u64,
    /// Requests that both deny.
    pub both_deny: u64,
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
    /// The limit that is tried beside it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub candidate: Option<CandidateReport>,
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
        span: Option<ReplaySpan>,
        new: &Side,
        old: Option<(&Side, &Change)>,
        notes: Vec<String>,
    ) -> Self {
        let tally = &new.tally;
        Self {
            lines,
            unreadable,
            span,
            requests: tally.requests,
            denied: tally.denied,
            unlimited: tally.unlimited,
            rules: tally
                .rules
                .iter()
                .map(|rule| RuleReport::new(options, rule, new))
                .collect(),
            against: old.map(|(old, change)| Against::new(options, &old.tally, tally, change)),
            deny_share: options.deny_share,
            notes,
            series: tally.series.clone(),
        }
    }
}

impl RuleReport {
    fn new(options: &Options, tally: &RuleTally, side: &Side) -> Self {
        let rule = &tally.rule;
        let every = side.tally.keys.worst(rule.index, usize::MAX);
        let worst = every.iter().take(options.top).map(|key| WorstKey::from(*key));
        Self {
            rule: RuleName(rule).to_string(),
            limit: rule.limit.map(|limit| {
                let words = in_words(rule.requests_per_unit, rule.window, limit);
                let from = rule.plan_from.as_ref();
                from.map_or(words.clone(), |_| format!("by plan; without one {words}"))
            }),
            requests: tally.requests,
            denied: tally.denied,
            shadow_denied: tally.shadow_denied,
            candidate: CandidateReport::new(rule, side),
            keys: tally.keys,
            first_denied: tally.first_denied_us.map(Moment),
            longest_denial_us: every.iter().map(|key| key.longest_us).max().unwrap_or_default(),
            worst: worst.collect(),
            demand: tally.demand.quantiles(options.deny_share),
            series: tally.series.clone(),
        }
    }
}

/// `5 per minute, sliding_window`
fn in_words(requests_per_unit: u32, window: Window, limit: Limit) -> String {
    format!("{requests_per_unit} per {window}, {}", limit.algorithm.kind())
}

impl CandidateReport {
    fn new(rule: &Rule, side: &Side) -> Option<Self> {
        let candidate = rule.candidate.as_ref()?;
        let stats = side.limiter.stats(rule.index)?;
        let stats = stats.candidate()?;
        Some(Self {
            limit: in_words(candidate.requests_per_unit, candidate.window, candidate.limit),
            would_deny: stats.would_deny.load(Relaxed),
            would_allow: stats.would_allow.load(Relaxed),
            both_deny: stats.both_deny.load(Relaxed),
        })
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
