//! What came of a question, and how it differs from what must come.

use crate::engine::{Counted, Decision, StatusLimit};
use crate::model::Descriptor;
use crate::prove::explain::{self, Entries, Micros};

use super::case::Expect;

/// What was asked once, and what came.
pub(super) struct Answer {
    /// For each call, in order; none: nothing is limited.
    pub descriptors: Vec<Vec<Descriptor>>,
    /// Up to the first call that was denied: the others are not made then.
    pub decisions: Vec<Decision>,
}

impl Answer {
    /// The call that denied.
    pub fn denial(&self) -> Option<&Decision> {
        self.decisions.last().filter(|decision| decision.over_limit)
    }

    /// The limit that the caller is told of.
    fn tightest(&self) -> Option<&Counted> {
        match self.denial() {
            Some(denial) => tightest(denial),
            None => self
                .decisions
                .iter()
                .filter_map(tightest)
                .min_by_key(|counted| counted.outcome.remaining),
        }
    }
}

fn tightest(decision: &Decision) -> Option<&Counted> {
    decision.tightest().map(|(_, counted)| counted)
}

/// What differs, as (expected, what came instead).
pub(super) fn compare(expect: &Expect, answer: &Answer) -> Vec<(String, String)> {
    let mut wrong = Vec::new();
    let denied = answer.denial().is_some();
    if let Some(allowed) = expect.allowed.filter(|allowed| *allowed == denied) {
        wrong.push((word(allowed).to_owned(), word(!denied).to_owned()));
    }
    for (wanted, enforced) in [(&expect.denied_by, true), (&expect.shadow_denied_by, false)] {
        let found = deniers(&answer.decisions, enforced);
        for name in wanted.iter().filter(|name| !found.iter().any(|rule| rule.is(name))) {
            let kind = if enforced {
                "denied by"
            } else {
                "over without denying (shadow mode):"
            };
            let names: Vec<&str> = found.iter().map(|rule| rule.shown.as_str()).collect();
            let came = if names.is_empty() {
                "no rule".to_owned()
            } else {
                names.join(", ")
            };
            wrong.push((format!("{kind} {name}"), format!("{kind} {came}")));
        }
    }
    if let Some(range) = expect.remaining {
        let came = answer.tightest().map(|counted| counted.outcome.remaining);
        outside(&mut wrong, "remaining", range, came, |value| value.to_string());
    }
    if let Some(range) = expect.retry_after {
        let came = answer.denial().and_then(Decision::retry_after_us);
        outside(&mut wrong, "retry_after", range, came, |value| {
            Micros(value).to_string()
        });
    }
    if let Some(range) = expect.delay {
        let delays = answer.decisions.iter().flat_map(|decision| &decision.statuses);
        let delay = |limit: &StatusLimit| match limit {
            StatusLimit::Counted(counted) => Some(counted.outcome.delay_us),
            _ => None,
        };
        let came = delays.filter_map(|status| delay(&status.limit)).max();
        outside(&mut wrong, "delay", range, came, |value| Micros(value).to_string());
    }
    if let Some(wanted) = &expect.descriptors {
        let shown = |descriptor| Entries(descriptor).to_string();
        let wanted: Vec<String> = wanted.iter().map(shown).collect();
        let came: Vec<String> = answer.descriptors.iter().flatten().map(shown).collect();
        if wanted != came {
            let text = |all: Vec<String>| {
                format!(
                    "descriptors {}",
                    if all.is_empty() { "none".into() } else { all.join(" ") }
                )
            };
            wrong.push((text(wanted), text(came)));
        }
    }
    wrong
}

fn outside(
    wrong: &mut Vec<(String, String)>,
    name: &str,
    range: super::range::Range,
    came: Option<u64>,
    show: impl Fn(u64) -> String,
) {
    if !came.is_some_and(|value| range.contains(value)) {
        let came = came.map_or_else(|| "none".to_owned(), show);
        wrong.push((format!("{name} {range}"), format!("{name} {came}")));
    }
}

/// A rule that is over, by all its names.
struct Denier {
    shown: String,
    names: [String; 3],
}

impl Denier {
    fn is(&self, name: &str) -> bool {
        self.names.iter().any(|known| !known.is_empty() && known == name)
    }
}

fn deniers(decisions: &[Decision], enforced: bool) -> Vec<Denier> {
    let over = decisions
        .iter()
        .flat_map(|decision| decision.statuses.iter().map(move |status| (decision, status)));
    let over = over.filter(|(decision, status)| match &status.limit {
        StatusLimit::Counted(counted) => counted.denied && enforced == (status.over_limit && decision.over_limit),
        _ => false,
    });
    let rules = over.filter_map(|(decision, status)| decision.rule(status));
    rules
        .map(|rule| Denier {
            shown: explain::RuleName(rule).to_string(),
            names: [
                rule.name.to_string(),
                rule.path.to_string(),
                format!("{}/{}", rule.domain, rule.path),
            ],
        })
        .collect()
}

const fn word(allowed: bool) -> &'static str {
    if allowed { "allowed" } else { "denied" }
}
