//! A decision in words: for each descriptor the rule that applied and how its counter stands.

use std::fmt;
use std::time::Duration;

use crate::config::problem::Clipped;
use crate::engine::{Counted, Decision, Status, StatusLimit};
use crate::model::{Descriptor, RetryAfter};
use crate::rules::Rule;

/// A descriptor and what became of it, on one line.
pub struct Line<'a> {
    /// What was asked.
    pub descriptor: &'a Descriptor,
    /// Its status in the decision.
    pub status: &'a Status,
    /// The decision.
    pub decision: &'a Decision,
}

/// The lines of a decision, one for each limit of each descriptor, in order.
pub fn lines<'a>(descriptors: &'a [Descriptor], decision: &'a Decision) -> impl Iterator<Item = Line<'a>> {
    pairs(descriptors, decision).map(|(descriptor, status)| Line {
        descriptor,
        status,
        decision,
    })
}

/// The statuses of a decision, each with its descriptor.
pub fn pairs<'a>(
    descriptors: &'a [Descriptor],
    decision: &'a Decision,
) -> impl Iterator<Item = (&'a Descriptor, &'a Status)> {
    let statuses = decision.statuses.iter();
    statuses.filter_map(|status| Some((descriptors.get(status.descriptor)?, status)))
}

/// A rule by domain, path and name.
pub struct RuleName<'a>(pub &'a Rule);

impl fmt::Display for RuleName<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(rule) = self;
        write!(f, "{} / {}", Clipped(&rule.domain), Clipped(&rule.path))?;
        if !rule.name.is_empty() {
            write!(f, " ({})", Clipped(&rule.name))?;
        }
        Ok(())
    }
}

/// The entries of a descriptor: `[key=value, key=value]`.
pub struct Entries<'a>(pub &'a Descriptor);

impl fmt::Display for Entries<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[")?;
        for (at, entry) in self.0.entries.iter().enumerate() {
            let comma = if at == 0 { "" } else { ", " };
            write!(f, "{comma}{}", Clipped(&entry.key))?;
            if !entry.value.is_empty() {
                write!(f, "={}", Clipped(&entry.value))?;
            }
        }
        f.write_str("]")
    }
}

impl fmt::Display for Line<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", Entries(self.descriptor))?;
        let rule = self.decision.rule(self.status);
        match (&self.status.limit, rule) {
            (StatusLimit::None, _) => f.write_str("no rule applies"),
            (StatusLimit::Unlimited { .. }, Some(rule)) => write!(f, "rule {}: unlimited", RuleName(rule)),
            (StatusLimit::Unlimited { .. }, None) => f.write_str("unlimited"),
            (StatusLimit::Counted(counted), rule) => {
                match rule {
                    Some(rule) => write!(f, "rule {}", RuleName(rule))?,
                    None => f.write_str("the request's own limit")?,
                }
                write!(f, ", {} per {}", counted.requests_per_unit, counted.window)?;
                if rule.is_some() {
                    write!(f, ", {}", counted.algorithm)?;
                }
                f.write_str(": ")?;
                let marks = rule.is_some_and(|rule| rule.marks);
                write_counted(f, counted, self.status.over_limit, marks)
            }
        }
    }
}

fn write_counted(f: &mut fmt::Formatter<'_>, counted: &Counted, over_limit: bool, marks: bool) -> fmt::Result {
    let outcome = &counted.outcome;
    match (counted.denied, over_limit) {
        (true, true) => f.write_str("denied")?,
        (true, false) if marks => f.write_str("over, passes with a mark")?,
        (true, false) => f.write_str("over, not enforced (shadow mode)")?,
        (false, _) => f.write_str("admitted")?,
    }
    write!(f, ", {} of {} left", outcome.remaining, counted.limit_hits)?;
    match outcome.retry_after {
        RetryAfter::Micros(us) if counted.denied => write!(f, ", admitted again in {}", Micros(us))?,
        RetryAfter::Never if counted.denied => f.write_str(", no waiting helps")?,
        _ => {}
    }
    if outcome.delay_us > 0 {
        write!(f, ", held back for {}", Micros(outcome.delay_us))?;
    }
    Ok(())
}

/// Microseconds as people write them.
pub struct Micros(pub u64);

impl fmt::Display for Micros {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", humantime::format_duration(Duration::from_micros(self.0)))
    }
}
