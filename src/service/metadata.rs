//! Dynamic metadata: how Envoy's access log learns which rule fired
//! (`%DYNAMIC_METADATA(envoy.filters.http.ratelimit:sluicegate:rule)%`).

use std::fmt::Write;

use serde_json::{Map, Value as Json};
use smallvec::SmallVec;

use crate::engine::{Counted, Decision, PERMIT_TAG, Status};
use crate::model::Request;
use crate::model::time::SECOND_US;

use super::encoded::{Fields, Value, Values};
use super::headers::policy_name;

/// An encoded `google.protobuf.Struct`; empty = none.
///
/// Under `sluicegate`, for a request that holds hits: how many, and by which id they are settled ([`set_hold`]); for one
/// that took permits of `concurrency` limits: how many, for Envoy to release when its stream is done ([`set_slots`]); where
/// quotas are used up: which ones. On a denial, and with `always` on every answer: the rule that fired first and all that
/// did, or the tightest. With `always` also what envoyproxy/ratelimit sends (`RESPONSE_DYNAMIC_METADATA`): the request's
/// `domain`, `descriptors` and `hitsAddend`, and under `metadata` that of all rules that let their descriptor pass, merged,
/// the first one holding.
#[must_use]
pub fn dynamic(decision: &Decision, asked: &Request, always: bool) -> Vec<u8> {
    let mut fields = Fields::default();
    if !always && !decision.over_limit {
        let mut ours = Fields::default();
        let holds = set_hold(&mut ours, decision) | set_slots(&mut ours, decision);
        if set_exhausted(&mut ours, decision) | holds {
            fields.set("sluicegate", Value::Struct(&ours));
        }
        return fields.into_bytes();
    }
    if always {
        echo(&mut fields, asked);
        set_merged(&mut fields, decision, |status| !status.over_limit);
    }
    fields.set("sluicegate", Value::Struct(&ours(decision, &asked.domain)));
    fields.into_bytes()
}

/// Bytes of the request's text that are echoed at most: an answer must not grow with what a client sends.
const MAX_ECHO: usize = 16 << 10;
/// Of these, for one entry.
const MAX_ECHO_OF_ENTRY: usize = 1 << 10;

/// What was asked, in the words of envoyproxy/ratelimit; cut where it is long.
fn echo(fields: &mut Fields, asked: &Request) {
    fields.set("domain", Value::String(&asked.domain));
    let mut left = MAX_ECHO;
    let mut descriptors = Values::default();
    for descriptor in &asked.descriptors {
        if left == 0 {
            break;
        }
        let (mut one, mut entries) = (Fields::default(), Values::default());
        for entry in &descriptor.entries {
            let text = format!("{}={}", entry.key, entry.value);
            let text = &text[..text.floor_char_boundary(left.min(MAX_ECHO_OF_ENTRY))];
            left -= text.len();
            entries.push(Value::String(text));
        }
        one.set("entries", Value::List(&entries));
        if let Some(limit) = descriptor.limit {
            let unit = limit.window.unit.name().to_ascii_uppercase();
            let mut text = format!("requests_per_unit:{} unit:{unit}", limit.requests_per_unit);
            if limit.window.multiplier != 1 {
                // Writing to a String cannot fail.
                let _ = write!(text, " unit_multiplier:{}", limit.window.multiplier);
            }
            one.set("limit", Value::String(&text));
        }
        if let Some(hits) = descriptor.hits_addend {
            one.set("hitsAddend", Value::Number(hits));
        }
        descriptors.push(Value::Struct(&one));
    }
    fields.set("descriptors", Value::List(&descriptors));
    if asked.hits_addend != 0 {
        fields.set("hitsAddend", Value::Number(asked.hits_addend.into()));
    }
}

/// Under `metadata` the merged one of the rules behind the statuses that `choose` picks, if there is any.
fn set_merged(fields: &mut Fields, decision: &Decision, choose: impl Fn(&Status) -> bool) {
    let chosen = decision.statuses.iter().filter(|status| choose(status));
    let mut maps = chosen.filter_map(|status| decision.rule(status)?.metadata.as_deref());
    let Some(first) = maps.next() else {
        return;
    };
    let mut merged = first.clone();
    for map in maps {
        merge(&mut merged, map);
    }
    fields.set("metadata", Value::Json(&Json::Object(merged)));
}

/// Adds what `into` does not have; objects are merged, whatever else is there stays.
fn merge(into: &mut Map<String, Json>, from: &Map<String, Json>) {
    for (key, value) in from {
        match (into.get_mut(key), value) {
            (Some(Json::Object(into)), Json::Object(from)) => merge(into, from),
            (Some(_), _) => {}
            (None, value) => {
                into.insert(key.clone(), value.clone());
            }
        }
    }
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

/// What an admitted request holds of `concurrency` limits; `false` where it holds nothing.
///
/// `slots` (the field's public name) is the number of permits that it holds of each of them (of the one that it holds
/// least of, so that no more are released than were taken); absent if one counted nothing. A limit that it passed without
/// a permit (shadow mode) does not keep the others from getting theirs back. `slots_of` has each limit's own number by the limit's name. All with [`PERMIT_TAG`] added, so that
/// the release made of it is known for one.
fn set_slots(fields: &mut Fields, decision: &Decision) -> bool {
    let is_shadow = |status| decision.rule(status).is_some_and(|rule| rule.shadow_mode);
    let counted = decision
        .permits()
        .filter(|(status, permits)| *permits > 0 || !is_shadow(status));
    let Some(least) = counted.map(|(_, permits)| permits).min() else {
        return false;
    };
    let mut held: SmallVec<[(&str, u64); 2]> = SmallVec::new();
    for (status, permits) in decision.permits() {
        let name = policy_name(decision, status);
        match held.iter_mut().find(|(known, _)| *known == name) {
            Some((_, known)) => *known = permits.min(*known),
            None => held.push((name, permits)),
        }
    }
    held.retain(|(_, permits)| *permits > 0);
    if held.is_empty() {
        return false;
    }
    if least > 0 {
        fields.set("slots", Value::Number(PERMIT_TAG + least));
    }
    let mut each = Fields::default();
    for (name, permits) in held {
        each.set(name, Value::Number(PERMIT_TAG + permits));
    }
    fields.set("slots_of", Value::Struct(&each));
    true
}

/// What an admitted request holds, to be settled by `hold_id` when it is done; `false` where it holds nothing.
///
/// `hold` is what it holds of each limit (of the one that it holds most of, so that a charge in place of an unknown cost
/// is never too small); `hold_of` has each limit's own number by the limit's name.
fn set_hold(fields: &mut Fields, decision: &Decision) -> bool {
    let Some(id) = decision.hold else {
        return false;
    };
    let (mut each, mut most) = (Fields::default(), 0);
    for (status, hits) in decision.holds() {
        each.set(policy_name(decision, status), Value::Number(hits));
        most = most.max(hits);
    }
    fields.set("hold", Value::Number(most));
    fields.set("hold_id", Value::String(&id.to_string()));
    fields.set("hold_of", Value::Struct(&each));
    true
}

/// Under `exhausted` the quotas that are used up, for a route that falls back to another model; `false` where none is.
fn set_exhausted(fields: &mut Fields, decision: &Decision) -> bool {
    let mut exhausted = Values::default();
    for status in decision.exhausted() {
        exhausted.push(Value::String(policy_name(decision, status)));
    }
    if exhausted.is_empty() {
        return false;
    }
    fields.set("exhausted", Value::List(&exhausted));
    true
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
    set_hold(&mut fields, decision);
    set_slots(&mut fields, decision);
    set_exhausted(&mut fields, decision);
    let mut violated = Values::default();
    for (status, _) in decision.violated() {
        violated.push(Value::String(policy_name(decision, status)));
    }
    if !violated.is_empty() {
        fields.set("violated", Value::List(&violated));
        set_merged(&mut fields, decision, |status| status.over_limit);
    }
    fields
}

fn about(fields: &mut Fields, decision: &Decision, status: &Status, counted: &Counted) {
    let path = decision.rule(status).map_or("override", |rule| &rule.path);
    fields.set("rule", Value::String(policy_name(decision, status)));
    fields.set("path", Value::String(path));
    fields.set("limit", Value::Number(counted.requests_per_unit.into()));
    fields.set("window_seconds", Value::Number(counted.window_seconds));
    fields.set("remaining", Value::Number(counted.outcome.remaining));
    if let (true, Some(us)) = (counted.denied, counted.retry_after_us()) {
        fields.set("retry_after_seconds", Value::Number(us.div_ceil(SECOND_US).max(1)));
    }
}
