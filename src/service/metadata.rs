//! Dynamic metadata: how Envoy's access log learns which rule fired
//! (`%DYNAMIC_METADATA(envoy.filters.http.ratelimit:sluicegate:rule)%`).

use prost_types::value::Kind;
use prost_types::{ListValue, Struct, Value};

use crate::engine::{Counted, Decision, Status};
use crate::model::time::SECOND_US;

use super::headers::policy_name;

/// Under `sluicegate`: on a denial the rule that fired first, and all of them; with `always` the tightest on every
/// answer. Rules' own `metadata` are merged beside it, in the order of the descriptors.
#[must_use]
pub fn dynamic(decision: &Decision, domain: &str, always: bool) -> Option<Struct> {
    if !always && !decision.over_limit {
        return None;
    }
    let mut fields = Struct::default().fields;
    for rule in decision.statuses.iter().filter_map(|status| decision.rule(status)) {
        for (key, value) in rule.metadata.iter().flat_map(|map| map.iter()) {
            fields.insert(key.clone(), json(value));
        }
    }
    fields.insert("sluicegate".into(), object(ours(decision, domain)));
    Some(Struct { fields })
}

/// Under `sluicegate`: that nothing was decided, and why in a fixed word.
#[must_use]
pub fn undecided(reason: &str) -> Struct {
    let ours = object(vec![("code", string("UNKNOWN")), ("reason", string(reason))]);
    Struct {
        fields: [("sluicegate".to_owned(), ours)].into(),
    }
}

fn ours(decision: &Decision, domain: &str) -> Vec<(&'static str, Value)> {
    let mut fields = vec![
        ("code", string(if decision.over_limit { "OVER_LIMIT" } else { "OK" })),
        ("domain", string(domain)),
    ];
    if let Some(mode) = decision.failure {
        fields.push(("failure_mode", string(mode.name())));
    }
    if let Some((status, counted)) = decision.tightest() {
        fields.extend(about(decision, status, counted));
    }
    let violated: Vec<_> = decision
        .violated()
        .map(|(status, _)| string(&policy_name(decision, status)))
        .collect();
    if !violated.is_empty() {
        fields.push((
            "violated",
            Value {
                kind: Some(Kind::ListValue(ListValue { values: violated })),
            },
        ));
    }
    fields
}

fn about(decision: &Decision, status: &Status, counted: &Counted) -> Vec<(&'static str, Value)> {
    let mut fields = vec![
        ("rule", string(&policy_name(decision, status))),
        (
            "path",
            string(decision.rule(status).map_or("override", |rule| &rule.path)),
        ),
        ("limit", number(u64::from(counted.requests_per_unit))),
        ("window_seconds", number(counted.window.seconds())),
        ("remaining", number(counted.outcome.remaining)),
    ];
    if let (true, Some(us)) = (counted.denied, counted.retry_after_us()) {
        fields.push(("retry_after_seconds", number(us.div_ceil(SECOND_US).max(1))));
    }
    fields
}

fn object(fields: Vec<(&'static str, Value)>) -> Value {
    let fields = fields.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
    Value {
        kind: Some(Kind::StructValue(Struct { fields })),
    }
}

fn string(text: &str) -> Value {
    Value {
        kind: Some(Kind::StringValue(text.to_owned())),
    }
}

#[allow(clippy::cast_precision_loss, reason = "protobuf Struct numbers are doubles")]
fn number(n: u64) -> Value {
    Value {
        kind: Some(Kind::NumberValue(n as f64)),
    }
}

fn json(value: &serde_json::Value) -> Value {
    let kind = match value {
        serde_json::Value::Null => Kind::NullValue(0),
        serde_json::Value::Bool(b) => Kind::BoolValue(*b),
        serde_json::Value::Number(n) => Kind::NumberValue(n.as_f64().unwrap_or_default()),
        serde_json::Value::String(s) => Kind::StringValue(s.clone()),
        serde_json::Value::Array(items) => Kind::ListValue(ListValue {
            values: items.iter().map(json).collect(),
        }),
        serde_json::Value::Object(map) => {
            let fields = map.iter().map(|(key, value)| (key.clone(), json(value))).collect();
            Kind::StructValue(Struct { fields })
        }
    };
    Value { kind: Some(kind) }
}
