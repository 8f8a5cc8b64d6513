//! Calls that are not served: Envoy lets their requests pass, unless it denies on errors.

use std::sync::atomic::{AtomicBool, Ordering};

use http::{HeaderMap, HeaderValue};
use prometheus::IntCounterVec;
use tonic::Code;

/// Counts calls that no service takes, and logs the first.
#[derive(Debug)]
pub struct UnservedCalls {
    counters: IntCounterVec,
    is_logged: AtomicBool,
}

impl UnservedCalls {
    /// Counts by the code.
    #[must_use]
    pub const fn new(counters: IntCounterVec) -> Self {
        Self {
            counters,
            is_logged: AtomicBool::new(false),
        }
    }

    /// Looks at the head of a response: a status there is the whole answer (gRPC's Trailers-Only).
    pub(super) fn observe(&self, head: &HeaderMap) {
        let Some(code) = head.get("grpc-status").map(HeaderValue::as_bytes).map(Code::from_bytes) else {
            return;
        };
        let label = match code {
            Code::Unimplemented => "unimplemented",
            Code::Internal => "internal",
            _ => return,
        };
        self.counters.with_label_values(&[label]).inc();
        if !self.is_logged.swap(true, Ordering::Relaxed) {
            let message = head.get("grpc-message").and_then(|text| text.to_str().ok());
            let message: String = message.unwrap_or_default().chars().take(200).collect();
            tracing::warn!(
                code = label,
                message,
                "a gRPC call is not served, and Envoy lets such requests pass unless failure_mode_deny is set. The client must call \
                 envoy.service.ratelimit.v3.RateLimitService (transport_api_version: V3), envoy.service.auth.v3.Authorization or RLQS. \
                 Further calls are only counted, in sluicegate_unserved_calls_total"
            );
        }
    }
}
