//! Dynamic metadata: how Envoy's access log learns which rule fired
//! (`%DYNAMIC_METADATA(envoy.filters.http.ratelimit:sluicegate:rule)%`).

use crate::engine::{Counted, Decision, Status};
use crate::model::time::SECOND_US;

use super::encoded::{Fields, Value, Values};
use super::headers::policy_name;

/// Under `sluicegate`: on a denial the rule that fired first, and all of them; with `always` the tightest on every
/// answer. Rules' own `metadata` are merged beside it, in the order of the descriptors. An encoded
/// `google.protobuf.Struct`; empty = none.
#[must_use]
pub fn dynamic(decision: &Decision, domain: &str, always: bool) -> Vec<u8> {
    if !always && !decision.over_limit {
        return Vec::new();
    }
    let mut fields = Fields::default();
    for rule in decision.statuses.iter().filter_map(|status| decision.rule(status)) {
        for (key, value) in rule.metadata.iter().flat_map(|map| map.iter()) {
            fields.set(key, Value::Json(value));
        }
    }
    fields.set("sluicegate", Value::Struct(&ours(decision, domain)));
    fields.into_bytes()
}

/// Under `sluicegate`: that nothing was decided, and why in a fixed word; encoded as [`dynamic`] is.
#[must_use]
pub fn undecided(reason: &str) -> Vec<u8> {
    let (mut fields, mut ours) = (Fields::default(), Fields::default());
    ours.set("code", Value::String("UNKNOWN"));
    ours.set("reason", Value::String(reason));
    fields.set("sluicegate", Value::Struct(&ours));
    fields.into_bytes()
}

fn ours(decision: &Decision, domain: &str) -> Fields {
    let mut fields = Fields::default();
    let code = if decision.over_limit { "OVER_LIMIT" } else { "OK" };
    fields.set("code", Value::String(code));
    fields.set("domain", Value::String(domain));
    if let Some(mode) = decision.failure {
        fields.set("failure_mode", Value::String(mode.name()));
    }
    if let Some((status, counted)) = decision.tightest() {
        about(&mut fields, decision, status, counted);
    }
    let mut violated = Values::default();
    for (status, _) in decision.violated() {
        violated.push(Value::String(policy_name(decision, status)));
    }
    if !violated.is_empty() {
        fields.set("violated", Value::List(&violated));
    }
    fields
}

fn about(fields: &mut Fields, decision: &Decision, status: &Status, counted: &Counted) {
    let path = decision.rule(status).map_or("override", |rule| &rule.path);
    fields.set("rule", Value::String(policy_name(decision, status)));
    fields.set("path", Value::String(path));
    fields.set("limit", Value::Number(counted.requests_per_unit.into()));
    fields.set("window_seconds", Value::Number(counted.window.seconds()));
    fields.set("remaining", Value::Number(counted.outcome.remaining));
    if let (true, Some(us)) = (counted.denied, counted.retry_after_us()) {
        fields.set("retry_after_seconds", Value::Number(us.div_ceil(SECOND_US).max(1)));
    }
}
