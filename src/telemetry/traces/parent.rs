//! Which trace a call belongs to: W3C's `traceparent` and `tracestate`, or Zipkin's B3 headers, as Envoy sends them to
//! the services that it asks. Where both are there B3 holds, as in envoyproxy/ratelimit.

use opentelemetry::Context;
use opentelemetry::propagation::{Extractor, TextMapPropagator};
use opentelemetry::trace::{SpanContext, SpanId, TraceContextExt, TraceFlags, TraceId, TraceState};
use opentelemetry_sdk::propagation::TraceContextPropagator;
use tonic::metadata::MetadataMap;

/// Longest value that is read, in bytes; what W3C asks everybody to pass on of a `tracestate`. A span keeps it.
const MAX_VALUE: usize = 512;

/// The headers of a call.
struct Headers<'a>(&'a MetadataMap);

impl Extractor for Headers<'_> {
    fn get(&self, name: &str) -> Option<&str> {
        let value = self.0.get(name)?.to_str().ok()?;
        (value.len() <= MAX_VALUE).then_some(value)
    }

    fn keys(&self) -> Vec<&str> {
        // Nobody who reads a trace's context asks for names.
        Vec::new()
    }
}

/// The caller's span, if it says that it has one.
pub(super) fn of(metadata: &MetadataMap) -> Context {
    let (headers, nobody) = (Headers(metadata), Context::new());
    match b3(&headers) {
        Some(parent) => nobody.with_remote_span_context(parent),
        None => TraceContextPropagator::new().extract_with_context(&nobody, &headers),
    }
}

/// <https://github.com/openzipkin/b3-propagation>; the one header before the several.
fn b3(headers: &Headers<'_>) -> Option<SpanContext> {
    headers.get("b3").and_then(single).or_else(|| several(headers))
}

/// `{trace}-{span}[-{sampled}[-{parent}]]`
fn single(value: &str) -> Option<SpanContext> {
    let mut parts = value.split('-');
    let (trace, span) = (parts.next()?, parts.next()?);
    let sampled = match parts.next() {
        // Left to us where nothing is said; envoyproxy/ratelimit takes that for no, too.
        None | Some("0") => false,
        Some("1" | "d") => true,
        Some(_) => return None,
    };
    context(trace, span, sampled)
}

fn several(headers: &Headers<'_>) -> Option<SpanContext> {
    let sampled = match headers.get("x-b3-sampled") {
        None | Some("0" | "false") => false,
        Some("1" | "true") => true,
        Some(_) => return None,
    };
    let debug = headers.get("x-b3-flags") == Some("1");
    context(
        headers.get("x-b3-traceid")?,
        headers.get("x-b3-spanid")?,
        sampled || debug,
    )
}

fn context(trace: &str, span: &str, sampled: bool) -> Option<SpanContext> {
    let is_hex = |text: &str| text.bytes().all(|byte| byte.is_ascii_hexdigit());
    if !matches!(trace.len(), 16 | 32) || span.len() != 16 || !is_hex(trace) || !is_hex(span) {
        return None;
    }
    let (trace, span) = (TraceId::from_hex(trace).ok()?, SpanId::from_hex(span).ok()?);
    let flags = TraceFlags::default().with_sampled(sampled);
    let context = SpanContext::new(trace, span, flags, true, TraceState::default());
    context.is_valid().then_some(context)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
    const SPAN: &str = "00f067aa0ba902b7";

    /// Trace, span, whether it is sampled.
    fn parent(headers: &[(&'static str, &str)]) -> Option<(String, String, bool)> {
        let mut metadata = MetadataMap::new();
        for (name, value) in headers {
            metadata.insert(*name, value.parse().unwrap());
        }
        let context = of(&metadata);
        let span = context.span();
        let parent = span.span_context();
        let ids = (parent.trace_id().to_string(), parent.span_id().to_string());
        (parent.is_valid() && parent.is_remote()).then(|| (ids.0, ids.1, parent.is_sampled()))
    }

    fn this(sampled: bool) -> Option<(String, String, bool)> {
        Some((TRACE.into(), SPAN.into(), sampled))
    }

    #[test]
    fn w3c() {
        for (flags, sampled) in [("00", false), ("01", true)] {
            let value = format!("00-{TRACE}-{SPAN}-{flags}");
            assert_eq!(parent(&[("traceparent", &value)]), this(sampled));
        }
        for bad in [
            "",
            "00-0-0-01",
            &format!("00-{TRACE}-0000000000000000-01"),
            &"f".repeat(4096),
        ] {
            assert_eq!(parent(&[("traceparent", bad)]), None, "{bad}");
        }
        assert_eq!(parent(&[]), None);
    }

    #[test]
    fn a_long_tracestate_is_left_out() {
        let traceparent = format!("00-{TRACE}-{SPAN}-01");
        for (length, kept) in [(500, true), (600, false)] {
            let mut metadata = MetadataMap::new();
            metadata.insert("traceparent", traceparent.parse().unwrap());
            let state = format!("a={},b={}", "x".repeat(length / 2), "y".repeat(length / 2 - 5));
            metadata.insert("tracestate", state.parse().unwrap());
            let context = of(&metadata);
            assert_eq!(
                context.span().span_context().trace_state().get("a").is_some(),
                kept,
                "{length}"
            );
        }
    }

    #[test]
    fn b3_in_one_header_or_several() {
        for (tail, sampled) in [
            ("", false),
            ("-0", false),
            ("-1", true),
            ("-d", true),
            ("-1-05e3ac9a4f6e3b90", true),
        ] {
            assert_eq!(
                parent(&[("b3", &format!("{TRACE}-{SPAN}{tail}"))]),
                this(sampled),
                "{tail}"
            );
        }
        let several = [("x-b3-traceid", TRACE), ("x-b3-spanid", SPAN)];
        for (name, value, sampled) in [
            ("x-b3-sampled", "1", true),
            ("x-b3-sampled", "true", true),
            ("x-b3-sampled", "0", false),
            ("x-b3-flags", "1", true),
        ] {
            assert_eq!(
                parent(&[&several[..], &[(name, value)]].concat()),
                this(sampled),
                "{name}: {value}"
            );
        }
        // 64 bits; and B3 before W3C.
        let w3c = format!("00-{TRACE}-{SPAN}-01");
        let both = [("b3", "a3ce929d0e0e4736-00f067aa0ba902b7-1"), ("traceparent", &w3c)];
        let trace = parent(&both).map(|(trace, ..)| trace);
        assert_eq!(trace.as_deref(), Some("0000000000000000a3ce929d0e0e4736"));
        for bad in [
            "0",
            "-",
            "+bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-1",
            &format!("{TRACE}-{SPAN}-x"),
        ] {
            assert_eq!(parent(&[("b3", bad)]), None, "{bad}");
            assert_eq!(parent(&[("b3", bad), ("traceparent", &w3c)]), this(true), "{bad}");
        }
        assert_eq!(parent(&[("x-b3-traceid", TRACE)]), None);
    }
}
