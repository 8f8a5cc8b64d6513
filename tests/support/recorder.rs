//! A service that both of Envoy's filters can ask: notes what they send and answers as a test wishes.

use std::sync::{Arc, Mutex};

use sluicegate::proto::envoy::service::auth::v3 as auth;
use sluicegate::proto::envoy::service::ratelimit::v3 as rls;
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status, transport::Server};

use auth::authorization_server::{Authorization, AuthorizationServer};
use rls::rate_limit_service_server::{RateLimitService, RateLimitServiceServer};

type Answer = dyn Fn(&auth::CheckRequest) -> Result<auth::CheckResponse, Status> + Send + Sync;

/// A running recorder; it ends with the test's runtime.
#[derive(Clone)]
pub struct Recorder {
    /// Where it listens on loopback.
    pub port: u16,
    seen: Arc<Mutex<Seen>>,
    answer: Arc<Answer>,
}

#[derive(Default)]
struct Seen {
    checks: Vec<auth::CheckRequest>,
    limits: Vec<rls::RateLimitRequest>,
}

impl Recorder {
    /// Starts one that lets everything pass.
    pub async fn start() -> Self {
        Self::answering(|_| Ok(auth::CheckResponse::default())).await
    }

    /// Starts one that answers checks so.
    pub async fn answering(
        answer: impl Fn(&auth::CheckRequest) -> Result<auth::CheckResponse, Status> + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let recorder = Self {
            port: listener.local_addr().expect("its address").port(),
            seen: Arc::default(),
            answer: Arc::new(answer),
        };
        let server = Server::builder()
            .add_service(AuthorizationServer::new(recorder.clone()))
            .add_service(RateLimitServiceServer::new(recorder.clone()))
            .serve_with_incoming(TcpListenerStream::new(listener));
        tokio::spawn(server);
        recorder
    }

    /// Everything that came since the last call: checks, and rate limit requests.
    pub fn take(&self) -> (Vec<auth::CheckRequest>, Vec<rls::RateLimitRequest>) {
        let seen = std::mem::take(&mut *self.seen.lock().expect("no test panicked with it"));
        (seen.checks, seen.limits)
    }
}

#[tonic::async_trait]
impl Authorization for Recorder {
    async fn check(&self, request: Request<auth::CheckRequest>) -> Result<Response<auth::CheckResponse>, Status> {
        let answer = (self.answer)(request.get_ref());
        self.seen.lock().expect("sound").checks.push(request.into_inner());
        answer.map(Response::new)
    }
}

#[tonic::async_trait]
impl RateLimitService for Recorder {
    async fn should_rate_limit(
        &self,
        request: Request<rls::RateLimitRequest>,
    ) -> Result<Response<rls::RateLimitResponse>, Status> {
        self.seen.lock().expect("sound").limits.push(request.into_inner());
        let response = rls::RateLimitResponse {
            overall_code: rls::rate_limit_response::Code::Ok.into(),
            ..Default::default()
        };
        Ok(Response::new(response))
    }
}
