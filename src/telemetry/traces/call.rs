//! The span of one call, or nothing.

use opentelemetry::KeyValue;
use opentelemetry::trace::{Span as _, Status as SpanStatus};
use opentelemetry_sdk::trace::Span;
use tonic::{Code, Status};

/// Bytes of a text that are kept of an attribute.
const MAX_TEXT: usize = 128;

/// A call's span; off where nothing is traced, or this call is not sampled. It ends when it is dropped, so also when the
/// caller leaves.
#[derive(Debug, Default)]
pub struct CallSpan(Option<Box<Span>>);

impl CallSpan {
    /// Of the call of this method (`package.Service/Method`).
    pub(super) fn new(method: &'static str, mut span: Span) -> Self {
        if !span.is_recording() {
            return Self(None);
        }
        // Names of OpenTelemetry's semantic conventions for gRPC servers.
        let (service, name) = method.split_once('/').unwrap_or((method, ""));
        for (key, value) in [("rpc.system", "grpc"), ("rpc.service", service), ("rpc.method", name)] {
            span.set_attribute(KeyValue::new(key, value));
        }
        Self(Some(Box::new(span)))
    }

    /// Whether anything that is noted is kept.
    #[must_use]
    pub const fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// Notes a text; long ones are cut, control characters escaped.
    pub fn note(&mut self, name: &'static str, value: &str) {
        if let Some(span) = &mut self.0 {
            span.set_attribute(KeyValue::new(name, bounded(value)));
        }
    }

    /// Notes how the call was answered, and ends the span.
    pub fn end(self, refusal: Option<&Status>) {
        let Some(mut span) = self.0 else {
            return;
        };
        let code = refusal.map_or(Code::Ok, Status::code);
        span.set_attribute(KeyValue::new("rpc.grpc.status_code", i64::from(i32::from(code))));
        if let (Some(status), true) = (refusal, is_fault(code)) {
            span.set_status(SpanStatus::error(bounded(status.message())));
        }
        span.end();
    }
}

/// Whether the conventions call it an error of the server; what a client did wrong is none.
const fn is_fault(code: Code) -> bool {
    matches!(
        code,
        Code::Unknown
            | Code::DeadlineExceeded
            | Code::Unimplemented
            | Code::Internal
            | Code::Unavailable
            | Code::DataLoss
    )
}

fn bounded(text: &str) -> String {
    let kept = &text[..text.floor_char_boundary(MAX_TEXT)];
    let mut out = String::with_capacity(kept.len());
    for c in kept.chars() {
        if c.is_control() {
            out.extend(c.escape_default());
        } else {
            out.push(c);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_cut_between_characters_and_controls_are_escaped() {
        assert_eq!(bounded("a\n\u{1b}[31mé"), "a\\n\\u{1b}[31mé");
        let long = format!("a{}", "é".repeat(100));
        assert_eq!(bounded(&long), format!("a{}", "é".repeat(63)));
    }
}
