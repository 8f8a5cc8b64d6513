//! The gRPC server: which services it answers and how its connections behave.

use std::convert::Infallible;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::body::Body;
use tonic::service::Routes;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;
use tower::Service as _;

use crate::proto::DESCRIPTORS;
use crate::proto::envoy::service::auth::v3::authorization_server::{
    Authorization, AuthorizationServer, SERVICE_NAME as AUTHZ_NAME,
};
use crate::proto::envoy::service::ratelimit::v3::rate_limit_service_server::{
    RateLimitService as Rls, RateLimitServiceServer, SERVICE_NAME as RLS_NAME,
};

use super::accept::{Accepted, Listener};
use super::answer::{Answer, Answering, Answers};
use super::arrival::{Arrivals, Arriving};
use super::authz::AuthzService;
use super::connection;
use super::cores::Cores;
use super::places::{Place, Places};
use super::rls::RateLimitService;
use super::tls::TlsListener;
use crate::telemetry::PortMetrics;

/// Names under which `grpc.health.v1` answers: the server, what envoyproxy/ratelimit calls itself, the services.
const HEALTH_NAMES: [&str; 4] = ["", "ratelimit", RLS_NAME, AUTHZ_NAME];

/// How connections behave.
#[derive(Debug, Clone)]
pub struct ServerOptions {
    /// A connection is told to go away after this long.
    pub max_connection_age: Option<Duration>,
    /// And closed after this much more.
    pub max_connection_age_grace: Option<Duration>,
    /// Streams that one connection may have open; Envoy has one connection a worker and opens hundreds.
    pub max_concurrent_streams: u32,
    /// Largest message, in bytes.
    pub max_message_bytes: usize,
    /// Connections at the same time; what becomes of more, [`Places`] says.
    pub max_connections: usize,
    /// How long a client may take over one step: a TLS handshake, HTTP/2's greeting, a request's message.
    pub client_timeout: Duration,
    /// Where connections are counted.
    pub metrics: Option<PortMetrics>,
    /// Threads that serve connections, each with a runtime of its own.
    pub threads: usize,
}

impl Default for ServerOptions {
    fn default() -> Self {
        Self {
            max_connection_age: None,
            max_connection_age_grace: None,
            max_concurrent_streams: 10_000,
            max_message_bytes: 4 << 20,
            max_connections: 20_000,
            client_timeout: Duration::from_secs(10),
            metrics: None,
            threads: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
        }
    }
}

/// A server that is put together but does not listen yet.
pub struct GrpcServer<R = RateLimitService, A = AuthzService> {
    services: Services<R, A>,
    options: Arc<ServerOptions>,
    health: HealthReporter,
}

impl<R: Rls, A: Authorization> GrpcServer<R, A> {
    /// All services of the port.
    ///
    /// # Errors
    /// When the binary's own descriptors are broken.
    pub async fn new(options: &ServerOptions, rls: R, authz: A) -> Result<Self, tonic_reflection::server::Error> {
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
                .with_service_name("grpc.health.v1.Health")
                .with_service_name(own)
        };
        let rls = RateLimitServiceServer::new(rls)
            .max_decoding_message_size(options.max_message_bytes)
            .max_encoding_message_size(usize::MAX);
        let authz = AuthorizationServer::new(authz)
            .max_decoding_message_size(options.max_message_bytes)
            .max_encoding_message_size(usize::MAX);
        let others = Routes::new(health_service)
            .add_service(reflection("grpc.reflection.v1.ServerReflection").build_v1()?)
            .add_service(reflection("grpc.reflection.v1alpha.ServerReflection").build_v1alpha()?)
            .prepare();
        Ok(Self {
            services: Services {
                rls,
                authz,
                others,
                arrivals: Arrivals::new(options.client_timeout),
                answers: Arc::default(),
            },
            options: Arc::new(options.clone()),
            health,
        })
    }

    /// The switch between SERVING and NOT_SERVING.
    #[must_use]
    pub fn health(&self) -> GrpcHealth {
        GrpcHealth(self.health.clone())
    }

    /// Serves until `shutdown` completes, then tells every connection to go away and lets answers under way finish.
    ///
    /// # Errors
    /// When the serving threads cannot be started; a broken connection is not an error here.
    pub async fn serve(
        self,
        listener: Listener,
        tls: Option<TlsListener>,
        shutdown: impl Future<Output = ()>,
    ) -> io::Result<()> {
        let cores = Cores::start(self.options.threads)?;
        let (stop, connections, tls) = (CancellationToken::new(), TaskTracker::new(), tls.map(Arc::new));
        let places = Places::new("grpc", self.options.max_connections, self.options.metrics.clone());
        let mut shutdown = std::pin::pin!(shutdown);
        loop {
            let accepted = tokio::select! {
                () = shutdown.as_mut() => break,
                accepted = listener.accept() => accepted,
            };
            let Some(place) = places.take().await else {
                continue;
            };
            let (services, options) = (self.services.of_connection(), Arc::clone(&self.options));
            let connection = serve_connection(accepted, tls.clone(), services, options, place, stop.clone());
            cores.spawn(connections.track_future(connection));
        }
        drop(listener);
        stop.cancel();
        connections.close();
        connections.wait().await;
        Ok(())
    }
}

/// One connection on its core: TLS if the port has it, then HTTP/2.
async fn serve_connection<R: Rls, A: Authorization>(
    accepted: Accepted,
    tls: Option<Arc<TlsListener>>,
    services: Services<R, A>,
    options: Arc<ServerOptions>,
    place: Place,
    stop: CancellationToken,
) {
    let answers = Arc::clone(&services.answers);
    let io = match accepted.open() {
        Ok(io) => io,
        Err(error) => {
            tracing::warn!(%error, "an accepted gRPC connection could not be opened");
            return;
        }
    };
    match tls {
        // In a box: the state of a handshake, of TLS or not, is not kept for as long as the connection lives.
        None => Box::pin(connection::run(io, (services, &answers), &options, &place, stop)).await,
        Some(tls) => {
            let io = tokio::select! {
                io = Box::pin(tls.accept(io, options.client_timeout)) => io,
                () = place.leave() => None,
                () = stop.cancelled() => None,
            };
            if let Some(io) = io {
                Box::pin(connection::run(io, (services, &answers), &options, &place, stop)).await;
            }
        }
    }
}

/// The port's services, as one connection has them. The two that are called for every request are called directly; the others by a router.
struct Services<R, A> {
    rls: RateLimitServiceServer<R>,
    authz: AuthorizationServer<A>,
    others: Routes,
    arrivals: Arc<Arrivals>,
    answers: Arc<Answers>,
}

impl<R, A> Services<R, A> {
    /// For another connection.
    fn of_connection(&self) -> Self {
        Self {
            rls: self.rls.clone(),
            authz: self.authz.clone(),
            others: self.others.clone(),
            arrivals: Arc::clone(&self.arrivals),
            answers: Arc::default(),
        }
    }
}

impl<R: Rls, A: Authorization> hyper::service::Service<Request<Incoming>> for Services<R, A> {
    type Response = Response<Answer>;
    type Error = Infallible;
    type Future = Answering<Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let request = request.map(|body| Arriving::new(body, &self.arrivals));
        let service = request
            .uri()
            .path()
            .strip_prefix('/')
            .and_then(|path| path.split_once('/'));
        let answers = || Some(Arc::clone(&self.answers));
        match service {
            Some((RLS_NAME, _)) => Answering::new(self.rls.clone().call(request), answers()),
            Some((AUTHZ_NAME, _)) => Answering::new(self.authz.clone().call(request), answers()),
            _ => Answering::new(Box::pin(self.others.clone().call(request)), None),
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
