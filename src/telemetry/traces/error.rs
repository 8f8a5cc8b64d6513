//! What can be wrong with the settings of traces.

use crate::tls::TlsError;

/// Why spans cannot be sent.
#[derive(Debug, thiserror::Error)]
pub enum TraceError {
    /// Certificates that cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The exporter does not take its settings.
    #[error("{0}")]
    Exporter(String),
}
