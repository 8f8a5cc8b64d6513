//! Wire → model with every bound checked, and model → wire.

use std::borrow::Cow;
use std::fmt::Write;

use crate::engine::{Counted, Decision, Status, StatusLimit};
use crate::mapping::MAX_VALUE_BYTES;
use crate::model::time::SECOND_US;
use crate::model::{Descriptor, Entry, LimitOverride, Request, Settles, Unit, Window};
use crate::proto::envoy::extensions::common::ratelimit::v3 as common;
use crate::proto::envoy::service::ratelimit::v3 as wire;
use crate::proto::envoy::r#type::v3::RateLimitUnit;
use wire::rate_limit_response::{Code, DescriptorStatus, RateLimit, rate_limit::Unit as WireUnit};

/// What a request may hold at most. Envoy itself stays far below (its headers end at 60 KiB).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequestBounds {
    /// Bytes of the encoded message.
    pub message_bytes: usize,
    /// Descriptors in a request.
    pub descriptors: usize,
    /// Entries in a descriptor.
    pub entries: usize,
    /// Bytes of a domain or a key.
    pub key_bytes: usize,
    /// Bytes of a value.
    pub value_bytes: usize,
    /// Headers of a request that comes with its attributes; Envoy's own bound is 100 by default.
    pub headers: usize,
}

impl Default for RequestBounds {
    fn default() -> Self {
        Self {
            message_bytes: 4 << 20,
            descriptors: 256,
            entries: 64,
            key_bytes: 4 << 10,
            value_bytes: MAX_VALUE_BYTES,
            headers: 1000,
        }
    }
}

/// Why a request is refused before it reaches the engine; each names the field.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConvertError {
    /// Something is larger than its bound.
    #[error("{field} has {found} {unit}, at most {max} are allowed")]
    TooLarge {
        /// Path of the field.
        field: String,
        /// How many it has.
        found: usize,
        /// How many it may have.
        max: usize,
        /// Of what.
        unit: &'static str,
    },
    /// A limit with a unit that nobody knows.
    #[error(
        "descriptors[{index}].limit.unit is {unit}: use SECOND (1), MINUTE (2), HOUR (3), DAY (4), MONTH (5), YEAR (6) or WEEK (7)"
    )]
    UnknownUnit {
        /// Which descriptor.
        index: usize,
        /// The number on the wire.
        unit: i32,
    },
    /// `unit_multiplier: 0`.
    #[error("descriptors[{0}].limit.unit_multiplier must be at least 1")]
    ZeroMultiplier(usize),
}

impl ConvertError {
    /// A fixed word for metrics.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::TooLarge { .. } => "too_large",
            Self::UnknownUnit { .. } | Self::ZeroMultiplier(_) => "bad_limit",
        }
    }
}

/// Reads a request; strings move, nothing is copied.
///
/// # Errors
/// [`ConvertError`] names the field and the bound.
pub fn request(wire: wire::RateLimitRequest, bounds: &RequestBounds) -> Result<Request, ConvertError> {
    bounded(|| "domain".into(), wire.domain.len(), bounds.key_bytes, "bytes")?;
    bounded(
        || "descriptors".into(),
        wire.descriptors.len(),
        bounds.descriptors,
        "descriptors",
    )?;
    let convert = |(index, d)| descriptor(index, d, bounds);
    let descriptors = wire
        .descriptors
        .into_iter()
        .enumerate()
        .map(convert)
        .collect::<Result<_, _>>()?;
    Ok(Request {
        domain: wire.domain,
        descriptors,
        hits_addend: wire.hits_addend,
        releases_all: false,
    })
}

fn bounded(
    field: impl Fn() -> Cow<'static, str>,
    found: usize,
    max: usize,
    unit: &'static str,
) -> Result<(), ConvertError> {
    if found <= max {
        return Ok(());
    }
    Err(ConvertError::TooLarge {
        field: field().into_owned(),
        found,
        max,
        unit,
    })
}

fn descriptor(
    index: usize,
    wire: common::RateLimitDescriptor,
    bounds: &RequestBounds,
) -> Result<Descriptor, ConvertError> {
    // It may have no entries: Envoy sends it so where each of its actions had nothing to say (`skip_if_absent`), and to
    // refuse it would let the whole request pass. No rule applies to it.
    bounded(
        || format!("descriptors[{index}].entries").into(),
        wire.entries.len(),
        bounds.entries,
        "entries",
    )?;
    for (at, entry) in wire.entries.iter().enumerate() {
        let field = |name: &str| format!("descriptors[{index}].entries[{at}].{name}").into();
        bounded(|| field("key"), entry.key.len(), bounds.key_bytes, "bytes")?;
        bounded(|| field("value"), entry.value.len(), bounds.value_bytes, "bytes")?;
    }
    let entries = wire.entries.into_iter().map(|entry| Entry {
        key: text(entry.key),
        value: text(entry.value),
    });
    let mut entries = entries.collect();
    Ok(Descriptor {
        limit: wire.limit.map(|limit| limit_override(index, limit)).transpose()?,
        settles: Settles::take(&mut entries),
        entries,
        hits_addend: wire.hits_addend,
        is_negative_hits: wire.is_negative_hits,
    })
}

/// A text. Bytes that are no UTF-8 are written as `\xHH`; so is the backslash of a text that looks like that, so that
/// different bytes stay different texts, and thereby different counters.
fn text(bytes: Vec<u8>) -> String {
    match String::from_utf8(bytes) {
        Ok(text) if !looks_escaped(&text) => text,
        Ok(text) => escaped(text.as_bytes()),
        Err(error) => escaped(error.as_bytes()),
    }
}

/// Whether something in it looks like what [`escaped`] writes.
#[must_use]
pub fn looks_escaped(text: &str) -> bool {
    text.contains("\\x") && text.match_indices('\\').any(|(at, _)| is_escape(&text[at..]))
}

fn is_escape(text: &str) -> bool {
    let hex = |b: &u8| b.is_ascii_digit() || (b'A'..=b'F').contains(b);
    matches!(text.as_bytes(), [b'\\', b'x', high, low, ..] if hex(high) && hex(low))
}

/// Bytes as text, with `\xHH` for each that belongs to no character and for backslashes that would read as such.
#[must_use]
pub fn escaped(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() + 8);
    // Writing to a String cannot fail.
    let write = |text: &mut String, byte: u8| {
        let _ = write!(text, "\\x{byte:02X}");
    };
    for chunk in bytes.utf8_chunks() {
        for (at, character) in chunk.valid().char_indices() {
            if character == '\\' && is_escape(&chunk.valid()[at..]) {
                write(&mut text, b'\\');
            } else {
                text.push(character);
            }
        }
        for byte in chunk.invalid() {
            write(&mut text, *byte);
        }
    }
    text
}

fn limit_override(
    index: usize,
    wire: common::rate_limit_descriptor::RateLimitOverride,
) -> Result<LimitOverride, ConvertError> {
    let unit = match RateLimitUnit::try_from(wire.unit) {
        Ok(RateLimitUnit::Second) => Unit::Second,
        Ok(RateLimitUnit::Minute) => Unit::Minute,
        Ok(RateLimitUnit::Hour) => Unit::Hour,
        Ok(RateLimitUnit::Day) => Unit::Day,
        Ok(RateLimitUnit::Week) => Unit::Week,
        Ok(RateLimitUnit::Month) => Unit::Month,
        Ok(RateLimitUnit::Year) => Unit::Year,
        Ok(RateLimitUnit::Unknown) | Err(_) => return Err(ConvertError::UnknownUnit { index, unit: wire.unit }),
    };
    match wire.unit_multiplier {
        Some(0) => Err(ConvertError::ZeroMultiplier(index)),
        multiplier => Ok(LimitOverride {
            requests_per_unit: wire.requests_per_unit,
            window: Window::times(unit, multiplier.unwrap_or(1)),
        }),
    }
}

/// Writes the codes and statuses of an answer: one status a descriptor, of the limit that [is reported](Decision::reported) for it.
///
/// Envoy writes `x-ratelimit-limit`, `-remaining` and `-reset` of the status with the least `limit_remaining` (the first
/// of several), so that has to be [`Decision::tightest_in_headers`]; [`announced_remaining`] sees to it.
#[must_use]
pub fn response(decision: &Decision) -> wire::RateLimitResponse {
    let denying = decision.tightest_in_headers().map(|(status, _)| status);
    let denying = denying
        .filter(|status| status.over_limit)
        .map(|status| status.descriptor);
    wire::RateLimitResponse {
        overall_code: code(decision.over_limit),
        statuses: decision
            .reported()
            .map(|at| descriptor_status(decision, &decision.statuses[at], denying))
            .collect(),
        ..Default::default()
    }
}

/// `limit_remaining` of a status where that of the descriptor `denying` denies, if any does: 0 for that one and for
/// others that deny, as in envoyproxy/ratelimit; at least 1 for those before it, which Envoy would choose at 0.
fn announced_remaining(status: &Status, counted: &Counted, denying: Option<usize>) -> u32 {
    let left = if status.over_limit {
        0
    } else {
        counted.outcome.remaining
    };
    let least = u64::from(denying.is_some_and(|denying| status.descriptor < denying));
    u32::try_from(left.max(least)).unwrap_or(u32::MAX)
}

fn code(over_limit: bool) -> i32 {
    (if over_limit { Code::OverLimit } else { Code::Ok }).into()
}

fn descriptor_status(decision: &Decision, status: &Status, denying: Option<usize>) -> DescriptorStatus {
    match &status.limit {
        StatusLimit::None => DescriptorStatus {
            code: code(false),
            ..Default::default()
        },
        StatusLimit::Unlimited { .. } => DescriptorStatus {
            code: code(false),
            limit_remaining: u32::MAX,
            ..Default::default()
        },
        StatusLimit::Counted(_) if !decision.is_in_headers(status) => DescriptorStatus {
            code: code(status.over_limit),
            ..Default::default()
        },
        StatusLimit::Counted(counted) => DescriptorStatus {
            code: code(status.over_limit),
            current_limit: Some(current_limit(decision, status, counted)),
            limit_remaining: announced_remaining(status, counted, denying),
            duration_until_reset: Some(whole_seconds(counted.until_reset_us())),
        },
    }
}

fn current_limit(decision: &Decision, status: &Status, counted: &Counted) -> RateLimit {
    RateLimit {
        requests_per_unit: counted.requests_per_unit,
        unit: unit(counted.window.unit).into(),
        name: decision
            .rule(status)
            .map(|rule| rule.name.to_string())
            .unwrap_or_default(),
        unit_multiplier: (counted.window.multiplier != 1).then_some(counted.window.multiplier),
    }
}

const fn unit(unit: Unit) -> WireUnit {
    match unit {
        Unit::Second => WireUnit::Second,
        Unit::Minute => WireUnit::Minute,
        Unit::Hour => WireUnit::Hour,
        Unit::Day => WireUnit::Day,
        Unit::Week => WireUnit::Week,
        Unit::Month => WireUnit::Month,
        Unit::Year => WireUnit::Year,
    }
}

/// Rounded up, since Envoy's `x-ratelimit-reset` cuts fractions off: a client that waits as long must not come too early.
fn whole_seconds(us: u64) -> prost_types::Duration {
    prost_types::Duration {
        seconds: i64::try_from(us.div_ceil(SECOND_US)).unwrap_or(i64::MAX),
        nanos: 0,
    }
}
