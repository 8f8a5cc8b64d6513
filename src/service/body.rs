//! The body of a denial: problem+json (RFC 9457, draft-ietf-httpapi-ratelimit-headers), so that a caller sees which
//! quota it hit and whether waiting helps.

use std::borrow::Cow;

use serde::Serialize;

use crate::engine::{Counted, Decision, Status, StatusLimit};
use crate::model::time::SECOND_US;

use super::headers::public_name;

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
    name: Cow<'a, str>,
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
    let violated_policies = violated(decision)
        .map(|(index, status, counted)| policy(decision, index, status, counted))
        .collect();
    let retry_after = decision.retry_after_of(|rule| rule.body).map(whole_seconds);
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

/// The statuses that deny and that clients are told of, each with its place and its limit.
fn violated(decision: &Decision) -> impl Iterator<Item = (usize, &Status, &Counted)> {
    let denying = decision
        .statuses
        .iter()
        .enumerate()
        .filter(|(_, status)| status.over_limit && decision.rule(status).is_none_or(|rule| rule.body));
    denying.filter_map(|(index, status)| match &status.limit {
        StatusLimit::Counted(counted) => Some((index, status, counted)),
        StatusLimit::None | StatusLimit::Unlimited { .. } => None,
    })
}

/// A denial in a sentence: which quota, and whether waiting helps.
#[must_use]
pub fn detail(decision: &Decision) -> String {
    let Some((_, status, _)) = violated(decision).next() else {
        return "Over a rate limit.".to_owned();
    };
    let rule = decision.rule(status);
    let named = rule.map(|rule| &*rule.name).filter(|name| !name.is_empty());
    let (over, more_than) = match named {
        Some(name) => (format!("the limit of \"{name}\""), format!("\"{name}\"")),
        None => ("a rate limit".to_owned(), "a rate limit".to_owned()),
    };
    match decision.retry_after_of(|rule| rule.body).map(whole_seconds) {
        Some(seconds) => format!("Over {over}. Try again in {seconds} s."),
        None => format!("More than {more_than} can ever admit at once. Waiting does not help; ask for less."),
    }
}

/// The body where nothing can be decided (RFC 9457, without a type of its own).
#[must_use]
pub fn unavailable(status: u16, detail: &str) -> String {
    serde_json::json!({ "title": "Service Unavailable", "status": status, "detail": detail }).to_string()
}

fn policy<'a>(decision: &'a Decision, index: usize, status: &Status, counted: &Counted) -> Policy<'a> {
    Policy {
        name: public_name(decision, index, status),
        limit: counted.requests_per_unit,
        window: counted.window.to_string(),
        window_seconds: counted.window_seconds,
        remaining: counted.outcome.remaining,
        retry_after: counted.retry_after_us().map(whole_seconds),
    }
}

const fn whole_seconds(us: u64) -> u64 {
    let seconds = us.div_ceil(SECOND_US);
    if seconds == 0 { 1 } else { seconds }
}
