//! `sluicegate check --diff`: what a change of rules means, in words.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fmt;

use crate::algorithms::limit::DEFAULT_PRECISION;
use crate::config::options::{RuleOption, TABLE};
use crate::config::problem::Clipped;
use crate::model::{Algorithm, Limit, Window};
use crate::rules::{Candidate, Rule, RuleSet};

use super::explain::RuleName;
use plans::{entries, plans};

mod plans;

/// Two sets of rules to compare.
pub struct Diff<'a> {
    /// In force.
    pub old: &'a RuleSet,
    /// To be in force.
    pub new: &'a RuleSet,
}

/// How a limit compares with another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shift {
    Same,
    Tighter,
    Looser,
    /// More at once and less in the long run, or the other way round.
    Mixed {
        burst: Ordering,
    },
}

impl fmt::Display for Diff<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let anew: HashSet<_> = self.new.starting_anew(self.old).iter().map(|rule| rule.id()).collect();
        let mut lines = Vec::new();
        for change in self.new.changes(self.old) {
            match change {
                (None, Some(rule)) => {
                    let tries = rule
                        .candidate
                        .as_ref()
                        .map(|candidate| format!("; tries a candidate: {}", tried(candidate)));
                    let counters = anew.contains(&rule.id()).then_some("; its counters start anew");
                    let (tries, counters) = (tries.unwrap_or_default(), counters.unwrap_or_default());
                    lines.push(format!("{}: new, {}{tries}{counters}", RuleName(rule), describe(rule)));
                }
                (Some(rule), None) => lines.push(format!("{}: gone, it was {}", RuleName(rule), describe(rule))),
                (Some(old), Some(new)) => lines.extend(changed(old, new)),
                (None, None) => {}
            }
        }
        lines.extend(self.others());
        if lines.is_empty() {
            return f.write_str("no rule means anything else than before");
        }
        f.write_str(&lines.join("\n"))
    }
}

impl Diff<'_> {
    /// What is no rule: values that are exempt from limits, and `ext_authz` sections.
    fn others(&self) -> Vec<String> {
        let notes = |rules: &RuleSet| -> BTreeSet<String> { rules.notes().into_iter().collect() };
        let (old, new) = (notes(self.old), notes(self.new));
        let mut lines: Vec<String> = old
            .difference(&new)
            .map(|note| format!("no longer: {}", Clipped(note)))
            .collect();
        lines.extend(new.difference(&old).map(|note| format!("new: {}", Clipped(note))));
        lines.extend(entries(self.old, self.new));
        let sections = |rules: &RuleSet| -> BTreeMap<String, String> {
            let named = rules.ext_authz.named();
            let text = named.iter().map(|(extension, mapping, default)| {
                (
                    mapping.domain.to_string(),
                    format!("{extension:?} {default} {mapping:?}"),
                )
            });
            text.collect()
        };
        let (old, new) = (sections(self.old), sections(self.new));
        for domain in old.keys().chain(new.keys()).collect::<BTreeSet<_>>() {
            let what = match (old.get(domain), new.get(domain)) {
                (None, _) => "new",
                (_, None) => "gone: its requests are no longer limited by ext_authz",
                (Some(old), Some(new)) if old != new => {
                    "changed: requests may become other descriptors, or be answered otherwise"
                }
                _ => continue,
            };
            lines.push(format!("{}: the `ext_authz` section is {what}", Clipped(domain)));
        }
        lines
    }
}

/// A rule's limit in words.
fn describe(rule: &Rule) -> String {
    let Some(limit) = rule.limit else {
        return "unlimited".to_owned();
    };
    let mode = match (rule.shadow_mode, rule.quota_mode) {
        (false, _) if rule.marks => " (never denies: marks)",
        (true, _) => " (shadow mode: never denies)",
        (false, true) => " (quota mode: denies only with all other quotas)",
        (false, false) => "",
    };
    format!("{}{mode}", in_force(rule, &limit))
}

fn in_force(rule: &Rule, limit: &Limit) -> String {
    amount(rule.requests_per_unit, rule.window, limit)
}

fn amount(requests_per_unit: u32, window: Window, limit: &Limit) -> String {
    let extra = match limit.algorithm {
        Algorithm::TokenBucket { burst, .. } if burst != limit.hits => format!(", burst {burst}"),
        Algorithm::SlidingWindow { precision } if precision != DEFAULT_PRECISION => format!(", precision {precision}"),
        Algorithm::LeakyBucket { max_delay_us, .. } => {
            format!(", delays up to {}", super::explain::Micros(max_delay_us))
        }
        _ => String::new(),
    };
    let held = match limit.hold_us {
        0 => String::new(),
        hold_us => format!(", held up to {}", super::explain::Micros(hold_us)),
    };
    match limit.algorithm {
        Algorithm::Concurrency => format!("{} at the same time{held}", limit.hits),
        _ => format!(
            "{} per {} by {}{extra}{held}",
            requests_per_unit,
            window,
            limit.algorithm.kind()
        ),
    }
}

/// What a rule that stays means now; nothing if it means the same.
fn changed(old: &Rule, new: &Rule) -> Option<String> {
    let mut parts = Vec::new();
    parts.extend(changed_limit(old, new));
    parts.extend(changed_flags(old, new));
    if old.on_store_error != new.on_store_error {
        let mode = new
            .on_store_error
            .map_or("as the global setting says", |mode| mode.name());
        parts.push(format!("when the store cannot answer: {mode}"));
    }
    if old.lease != new.lease {
        let lease = new
            .lease
            .map_or("as the global setting says", |lease| if lease { "yes" } else { "no" });
        parts.push(format!("hits leased ahead: {lease}"));
    }
    parts.extend(candidate(old, new));
    parts.extend(plans(old, new));
    if old.shared != new.shared {
        parts.push("which values share a counter is different".to_owned());
    }
    if old.hold_first != new.hold_first {
        parts.push("what is held before the mean cost is known is different".to_owned());
    }
    if old.metadata != new.metadata {
        parts.push("its metadata for Envoy is different".to_owned());
    }
    parts.extend(TABLE.iter().filter_map(|option| changed_option(option, old, new)));
    if old.replaces != new.replaces {
        parts.push("replaces other rules than before".to_owned());
    }
    if old.name != new.name {
        parts.push(format!("its name was {:?}", Clipped(&old.name).to_string()));
    }
    if old.levels != new.levels {
        parts.push(format!("its values are others than in {}", Clipped(&old.path)));
    }
    if parts.is_empty() {
        return None;
    }
    parts.extend(counters(old, new));
    Some(format!("{}: {}", RuleName(new), parts.join("; ")))
}

/// What becomes of a rule's counters.
fn counters(old: &Rule, new: &Rule) -> Option<String> {
    let kept = new.keeps_counters_of(old);
    let mut anew: Vec<String> = new
        .plans_starting_anew(old)
        .iter()
        .map(|plan| format!("plan {plan}"))
        .collect();
    if anew.is_empty() {
        let counts = old.limit.is_some() && new.limit.is_some();
        let words = if kept {
            "its counters go on"
        } else {
            "its counters start anew"
        };
        return counts.then(|| words.to_owned());
    }
    if !kept {
        anew.insert(0, "the default".to_owned());
    }
    Some(format!("counters of values with {} start anew", anew.join(", ")))
}

/// Options whose changes have words of their own; every other one is told by its name and values.
const IN_WORDS: [&str; 20] = [
    "window",
    "unit_multiplier",
    "algorithm",
    "precision",
    "burst",
    "max_delay",
    "unlimited",
    "name",
    "headers",
    "body",
    "on_limit",
    "replaces",
    "count_denied",
    "hold",
    "plan_from",
    "default",
    "on_store_error",
    "lease",
    "share_threshold",
    "candidate",
];

fn changed_option(option: &RuleOption, old: &Rule, new: &Rule) -> Option<String> {
    let [was, is] = [old, new].map(|rule| option.values(rule));
    if was == is || IN_WORDS.contains(&option.name) {
        return None;
    }
    let words = |values: &[String]| match values {
        [] => "not set".to_owned(),
        values => Clipped(&values.join(", ")).to_string(),
    };
    Some(format!("`{}`: {} → {}", option.name, words(&was), words(&is)))
}

fn tried(candidate: &Candidate) -> String {
    let denied = if candidate.count_denied {
        ", denied hits count, too"
    } else {
        ""
    };
    let amount = amount(candidate.requests_per_unit, candidate.window, &candidate.limit);
    format!("{amount}{denied}")
}

/// What becomes of a rule's candidate.
fn candidate(old: &Rule, new: &Rule) -> Option<String> {
    let words = |rule: &Rule| rule.candidate.as_deref().map(tried);
    match (words(old), words(new)) {
        (Some(was), None) if new.limit == old.candidate.as_ref().map(|candidate| candidate.limit) => {
            Some(format!("its candidate is in force: {was}"))
        }
        (Some(was), None) => Some(format!("no candidate any more, it was {was}")),
        (None, Some(is)) => Some(format!("tries a candidate: {is}")),
        (Some(was), Some(is)) if was != is => Some(format!("tries another candidate: {was} → {is}")),
        _ => None,
    }
}

/// What a rule's limit admits now.
fn changed_limit(old: &Rule, new: &Rule) -> Option<String> {
    match (old.limit, new.limit) {
        (None, None) => None,
        (Some(limit), None) => Some(format!("looser: unlimited, it was {}", in_force(old, &limit))),
        (None, Some(limit)) => Some(format!("tighter: {}, it was unlimited", in_force(new, &limit))),
        (Some(before), Some(after)) if before != after => {
            let (was, is) = (in_force(old, &before), in_force(new, &after));
            Some(match shift(&before, &after) {
                Shift::Tighter => format!("tighter: {was} → {is}"),
                Shift::Looser => format!("looser: {was} → {is}"),
                Shift::Mixed {
                    burst: Ordering::Greater,
                } => format!("more at once, less in the long run: {was} → {is}"),
                Shift::Mixed { .. } => format!("less at once, more in the long run: {was} → {is}"),
                Shift::Same => format!("counted otherwise: {was} → {is}"),
            })
        }
        (Some(_), Some(_)) => None,
    }
}

/// Which of a rule's flags were turned on or off.
fn changed_flags(old: &Rule, new: &Rule) -> Vec<String> {
    let flags = [
        (
            old.shadow_mode,
            new.shadow_mode,
            "never denies any more (shadow mode)",
            "denies now (no shadow mode any more)",
        ),
        (
            old.quota_mode,
            new.quota_mode,
            "denies only together with all other quotas",
            "denies by itself",
        ),
        (
            old.count_denied,
            new.count_denied,
            "denied hits count, too",
            "denied hits no longer count",
        ),
        (
            old.marks,
            new.marks,
            "what is over passes with a mark",
            "what is over is denied",
        ),
        (
            old.headers,
            new.headers,
            "clients are told of it in headers",
            "clients are not told of it in headers any more",
        ),
        (
            old.body,
            new.body,
            "denials tell of it",
            "denials do not tell of it any more",
        ),
    ];
    flags
        .iter()
        .filter(|(was, is, ..)| was != is)
        .map(|(_, is, on, off)| (if *is { *on } else { *off }).to_owned())
        .collect()
}

fn shift(old: &Limit, new: &Limit) -> Shift {
    if matches!(old.algorithm, Algorithm::Concurrency) != matches!(new.algorithm, Algorithm::Concurrency) {
        return Shift::Same;
    }
    let rate = |one: &Limit, other: &Limit| u128::from(one.hits) * u128::from(other.window_us);
    let rate = match new.algorithm {
        Algorithm::Concurrency => new.hits.cmp(&old.hits),
        _ => rate(new, old).cmp(&rate(old, new)),
    };
    let burst = burst(new).cmp(&burst(old));
    match (rate, burst) {
        (Ordering::Equal, Ordering::Equal) => Shift::Same,
        (Ordering::Greater | Ordering::Equal, Ordering::Greater | Ordering::Equal) => Shift::Looser,
        (Ordering::Less | Ordering::Equal, Ordering::Less | Ordering::Equal) => Shift::Tighter,
        (_, burst) => Shift::Mixed { burst },
    }
}

/// Hits that pass at once.
const fn burst(limit: &Limit) -> u64 {
    match limit.algorithm {
        Algorithm::TokenBucket { burst, .. } => burst,
        _ => limit.hits,
    }
}
