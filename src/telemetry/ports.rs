//! Connections of the ports.

use prometheus::{IntCounter, IntCounterVec, IntGauge, IntGaugeVec};

use super::edges::EdgeMetrics;
use super::registrar::Registrar;

/// A port's connections.
#[derive(Debug, Clone)]
pub struct PortMetrics {
    /// Open now.
    pub open: IntGauge,
    /// Closed at once: at the limit, and no connection was idle.
    pub refused: IntCounter,
    /// Closed while idle, for a new one.
    pub evicted: IntCounter,
    /// Closed because the client exceeded a timeout.
    pub slow: IntCounter,
    /// Closed because its TLS handshake failed.
    pub handshake: IntCounter,
    /// Closed because it speaks another protocol than HTTP/2 on the gRPC port.
    pub protocol: IntCounter,
    /// Streams refused as malformed HTTP/2, of all ports.
    pub protocol_errors: IntCounter,
    /// Calls that are not served, of all ports.
    pub unserved: IntCounterVec,
}

/// The connections of all ports.
#[derive(Debug)]
pub(super) struct AllPorts {
    open: IntGaugeVec,
    pub closed: IntCounterVec,
}

impl AllPorts {
    pub fn new(r: Registrar<'_>) -> prometheus::Result<Self> {
        Ok(Self {
            open: r.gauges("sluicegate_connections", "Connections that are open", &["port"])?,
            closed: r.counters(
                "sluicegate_connections_closed_total",
                "Connections closed for a bound: refused, evicted (unused, for a new one), slow; or for what they speak: handshake (TLS), \
                 protocol (no HTTP/2)",
                &["port", "reason"],
            )?,
        })
    }

    pub fn of(&self, port: &'static str, edges: &EdgeMetrics) -> PortMetrics {
        let closed = |reason| self.closed.with_label_values(&[port, reason]);
        PortMetrics {
            open: self.open.with_label_values(&[port]),
            refused: closed("refused"),
            evicted: closed("evicted"),
            slow: closed("slow"),
            handshake: closed("handshake"),
            protocol: closed("protocol"),
            protocol_errors: edges.protocol_errors.clone(),
            unserved: edges.unserved.clone(),
        }
    }
}
