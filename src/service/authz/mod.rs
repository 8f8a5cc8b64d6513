//! `envoy.service.auth.v3.Authorization`: Envoy sends a request's attributes, the rules file says which descriptors they
//! are, and the engine decides them like any others.

mod answer;
pub mod view;

use std::sync::Arc;
use std::time::Instant;

use tonic::{Request, Response, Status};

use crate::config::settings::LimitHeaders;
use crate::engine::{Engine, RequestError};
use crate::mapping::{FailureMode, NotNamed};
use crate::model;
use crate::proto::envoy::service::auth::v3 as wire;
use crate::telemetry::throttle::Throttle;
use crate::telemetry::{CallSpan, Metrics, ServiceKind, Traces};

use super::{AnswerOptions, deadline, explain, span};
use answer::Answering;
pub use view::View;

/// The call as gRPC, and its span, name it.
const METHOD: &str = "envoy.service.auth.v3.Authorization/Check";

/// Answers `Check`.
#[derive(Clone)]
pub struct AuthzService {
    engine: Arc<Engine>,
    options: Arc<AnswerOptions>,
    names: Arc<LimitHeaders>,
    failure_mode: FailureMode,
    metrics: Arc<Metrics>,
    clock: Arc<dyn model::Clock>,
    bad_requests: Arc<Throttle>,
    traces: Option<Traces>,
}

/// Why a request was not decided.
enum Undecided<'a> {
    /// Too many are under way. The caller hears so, as with the other service: what becomes of the request is for its
    /// own failure mode to say.
    Overloaded,
    /// There is nothing to decide by: our failure mode answers.
    Bad(Bad<'a>),
}

struct Bad<'a> {
    /// A fixed word for metrics.
    reason: &'static str,
    error: String,
    mode: Option<FailureMode>,
    view: Option<View<'a>>,
}

impl AuthzService {
    /// A service over an engine; `failure_mode` answers where a request cannot be decided and its domain does not say.
    #[must_use]
    pub fn new(
        engine: Arc<Engine>,
        options: Arc<AnswerOptions>,
        failure_mode: FailureMode,
        metrics: Arc<Metrics>,
        clock: Arc<dyn model::Clock>,
    ) -> Self {
        // Envoy writes no such headers for ext_authz, so the names that clients know from it are free.
        let names = options.limit_headers.clone().unwrap_or_else(|| LimitHeaders {
            limit: "x-ratelimit-limit".into(),
            remaining: "x-ratelimit-remaining".into(),
            reset: "x-ratelimit-reset".into(),
        });
        Self {
            engine,
            options,
            names: Arc::new(names),
            failure_mode,
            metrics,
            clock,
            bad_requests: Arc::new(Throttle::new()),
            traces: None,
        }
    }

    /// The same with a span of each call.
    #[must_use]
    pub fn traced(self, traces: Option<Traces>) -> Self {
        Self { traces, ..self }
    }

    /// Answers one request and counts it for its interface. What cannot be decided is answered by the failure mode.
    ///
    /// # Errors
    /// UNAVAILABLE when too many requests are under way.
    pub async fn answer(
        &self,
        request: &wire::CheckRequest,
        deadline: Option<Instant>,
    ) -> Result<wire::CheckResponse, Status> {
        self.call(request, deadline, CallSpan::default()).await
    }

    async fn call(
        &self,
        request: &wire::CheckRequest,
        deadline: Option<Instant>,
        mut span: CallSpan,
    ) -> Result<wire::CheckResponse, Status> {
        let start = Instant::now();
        let metrics = self.metrics.service(ServiceKind::Authz);
        let answer = match self.decide(request, deadline, &mut span).await {
            Ok((response, over_limit)) => {
                (if over_limit { &metrics.over_limit } else { &metrics.ok }).inc();
                Ok(response)
            }
            Err(undecided) => {
                metrics.error.inc();
                match undecided {
                    Undecided::Overloaded => Err(Status::unavailable(RequestError::Overloaded.to_string())),
                    Undecided::Bad(bad) => Ok(self.fail(&bad, &mut span)),
                }
            }
        };
        span.end(answer.as_ref().err());
        metrics.duration.observe(start.elapsed().as_secs_f64());
        answer
    }

    async fn decide<'a>(
        &self,
        request: &'a wire::CheckRequest,
        deadline: Option<Instant>,
        span: &mut CallSpan,
    ) -> Result<(wire::CheckResponse, bool), Undecided<'a>> {
        let bounds = &self.options.bounds;
        let view = View::of(request, bounds.headers).map_err(|error| Bad::new(error.kind(), &error))?;
        let Some(active) = self.engine.active() else {
            let error = RequestError::NoConfiguration;
            return Err(Bad::new("no_configuration", &error).with(None, view));
        };
        let mapping = match active.rules.ext_authz.resolve(&view) {
            Ok(mapping) => Arc::clone(mapping),
            Err(error) => return Err(Bad::new(error.kind(), &error).with(None, view)),
        };
        span::domain(span, &mapping.domain);
        let descriptors = match mapping.map(&view, bounds.value_bytes) {
            Ok(mapped) => {
                self.note_client(mapped.client_not_named.as_ref(), &mapping.domain);
                mapped.descriptors
            }
            Err(error) => return Err(Bad::new("too_large", &error).with(mapping.failure_mode, view)),
        };
        let answering = self.answering();
        if descriptors.is_empty() {
            span::uncounted(span);
            return Ok((answering.uncounted(&view, &mapping), false));
        }
        let asked = model::Request {
            domain: mapping.domain.to_string(),
            descriptors,
            hits_addend: 1,
            releases_all: false,
        };
        match self.engine.decide_by(active, &asked, deadline).await {
            Ok(decision) => {
                span::decided(span, &decision);
                explain::log(&asked, &decision);
                let response = answering.decided(&view, &mapping, &asked, &decision);
                Ok((response, decision.over_limit))
            }
            Err(RequestError::Overloaded) => Err(Undecided::Overloaded),
            Err(error) => Err(Bad::new("bad_mapping", &error).with(mapping.failure_mode, view)),
        }
    }

    /// All clients behind a proxy that does not name them share one counter.
    fn note_client(&self, not_named: Option<&NotNamed>, domain: &str) {
        let Some(reason) = not_named else { return };
        let edges = &self.metrics.edges;
        edges.client_not_named.with_label_values(&[reason.kind()]).inc();
        if edges.mark_client_logged() {
            tracing::warn!(
                domain,
                %reason,
                "a client is counted by its peer's address: let the trusted proxies set x-forwarded-for, and \
                 client_address say how many they are; further ones are only counted, in \
                 sluicegate_client_address_fallbacks_total"
            );
        }
    }

    fn answering(&self) -> Answering<'_> {
        Answering {
            names: &self.names,
            always_metadata: self.options.dynamic_metadata,
        }
    }

    fn fail(&self, bad: &Bad<'_>, span: &mut CallSpan) -> wire::CheckResponse {
        let reason = bad.reason;
        self.metrics.bad_requests.with_label_values(&[reason]).inc();
        let mode = bad.mode.unwrap_or(self.failure_mode);
        span::undecided(span, reason, mode.name());
        if let Some(suppressed) = self.bad_requests.pass(self.clock.now_us()) {
            tracing::warn!(
                error = %bad.error,
                failure_mode = mode.name(),
                suppressed,
                "an ext_authz request cannot be decided"
            );
        }
        self.answering().failed(bad.view.as_ref(), mode, reason)
    }
}

impl<'a> Bad<'a> {
    fn new(reason: &'static str, error: &impl std::fmt::Display) -> Self {
        Self {
            reason,
            error: error.to_string(),
            mode: None,
            view: None,
        }
    }

    fn with(self, mode: Option<FailureMode>, view: View<'a>) -> Undecided<'a> {
        Undecided::Bad(Self {
            mode,
            view: Some(view),
            ..self
        })
    }
}

impl<'a> From<Bad<'a>> for Undecided<'a> {
    fn from(bad: Bad<'a>) -> Self {
        Self::Bad(bad)
    }
}

#[tonic::async_trait]
impl wire::authorization_server::Authorization for AuthzService {
    async fn check(&self, request: Request<wire::CheckRequest>) -> Result<Response<wire::CheckResponse>, Status> {
        let deadline = deadline::deadline(request.metadata());
        let traces = self.traces.as_ref();
        let span = traces.map_or_else(CallSpan::default, |traces| traces.begin(METHOD, request.metadata()));
        self.call(request.get_ref(), deadline, span).await.map(Response::new)
    }
}
