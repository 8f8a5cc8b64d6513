//! What a call's span says of its decision. Codes, rules and fixed words; never what descriptors hold, which can be
//! about people.

use crate::engine::Decision;
use crate::telemetry::CallSpan;

use super::headers::policy_name;

/// The code that the caller gets, and on a denial the limit that it speaks of first.
pub(super) fn decided(span: &mut CallSpan, decision: &Decision) {
    if !span.is_on() {
        return;
    }
    span.note("sluicegate.code", if decision.over_limit { "OVER_LIMIT" } else { "OK" });
    if let (true, Some((status, _))) = (decision.over_limit, decision.tightest()) {
        span.note("sluicegate.rule", policy_name(decision, status));
    }
    if let Some(mode) = decision.failure {
        span.note("sluicegate.failure_mode", mode.name());
    }
}

/// The domain that is asked for, or that the rules say.
pub(super) fn domain(span: &mut CallSpan, domain: &str) {
    span.note("sluicegate.domain", domain);
}

/// That no limit is about the request.
pub(super) fn uncounted(span: &mut CallSpan) {
    span.note("sluicegate.code", "OK");
}

/// That the failure mode answers a request that nothing can be decided about, and why in a fixed word.
pub(super) fn undecided(span: &mut CallSpan, reason: &str, mode: &str) {
    span.note("sluicegate.code", "UNKNOWN");
    span.note("sluicegate.reason", reason);
    span.note("sluicegate.failure_mode", mode);
}
