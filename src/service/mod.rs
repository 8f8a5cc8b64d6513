//! gRPC services: wire ↔ model. Nothing is decided here, and connections are served by [`crate::net`].

pub mod authz;
pub mod body;
pub mod convert;
pub mod deadline;
pub mod encoded;
mod explain;
pub mod headers;
pub mod metadata;
pub mod rlqs;
pub mod rls;
pub mod server;
mod span;

use crate::config::settings::LimitHeaders;

/// What answers carry besides the codes; the same for every way to ask.
#[derive(Debug, Clone)]
pub struct AnswerOptions {
    /// `retry-after` on a denial.
    pub retry_after: bool,
    /// A problem+json body on a denial.
    pub problem_body: bool,
    /// `LIMIT_RESPONSE_HEADERS_ENABLED` with the three names, or `None`.
    pub limit_headers: Option<LimitHeaders>,
    /// `LIMIT_REQUEST_HEADERS_ENABLED` with the three names, or `None`: the same for the upstream, by the rate limit service.
    pub request_limit_headers: Option<LimitHeaders>,
    /// IETF `RateLimit` and `RateLimit-Policy`.
    pub ietf_headers: bool,
    /// `RESPONSE_DYNAMIC_METADATA`: metadata on every answer, not on denials only.
    pub dynamic_metadata: bool,
    /// RequestBounds of a request.
    pub bounds: convert::RequestBounds,
}

impl AnswerOptions {
    /// Which headers to write.
    #[must_use]
    pub const fn families(&self) -> headers::Families<'_> {
        headers::Families {
            limit: self.limit_headers.as_ref(),
            ietf: self.ietf_headers,
            retry_after: self.retry_after,
        }
    }
}

impl Default for AnswerOptions {
    fn default() -> Self {
        Self {
            retry_after: true,
            problem_body: true,
            limit_headers: None,
            request_limit_headers: None,
            ietf_headers: false,
            dynamic_metadata: false,
            bounds: convert::RequestBounds::default(),
        }
    }
}
