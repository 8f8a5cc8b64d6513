//! What can go wrong between the start and the end of the process.

use crate::telemetry::traces::TraceError;

/// Why the process cannot start, or had to stop.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// An address cannot be listened on.
    #[error("cannot listen on {addr} for {what} ({flag}): {error}")]
    Listen {
        /// What for.
        what: &'static str,
        /// The flag that sets it, or the variables that do.
        flag: &'static str,
        /// Where.
        addr: String,
        /// Why.
        error: std::io::Error,
    },
    /// The rules cannot be used.
    #[error("{0}")]
    Rules(String),
    /// The certificate, the key or the CA of a listener cannot be used.
    #[error("TLS on the {0} listener: {1}")]
    Tls(&'static str, String),
    /// The token of the admin API cannot be used.
    #[error("--admin-token-file: {0}")]
    AdminToken(String),
    /// The store cannot be used as configured.
    #[error("store: {0}")]
    Store(String),
    /// A metric cannot be registered; a mistake in this program.
    #[error("metrics: {0}")]
    Metrics(#[from] prometheus::Error),
    /// Nothing can be sent to statsd.
    #[error("no thread for statsd: {0}")]
    Statsd(std::io::Error),
    /// Spans cannot be sent as configured.
    #[error("traces (OTEL_EXPORTER_OTLP_…): {0}")]
    Traces(#[from] TraceError),
    /// The binary's own protobuf descriptors are broken; a mistake in this program.
    #[error("protobuf descriptors: {0}")]
    Descriptors(String),
    /// The gRPC transport failed as a whole.
    #[error("gRPC server: {0}")]
    Grpc(std::io::Error),
    /// An HTTP listener failed as a whole.
    #[error("HTTP server: {0}")]
    Http(std::io::Error),
}
