//! Traces: a span of each call, sent by OTLP through OpenTelemetry's SDK and its exporter.
//!
//! A call makes its span, with the caller's as its parent, and leaves it in a bounded queue when it ends; a task sends
//! what waits there. No call waits for a collector: while none answers spans are dropped, and counted.

mod call;
mod collector;
mod error;
mod export;
mod parent;

use opentelemetry::trace::{SpanBuilder, SpanKind, Tracer as _, TracerProvider as _};
use opentelemetry::{InstrumentationScope, KeyValue};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::resource::TelemetryResourceDetector;
use opentelemetry_sdk::trace::{Sampler, SdkTracer, SdkTracerProvider};
use tonic::metadata::MetadataMap;

use super::Metrics;
use crate::config::settings::TraceSettings;

pub use call::CallSpan;
use collector::Collector;
pub use error::TraceError;
pub use export::Export;

/// Makes the spans of calls.
#[derive(Debug, Clone)]
pub struct Traces(SdkTracer);

impl Traces {
    /// Starts the task that sends; connects to nothing yet. Needs a tokio runtime.
    ///
    /// # Errors
    /// When a file cannot be used. A collector that is away is no error.
    pub fn start(settings: &TraceSettings, metrics: &Metrics) -> Result<(Self, Export), TraceError> {
        let resource = resource(settings);
        let collector = Collector::new(&settings.otlp, &resource)?;
        let (queue, export) = Export::start(settings, collector, metrics);
        let sampler = Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(settings.sampling_rate)));
        let provider = SdkTracerProvider::builder()
            .with_sampler(sampler)
            .with_resource(resource)
            .with_span_processor(queue)
            .build();
        let scope = InstrumentationScope::builder(env!("CARGO_PKG_NAME"))
            .with_version(env!("CARGO_PKG_VERSION"))
            .build();
        tracing::info!(
            collector = settings.otlp.address,
            protocol = settings.otlp.protocol.name(),
            sampling_rate = settings.sampling_rate,
            service = settings.service_name,
            "a span of each call is sent"
        );
        Ok((Self(provider.tracer_with_scope(scope)), export))
    }

    /// The span of a call that has just come, by its full gRPC name (`package.Service/Method`). The metadata says which
    /// trace it belongs to; if that is not sampled the span is off.
    #[must_use]
    pub fn begin(&self, method: &'static str, metadata: &MetadataMap) -> CallSpan {
        let builder = SpanBuilder::from_name(method).with_kind(SpanKind::Server);
        CallSpan::new(method, self.0.build_with_context(builder, &parent::of(metadata)))
    }
}

/// Where spans come from.
fn resource(settings: &TraceSettings) -> Resource {
    let mut attributes: Vec<KeyValue> = settings
        .resource
        .iter()
        .map(|(name, value)| KeyValue::new(name.clone(), value.clone()))
        .collect();
    let instance = settings.service_instance_id.clone().unwrap_or_else(uuid);
    attributes.push(KeyValue::new("service.name", settings.service_name.clone()));
    attributes.push(KeyValue::new("service.instance.id", instance));
    if !settings.service_namespace.is_empty() {
        attributes.push(KeyValue::new("service.namespace", settings.service_namespace.clone()));
    }
    Resource::builder_empty()
        .with_detector(Box::new(TelemetryResourceDetector))
        .with_attributes(attributes)
        .build()
}

/// A random UUID (version 4).
fn uuid() -> String {
    let random: u128 = rand::random();
    let bits = random & !(0xf << 76) & !(0x3 << 62) | (0x4 << 76) | (0x2 << 62);
    let hex = format!("{bits:032x}");
    [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instances_are_told_apart_by_random_uuids() {
        let (one, other) = (uuid(), uuid());
        assert_ne!(one, other);
        let parts: Vec<_> = one.split('-').collect();
        assert_eq!(
            parts.iter().map(|part| part.len()).collect::<Vec<_>>(),
            [8, 4, 4, 4, 12]
        );
        assert!(
            parts[2].starts_with('4') && parts[3].starts_with(['8', '9', 'a', 'b']),
            "{one}"
        );
    }
}
