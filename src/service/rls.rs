//! `envoy.service.ratelimit.v3.RateLimitService`.

use std::sync::Arc;
use std::time::Instant;

use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status};

use crate::engine::{Engine, RequestError};
use crate::proto::envoy::config::core::v3::HeaderValue;
use crate::proto::envoy::service::ratelimit::v3 as wire;
use crate::telemetry::{CallSpan, Metrics, ServiceKind, Traces};

use super::{AnswerOptions, body, convert, deadline, explain, headers, metadata, span};

/// The call as gRPC, and its span, name it.
const METHOD: &str = "envoy.service.ratelimit.v3.RateLimitService/ShouldRateLimit";

/// Answers `ShouldRateLimit`, over gRPC and (through the HTTP port) as JSON.
#[derive(Clone)]
pub struct RateLimitService {
    engine: Arc<Engine>,
    options: Arc<AnswerOptions>,
    metrics: Arc<Metrics>,
    traces: Option<Traces>,
}

/// What is known of who asks.
#[derive(Debug, Default)]
pub struct Caller {
    /// When it stops listening.
    pub deadline: Option<Instant>,
    /// It is an Envoy.
    pub is_envoy: bool,
    /// What a trace hears of the call.
    pub span: CallSpan,
}

impl Caller {
    /// Headers that Envoy puts on calls of its own, unless it is told not to.
    const OF_ENVOY: [&str; 2] = ["x-envoy-internal", "x-envoy-expected-rq-timeout-ms"];

    fn of(metadata: &MetadataMap, traces: Option<&Traces>) -> Self {
        Self {
            span: traces.map_or_else(CallSpan::default, |traces| traces.begin(METHOD, metadata)),
            deadline: deadline::deadline(metadata),
            is_envoy: Self::OF_ENVOY.iter().any(|name| metadata.contains_key(*name)),
        }
    }
}

impl RateLimitService {
    /// A service over an engine.
    #[must_use]
    pub fn new(engine: Arc<Engine>, options: Arc<AnswerOptions>, metrics: Arc<Metrics>) -> Self {
        Self {
            engine,
            options,
            metrics,
            traces: None,
        }
    }

    /// The same with a span of each call over gRPC.
    #[must_use]
    pub fn traced(self, traces: Option<Traces>) -> Self {
        Self { traces, ..self }
    }

    /// Answers one request and counts it for its interface.
    ///
    /// # Errors
    /// INVALID_ARGUMENT for a bad request, UNAVAILABLE while no rules are in force; the text says which.
    pub async fn answer(
        &self,
        kind: ServiceKind,
        request: wire::RateLimitRequest,
        mut caller: Caller,
    ) -> Result<wire::RateLimitResponse, Status> {
        let start = Instant::now();
        let result = self.decide(request, &mut caller).await;
        caller.span.end(result.as_ref().err());
        let metrics = self.metrics.service(kind);
        metrics.duration.observe(start.elapsed().as_secs_f64());
        match &result {
            Ok(response) if response.overall_code == i32::from(wire::rate_limit_response::Code::Ok) => metrics.ok.inc(),
            Ok(_) => metrics.over_limit.inc(),
            Err(_) => {
                metrics.error.inc();
                self.metrics.compat_error("service_error");
            }
        }
        result
    }

    async fn decide(
        &self,
        request: wire::RateLimitRequest,
        caller: &mut Caller,
    ) -> Result<wire::RateLimitResponse, Status> {
        span::domain(&mut caller.span, &request.domain);
        let mut request = convert::request(request, &self.options.bounds).map_err(|error| {
            self.metrics.bad_requests.with_label_values(&[error.kind()]).inc();
            Status::invalid_argument(error.to_string())
        })?;
        request.releases_all = caller.is_envoy;
        let decision = self
            .engine
            .decide(&request, caller.deadline)
            .await
            .map_err(|error| self.refuse(&error))?;
        span::decided(&mut caller.span, &decision);
        explain::log(&request, &decision);
        let mut response = convert::response(&decision);
        let header = |(key, value)| HeaderValue {
            key,
            value,
            raw_value: Vec::new(),
        };
        response.response_headers_to_add = headers::all(&self.options.families(), &decision)
            .into_iter()
            .map(header)
            .collect();
        let upstream = headers::for_upstream(self.options.request_limit_headers.as_ref(), &decision);
        response.request_headers_to_add = upstream.into_iter().map(header).collect();
        if self.options.problem_body
            && let Some(body) = body::problem(&decision, 429)
        {
            response.raw_body = body;
            response
                .response_headers_to_add
                .push(header(("content-type".into(), body::CONTENT_TYPE.into())));
        }
        response.dynamic_metadata = metadata::dynamic(&decision, &request, self.options.dynamic_metadata);
        Ok(response)
    }

    fn refuse(&self, error: &RequestError) -> Status {
        let (reason, status) = match error {
            RequestError::NoConfiguration => ("no_configuration", Status::unavailable(error.to_string())),
            RequestError::Overloaded => return Status::unavailable(error.to_string()),
            RequestError::EmptyDomain => ("empty_domain", Status::invalid_argument(error.to_string())),
            RequestError::NoDescriptors => ("no_descriptors", Status::invalid_argument(error.to_string())),
            RequestError::BadOverride { .. } => ("bad_limit", Status::invalid_argument(error.to_string())),
        };
        self.metrics.bad_requests.with_label_values(&[reason]).inc();
        status
    }
}

#[tonic::async_trait]
impl wire::rate_limit_service_server::RateLimitService for RateLimitService {
    async fn should_rate_limit(
        &self,
        request: Request<wire::RateLimitRequest>,
    ) -> Result<Response<wire::RateLimitResponse>, Status> {
        let caller = Caller::of(request.metadata(), self.traces.as_ref());
        self.answer(ServiceKind::Rls, request.into_inner(), caller)
            .await
            .map(Response::new)
    }
}
