//! How to reach a control plane.

use std::collections::BTreeMap;
use std::time::Duration;

use super::secret::Secret;
use crate::tls::ClientTls;

/// An ADS server that sends `RateLimitConfig` resources (`CONFIG_TYPE=GRPC_XDS_SOTW`).
#[derive(Debug, Clone, PartialEq)]
pub struct XdsSettings {
    /// `host:port`.
    pub server: String,
    /// Who we say we are.
    pub node_id: String,
    /// What else we say of ourselves.
    pub node_metadata: BTreeMap<String, String>,
    /// Sent with the stream; values may be tokens.
    pub headers: BTreeMap<String, Secret>,
    /// TLS, possibly with a certificate of ours; `None` = plain text.
    pub tls: Option<ClientTls>,
    /// How long connecting may take.
    pub connect_timeout: Duration,
    /// Wait before the first new attempt; doubles with each one that fails.
    pub backoff_initial: Duration,
    /// The longest wait.
    pub backoff_max: Duration,
    /// Every wait is a random part of itself, so that replicas do not come back all at once.
    pub backoff_jitter: bool,
    /// Largest message that is accepted, in bytes.
    pub max_message_bytes: usize,
}

impl Default for XdsSettings {
    fn default() -> Self {
        Self {
            server: "localhost:18000".into(),
            node_id: "default".into(),
            node_metadata: BTreeMap::new(),
            headers: BTreeMap::new(),
            tls: None,
            connect_timeout: Duration::from_secs(3),
            backoff_initial: Duration::from_millis(500),
            backoff_max: Duration::from_secs(30),
            backoff_jitter: true,
            max_message_bytes: 16 << 20,
        }
    }
}
