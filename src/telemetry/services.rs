//! Answers of the interfaces, and how long they took.

use prometheus::{Histogram, IntCounter, IntCounterVec};

use super::compat::GrpcPort;
use super::registrar::{LATENCY_BUCKETS, Registrar};

/// The interface through which a request came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServiceKind {
    /// `RateLimitService/ShouldRateLimit`.
    Rls,
    /// `Authorization/Check`.
    Authz,
    /// `POST /json`.
    Json,
}

/// The counters of one interface, looked up once.
#[derive(Debug)]
pub struct ServiceMetrics {
    /// Answered OK.
    pub ok: IntCounter,
    /// Answered OVER_LIMIT.
    pub over_limit: IntCounter,
    /// Answered with an error.
    pub error: IntCounter,
    /// Time from the request's arrival to its answer.
    pub duration: Histogram,
}

/// The counters of all interfaces.
#[derive(Debug)]
pub(super) struct AllServices {
    services: [ServiceMetrics; 3],
    compat_errors: IntCounterVec,
}

impl AllServices {
    pub fn new(r: Registrar<'_>) -> prometheus::Result<Self> {
        let requests = r.counters("sluicegate_requests_total", "Requests answered", &["service", "code"])?;
        let duration = r.histograms(
            "sluicegate_request_duration_seconds",
            "Time to answer a request",
            &["service"],
            &LATENCY_BUCKETS,
        )?;
        let service = |name: &str| ServiceMetrics {
            ok: requests.with_label_values(&[name, "ok"]),
            over_limit: requests.with_label_values(&[name, "over_limit"]),
            error: requests.with_label_values(&[name, "error"]),
            duration: duration.with_label_values(&[name]),
        };
        let services = [service("rls"), service("authz"), service("json")];
        let [rls, ..] = &services;
        let answered = [rls.ok.clone(), rls.over_limit.clone(), rls.error.clone()];
        r.0.register(Box::new(GrpcPort::new(answered, rls.duration.clone())?))?;
        Ok(Self {
            services,
            compat_errors: r.counters(
                "ratelimit_service_should_rate_limit_error",
                "Requests that ended in an error",
                &["err_type"],
            )?,
        })
    }

    pub const fn of(&self, kind: ServiceKind) -> &ServiceMetrics {
        match kind {
            ServiceKind::Rls => &self.services[0],
            ServiceKind::Authz => &self.services[1],
            ServiceKind::Json => &self.services[2],
        }
    }

    pub fn compat_error(&self, kind: &str) {
        self.compat_errors.with_label_values(&[kind]).inc();
    }
}
