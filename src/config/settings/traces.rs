//! Which spans are made, and where they go.

use std::collections::BTreeMap;
use std::time::Duration;

use super::secret::Secret;
use crate::tls::ClientTls;

/// A span of each call, sent by OTLP (`TRACING_ENABLED`).
#[derive(Debug, Clone, PartialEq)]
pub struct TraceSettings {
    /// `service.name`
    pub service_name: String,
    /// `service.namespace`; empty = none.
    pub service_namespace: String,
    /// `service.instance.id`; `None` = a random UUID.
    pub service_instance_id: Option<String>,
    /// What else spans say of where they come from (`OTEL_RESOURCE_ATTRIBUTES`).
    pub resource: BTreeMap<String, String>,
    /// The part of the traces that is sampled, 0 to 1; where the caller has a trace, its own decision holds.
    pub sampling_rate: f64,
    /// How spans wait.
    pub batches: SpanBatches,
    /// Where they go.
    pub otlp: OtlpSettings,
}

/// How spans wait until they are sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpanBatches {
    /// Spans that wait at most; more are dropped. At least 1.
    pub max_waiting: usize,
    /// Spans that are sent together at most. At least 1, at most `max_waiting`.
    pub max_spans: usize,
    /// The longest that the first span of a batch waits for others.
    pub delay: Duration,
}

/// A collector.
#[derive(Debug, Clone, PartialEq)]
pub struct OtlpSettings {
    /// How it is spoken to.
    pub protocol: OtlpProtocol,
    /// `host:port`
    pub address: String,
    /// Starts with `/`; `/` for gRPC, which has paths of its own.
    pub path: String,
    /// TLS, possibly with a certificate of ours; `None` = plain text.
    pub tls: Option<ClientTls>,
    /// Sent with each batch, names in lower case; values may be tokens.
    pub headers: BTreeMap<String, Secret>,
    /// Whether batches are compressed.
    pub gzip: bool,
    /// How long sending a batch may take, with all attempts.
    pub timeout: Duration,
}

/// How OTLP travels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OtlpProtocol {
    /// Protobuf in HTTP/1.1 requests.
    Http,
    /// gRPC.
    Grpc,
}

impl OtlpProtocol {
    /// As `TRACING_EXPORTER_PROTOCOL` says it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Grpc => "grpc",
        }
    }

    /// The port of a collector that is not named.
    #[must_use]
    pub const fn port(self) -> u16 {
        match self {
            Self::Http => 4318,
            Self::Grpc => 4317,
        }
    }
}

impl Default for SpanBatches {
    /// What OpenTelemetry's specification says.
    fn default() -> Self {
        Self {
            max_waiting: 2048,
            max_spans: 512,
            delay: Duration::from_secs(5),
        }
    }
}
