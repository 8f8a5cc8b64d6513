//! What was asked and which rule decided, for the log at level `debug`: whoever writes actions for Envoy sees there what
//! they make of a request.

use crate::engine::{Decision, Status, StatusLimit};
use crate::model::{Descriptor, Request};

/// Bytes of a descriptor that are written at most.
const MAX_TEXT: usize = 1 << 10;
/// Lines for a request at most.
const MAX_LINES: usize = 16;

/// One line for each limit of each descriptor; nothing unless the level is on.
pub(super) fn log(asked: &Request, decision: &Decision) {
    if !tracing::enabled!(tracing::Level::DEBUG) {
        return;
    }
    for status in decision.statuses.iter().take(MAX_LINES) {
        if let Some(descriptor) = asked.descriptors.get(status.descriptor) {
            line(asked, descriptor, decision, status);
        }
    }
}

fn line(asked: &Request, descriptor: &Descriptor, decision: &Decision, status: &Status) {
    let (domain, entries) = (asked.domain.as_str(), entries(descriptor));
    let counted = match &status.limit {
        StatusLimit::None => {
            tracing::debug!(domain, entries, "a descriptor matches no limit");
            return;
        }
        StatusLimit::Unlimited { .. } => {
            let rule = decision.rule(status).map_or("", |rule| &rule.path);
            tracing::debug!(domain, entries, rule, "a descriptor is unlimited");
            return;
        }
        StatusLimit::Counted(counted) => counted,
    };
    tracing::debug!(
        domain,
        entries,
        rule = decision.rule(status).map_or("override", |rule| &rule.path),
        requests_per_unit = counted.requests_per_unit,
        window = %counted.window,
        hits_addend = descriptor.hits_addend,
        over = counted.denied,
        code = if status.over_limit { "OVER_LIMIT" } else { "OK" },
        remaining = counted.outcome.remaining,
        "a limit applies to a descriptor"
    );
}

/// `(key=value),(key=value)`, cut where it is long.
fn entries(descriptor: &Descriptor) -> String {
    let mut text = String::new();
    for entry in &descriptor.entries {
        let comma = if text.is_empty() { "" } else { "," };
        text.push_str(comma);
        for part in ["(", entry.key.as_str(), "=", entry.value.as_str(), ")"] {
            let left = MAX_TEXT.saturating_sub(text.len());
            text.push_str(&part[..part.floor_char_boundary(left)]);
        }
    }
    text
}
