//! The body of a denial: problem+json (RFC 9457, draft-ietf-httpapi-ratelimit-headers), so that a caller sees which
//! quota it hit and whether waiting helps.

use serde::Serialize;

use crate::engine::{Counted, Decision, Status};
use crate::model::time::SECOND_US;

use super::headers::policy_name;

/// Media type of [`problem`].
pub const CONTENT_TYPE: &str = "application/problem+json";
/// Its problem type.
const QUOTA_EXCEEDED: &str = "https://iana.org/assignments/http-problem-types#quota-exceeded";

#[derive(Serialize)]
struct Problem<'a> {
    r#type: &'static str,
    title: &'static str,
    status: u16,
    detail: String,
    #[serde(rename = "violated-policies")]
    violated_policies: Vec<Policy<'a>>,
    /// Seconds; absent when no waiting helps.
    #[serde(rename = "retry-after", skip_serializing_if = "Option::is_none")]
    retry_after: Option<u64>,
}

#[derive(Serialize)]
struct Policy<'a> {
    name: &'a str,
    limit: u32,
    window: String,
    #[serde(rename = "window-seconds")]
    window_seconds: u64,
    remaining: u64,
    #[serde(rename = "retry-after", skip_serializing_if = "Option::is_none")]
    retry_after: Option<u64>,
}

/// The body for a denial with HTTP status `status`; `None` when nothing was denied.
#[must_use]
pub fn problem(decision: &Decision, status: u16) -> Option<Vec<u8>> {
    if !decision.over_limit {
        return None;
    }
    let violated_policies = decision
        .violated()
        .map(|(s, counted)| policy(decision, s, counted))
        .collect();
    let retry_after = decision.retry_after_us().map(whole_seconds);
    let problem = Problem {
        r#type: QUOTA_EXCEEDED,
        title: "Request cannot be satisfied as assigned quota has been exceeded",
        status,
        detail: detail(decision),
        violated_policies,
        retry_after,
    };
    // Room for a body of the usual length, so that it is written in one piece.
    let mut body = Vec::with_capacity(512);
    serde_json::to_writer(&mut body, &problem).ok()?;
    Some(body)
}

/// A denial in a sentence: which quota, and whether waiting helps.
#[must_use]
pub fn detail(decision: &Decision) -> String {
    let first = decision.violated().next();
    let first = first.map_or("a quota", |(status, _)| policy_name(decision, status));
    match decision.retry_after_us().map(whole_seconds) {
        Some(seconds) => format!("Over the limit of \"{first}\". Try again in {seconds} s."),
        None => format!("More than \"{first}\" can ever admit at once. Waiting does not help; ask for less."),
    }
}

/// The body where nothing can be decided (RFC 9457, without a type of its own).
#[must_use]
pub fn unavailable(status: u16, detail: &str) -> String {
    serde_json::json!({ "title": "Service Unavailable", "status": status, "detail": detail }).to_string()
}

fn policy<'a>(decision: &'a Decision, status: &Status, counted: &Counted) -> Policy<'a> {
    Policy {
        name: policy_name(decision, status),
        limit: counted.requests_per_unit,
        window: counted.window.to_string(),
        window_seconds: counted.window.seconds(),
        remaining: counted.outcome.remaining,
        retry_after: counted.retry_after_us().map(whole_seconds),
    }
}

const fn whole_seconds(us: u64) -> u64 {
    let seconds = us.div_ceil(SECOND_US);
    if seconds == 0 { 1 } else { seconds }
}
