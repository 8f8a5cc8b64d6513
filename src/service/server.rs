//! The gRPC server: which services its port serves, and their health.

use std::convert::Infallible;
use std::io;
use std::pin::Pin;
use std::sync::Arc;

use http::{Request, Response};
use hyper::body::Incoming;
use tonic::body::Body;
use tonic::service::Routes;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;
use tower::Service as _;

use crate::net::body_limit::{BodyLimiter, LimitedBody};
use crate::net::grpc::{self, PortOptions};
use crate::net::listener::Listener;
use crate::net::stalled::{CountedBody, CountedResponse, ResponseCounts};
use crate::net::tls::TlsAccept;
use crate::net::unserved::UnservedCalls;
use crate::proto::DESCRIPTORS;
use crate::proto::envoy::service::auth::v3::authorization_server::{
    Authorization, AuthorizationServer, SERVICE_NAME as AUTHZ_NAME,
};
use crate::proto::envoy::service::rate_limit_quota::v3::rate_limit_quota_service_server::{
    RateLimitQuotaServiceServer, SERVICE_NAME as RLQS_NAME,
};
use crate::proto::envoy::service::ratelimit::v3::rate_limit_service_server::{
    RateLimitService as Rls, RateLimitServiceServer, SERVICE_NAME as RLS_NAME,
};

use super::authz::AuthzService;
use super::rlqs::QuotaService;
use super::rls::RateLimitService;

/// Names under which `grpc.health.v1` answers: the server, what envoyproxy/ratelimit calls itself, the services.
const HEALTH_NAMES: [&str; 5] = ["", "ratelimit", RLS_NAME, AUTHZ_NAME, RLQS_NAME];

/// Largest request message, in bytes.
const MAX_MESSAGE_BYTES: usize = 4 << 20;
/// The same for a message of usage reports: one names all buckets of an Envoy, some 47 bytes each.
const MAX_REPORTS_BYTES: usize = 16 << 20;

/// A server that is put together but does not listen yet.
pub struct GrpcServer<R = RateLimitService, A = AuthzService> {
    services: Services<R, A>,
    options: PortOptions,
    health: HealthReporter,
}

impl<R: Rls, A: Authorization> GrpcServer<R, A> {
    /// All services of the port.
    ///
    /// # Errors
    /// When the binary's own descriptors are broken.
    pub async fn new(
        options: PortOptions,
        rls: R,
        authz: A,
        quota: Option<QuotaService>,
    ) -> Result<Self, tonic_reflection::server::Error> {
        let (health, health_service) = tonic_health::server::health_reporter();
        for name in HEALTH_NAMES {
            health.set_service_status(name, ServingStatus::NotServing).await;
        }
        // The descriptors know more services than are served here: the control plane's.
        let reflection = |own: &str| {
            tonic_reflection::server::Builder::configure()
                .register_encoded_file_descriptor_set(DESCRIPTORS)
                .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
                .with_service_name(RLS_NAME)
                .with_service_name(AUTHZ_NAME)
                .with_service_name(RLQS_NAME)
                .with_service_name("grpc.health.v1.Health")
                .with_service_name(own)
        };
        let rls = RateLimitServiceServer::new(rls)
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(usize::MAX);
        let authz = AuthorizationServer::new(authz)
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(usize::MAX);
        let others = Routes::new(health_service)
            .add_service(reflection("grpc.reflection.v1.ServerReflection").build_v1()?)
            .add_service(reflection("grpc.reflection.v1alpha.ServerReflection").build_v1alpha()?);
        let others = match quota {
            Some(quota) => {
                others.add_service(RateLimitQuotaServiceServer::new(quota).max_decoding_message_size(MAX_REPORTS_BYTES))
            }
            None => others,
        };
        let unserved = options
            .metrics
            .as_ref()
            .map(|metrics| Arc::new(UnservedCalls::new(metrics.unserved.clone())));
        Ok(Self {
            services: Services {
                rls,
                authz,
                others: others.prepare(),
                bodies: BodyLimiter::new(options.connection.client_timeout),
                responses: Arc::default(),
                unserved,
            },
            options,
            health,
        })
    }

    /// The switch between SERVING and NOT_SERVING.
    #[must_use]
    pub fn health(&self) -> GrpcHealth {
        GrpcHealth(self.health.clone())
    }

    /// Serves until `shutdown` completes, then sends GOAWAY on every connection and lets responses under way finish.
    ///
    /// # Errors
    /// When the serving threads cannot be started; a broken connection is not an error here.
    pub async fn serve(
        self,
        listener: Listener,
        tls: Option<TlsAccept>,
        shutdown: impl Future<Output = ()>,
    ) -> io::Result<()> {
        let connection = |responses| self.services.for_connection(responses);
        grpc::serve(listener, tls, self.options, connection, shutdown).await
    }
}

/// The port's services, as one connection has them. The two that are called for every request are called directly, the
/// others through a router.
struct Services<R, A> {
    rls: RateLimitServiceServer<R>,
    authz: AuthorizationServer<A>,
    others: Routes,
    bodies: Arc<BodyLimiter>,
    responses: Arc<ResponseCounts>,
    unserved: Option<Arc<UnservedCalls>>,
}

impl<R, A> Services<R, A> {
    /// For the connection whose responses are counted in `responses`.
    fn for_connection(&self, responses: Arc<ResponseCounts>) -> Self {
        Self {
            rls: self.rls.clone(),
            authz: self.authz.clone(),
            others: self.others.clone(),
            bodies: Arc::clone(&self.bodies),
            responses,
            unserved: self.unserved.clone(),
        }
    }
}

impl<R: Rls, A: Authorization> hyper::service::Service<Request<Incoming>> for Services<R, A> {
    type Response = Response<CountedBody>;
    type Error = Infallible;
    type Future = CountedResponse<Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let service_of = |path: &str| {
            path.strip_prefix('/')
                .and_then(|path| path.split_once('/'))
                .map(|(name, _)| name == RLQS_NAME)
        };
        let unserved = || self.unserved.clone();
        if service_of(request.uri().path()) == Some(true) {
            // Its body is a stream of reports that goes on as long as its Envoy does.
            return CountedResponse::new(Box::pin(self.others.clone().call(request)), None, unserved());
        }
        let request = request.map(|body| LimitedBody::new(body, &self.bodies));
        let service = request
            .uri()
            .path()
            .strip_prefix('/')
            .and_then(|path| path.split_once('/'));
        let counts = || Some(Arc::clone(&self.responses));
        match service {
            Some((RLS_NAME, _)) => CountedResponse::new(self.rls.clone().call(request), counts(), unserved()),
            Some((AUTHZ_NAME, _)) => CountedResponse::new(self.authz.clone().call(request), counts(), unserved()),
            _ => CountedResponse::new(Box::pin(self.others.clone().call(request)), None, unserved()),
        }
    }
}

/// Tells gRPC health checkers.
#[derive(Clone)]
pub struct GrpcHealth(HealthReporter);

impl GrpcHealth {
    /// Sets all names at once.
    pub async fn set(&self, serving: bool) {
        let status = if serving {
            ServingStatus::Serving
        } else {
            ServingStatus::NotServing
        };
        for name in HEALTH_NAMES {
            self.0.set_service_status(name, status).await;
        }
    }
}
