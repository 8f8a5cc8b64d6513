//! The report as text.

use std::fmt;

use crate::config::problem::Clipped;
use crate::prove::explain::Micros;

use super::demand::Quantiles;
use super::report::{Against, CandidateReport, ReplaySpan, Report, RuleReport};

/// A part of a whole in per cent.
#[must_use]
pub fn percent(part: u64, whole: u64) -> String {
    if whole == 0 {
        return "0 %".to_owned();
    }
    #[allow(clippy::cast_precision_loss, reason = "for people")]
    let share = part as f64 * 100.0 / whole as f64;
    match share {
        share if part > 0 && share < 0.01 => "< 0.01 %".to_owned(),
        share => format!("{share:.2} %"),
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.span {
            None => writeln!(f, "{} lines, no request", self.lines)?,
            Some(ReplaySpan { from, to }) => writeln!(f, "{} lines, {from} to {to}", self.lines)?,
        }
        let denied = percent(self.denied, self.requests);
        writeln!(
            f,
            "{} requests, {} would be denied ({denied}), {} are not limited",
            self.requests, self.denied, self.unlimited
        )?;
        if self.unreadable.lines() > 0 {
            writeln!(f, "{} lines could not be used:", self.unreadable.lines())?;
            for (text, reason) in self.unreadable.reasons() {
                writeln!(
                    f,
                    "  {} × {}, for instance: {}",
                    reason.lines,
                    Clipped(text),
                    reason.example
                )?;
            }
        }
        for note in &self.notes {
            writeln!(f, "note: {note}")?;
        }
        for rule in &self.rules {
            write_rule(f, rule, self.deny_share)?;
        }
        if let Some(against) = &self.against {
            write_against(f, against)?;
        }
        Ok(())
    }
}

fn write_rule(f: &mut fmt::Formatter<'_>, rule: &RuleReport, share: f64) -> fmt::Result {
    let limit = rule.limit.as_deref().unwrap_or("unlimited");
    writeln!(f, "\n{}: {limit}", rule.rule)?;
    let denied = percent(rule.denied, rule.requests);
    write!(
        f,
        "  {} requests of {} keys, {} denied ({denied})",
        rule.requests, rule.keys, rule.denied
    )?;
    if rule.shadow_denied > 0 {
        write!(f, ", {} over and not denied", rule.shadow_denied)?;
    }
    writeln!(f)?;
    if let Some(candidate) = &rule.candidate {
        writeln!(f, "  {candidate}")?;
    }
    if let Some(first) = rule.first_denied {
        writeln!(
            f,
            "  first denied at {first}, longest denial {}",
            Micros(rule.longest_denial_us)
        )?;
    }
    let demand = &rule.demand;
    if demand.windows > 0 && rule.limit.is_some() {
        let Quantiles {
            p50,
            p90,
            p99,
            p999,
            max,
            limit_for_share,
            ..
        } = demand;
        writeln!(
            f,
            "  a key's hits in a window: half at most {p50}, 90 % {p90}, 99 % {p99}, 99.9 % {p999}, most {max}"
        )?;
        writeln!(
            f,
            "  at most {} % denied: a limit of {limit_for_share} (by aligned windows; replay it to be sure)",
            share * 100.0
        )?;
    }
    for key in &rule.worst {
        let longest = Micros(key.longest_us);
        writeln!(
            f,
            "    {:>9} × {}, {} to {}, longest {longest}",
            key.denied, key.key, key.first, key.last
        )?;
    }
    Ok(())
}

impl fmt::Display for CandidateReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (more, fewer) = (self.would_deny, self.would_allow);
        write!(
            f,
            "candidate {}: {more} more would be denied, {fewer} fewer; {} by both",
            self.limit, self.both_deny
        )
    }
}

fn write_against(f: &mut fmt::Formatter<'_>, against: &Against) -> fmt::Result {
    writeln!(f, "\nagainst the other rules: they would deny {}", against.denied)?;
    writeln!(
        f,
        "  {} requests newly denied, {} newly allowed",
        against.newly_denied, against.newly_allowed
    )?;
    let count = |count: Option<u64>| count.map_or_else(|| "no such rule".to_owned(), |count| count.to_string());
    for rule in &against.rules {
        writeln!(
            f,
            "  {}: denied {} → {}",
            rule.rule,
            count(rule.before),
            count(rule.after)
        )?;
    }
    for key in &against.keys {
        writeln!(
            f,
            "    {}: {} newly denied, {} newly allowed",
            key.key, key.newly_denied, key.newly_allowed
        )?;
    }
    Ok(())
}
