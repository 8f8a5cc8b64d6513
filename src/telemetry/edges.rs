//! What happens at the edge of the service that would otherwise change decisions silently.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use prometheus::{IntCounter, IntCounterVec, Opts, Registry};

/// Counters of the edge. Each kind of event is logged once for a process, with its cure: the counter tells the rest.
#[derive(Debug)]
pub struct EdgeMetrics {
    /// Requests (`ext_authz`) whose client is not the one that X-Forwarded-For should name, by why.
    pub client_not_named: IntCounterVec,
    /// Streams that were reset as malformed HTTP/2, such as for an `:authority` that is none by RFC 3986.
    pub protocol_errors: IntCounter,
    /// Calls whose answer is UNIMPLEMENTED or INTERNAL, by that code.
    pub unserved: IntCounterVec,
    /// Hits that came after a question with 0 hits, were denied, and so are not counted.
    pub forgotten_charges: IntCounter,
    /// Denied requests for permits whose release could not be noted as not due.
    pub unnoted_denials: IntCounter,
    client_logged: AtomicBool,
}

impl EdgeMetrics {
    pub(super) fn new(registry: &Registry) -> prometheus::Result<Self> {
        let client_not_named = IntCounterVec::new(
            Opts::new(
                "sluicegate_client_address_fallbacks_total",
                "ext_authz requests counted by the peer's address, because x-forwarded-for did not name the client",
            ),
            &["reason"],
        )?;
        let protocol_errors = IntCounter::new(
            "sluicegate_http2_protocol_errors_total",
            "gRPC streams refused as malformed HTTP/2, such as for an :authority like outbound|8081||service",
        )?;
        let unserved = IntCounterVec::new(
            Opts::new(
                "sluicegate_unserved_calls_total",
                "gRPC calls that are not served: of an unknown service or method (unimplemented), or without a readable request (internal)",
            ),
            &["code"],
        )?;
        let forgotten_charges = IntCounter::new(
            "sluicegate_forgotten_charges_total",
            "Denied, uncounted charges of costs that are known afterwards: see --charge-after-peek",
        )?;
        let unnoted_denials = IntCounter::new(
            "sluicegate_unnoted_denials_total",
            "Denied requests for concurrency permits, of more counters than are noted, whose release frees a permit in use",
        )?;
        registry.register(Box::new(unnoted_denials.clone()))?;
        registry.register(Box::new(forgotten_charges.clone()))?;
        registry.register(Box::new(client_not_named.clone()))?;
        registry.register(Box::new(protocol_errors.clone()))?;
        registry.register(Box::new(unserved.clone()))?;
        Ok(Self {
            client_not_named,
            protocol_errors,
            unserved,
            forgotten_charges,
            unnoted_denials,
            client_logged: AtomicBool::new(false),
        })
    }

    /// Marks that a client was not named; whether it is the first one.
    pub fn mark_client_logged(&self) -> bool {
        !self.client_logged.swap(true, Relaxed)
    }
}
