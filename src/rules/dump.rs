//! The rules as text, for `/rlconfig`: a line for each rule, in the shape that envoyproxy/ratelimit prints, ours behind.

use std::fmt::{self, Write};

use crate::model::Algorithm;

use super::{Rule, RuleSet};

impl RuleSet {
    /// Every rule on a line of its own, in order of declaration. Holds rule text only (`metadata` is left out, since
    /// it may carry what is nobody else's business), with controls escaped so that a rule cannot forge a line.
    #[must_use]
    pub fn dump(&self) -> String {
        let mut out = String::new();
        for rule in &self.rules {
            // Writing to a String cannot fail.
            let _ = writeln!(out, "{}", Line(rule));
        }
        out
    }
}

struct Line<'r>(&'r Rule);

impl fmt::Display for Line<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rule = self.0;
        write!(f, "{}.{}: ", Escaped(&rule.domain), Escaped(&rule.path))?;
        match rule.limit {
            Some(_) => write!(f, "unit={}", rule.window.unit.name().to_ascii_uppercase())?,
            None => f.write_str("unit=UNKNOWN")?,
        }
        write!(
            f,
            " requests_per_unit={}, shadow_mode: {}, quota_mode: {}",
            rule.requests_per_unit, rule.shadow_mode, rule.quota_mode
        )?;
        match rule.limit {
            Some(limit) => {
                write!(f, ", unit_multiplier: {}", rule.window.multiplier)?;
                write_algorithm(f, limit.algorithm)?;
            }
            None => f.write_str(", unlimited: true")?,
        }
        if !rule.name.is_empty() {
            write!(f, ", name: {}", Escaped(&rule.name))?;
        }
        for replaced in rule.replaces.iter() {
            write!(f, ", replaces: {}", Escaped(replaced))?;
        }
        if let Some(mode) = rule.on_store_error {
            write!(f, ", on_store_error: {}", mode.name())?;
        }
        if let Some(lease) = rule.lease {
            write!(f, ", lease: {lease}")?;
        }
        Ok(())
    }
}

fn write_algorithm(f: &mut fmt::Formatter<'_>, algorithm: Algorithm) -> fmt::Result {
    write!(f, ", algorithm: {}", algorithm.kind())?;
    match algorithm {
        Algorithm::SlidingWindow { precision } => write!(f, ", precision: {precision}"),
        Algorithm::TokenBucket { burst, .. } => write!(f, ", burst: {burst}"),
        Algorithm::LeakyBucket { max_delay_us, .. } => write!(f, ", max_delay: {max_delay_us}us"),
        Algorithm::FixedWindow { count_denied } => write!(f, ", count_denied: {count_denied}"),
        Algorithm::SlidingLog | Algorithm::Concurrency => Ok(()),
    }
}

/// Rule text with its controls (and what would end a line for some reader) escaped.
struct Escaped<'t>(&'t str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in self.0.chars() {
            if c.is_control() || matches!(c, '\u{2028}' | '\u{2029}') {
                write!(f, "{}", c.escape_default())?;
            } else {
                f.write_char(c)?;
            }
        }
        Ok(())
    }
}
