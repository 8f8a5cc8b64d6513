//! The gRPC server: which services it answers and how its connections behave.

use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio_stream::Stream;
use tonic::transport::Server;
use tonic::transport::server::{Connected, Router};
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;

use crate::proto::DESCRIPTORS;
use crate::proto::envoy::service::ratelimit::v3::rate_limit_service_server::{
    RateLimitServiceServer, SERVICE_NAME as RLS_NAME,
};

use super::rls::RateLimitService;

/// Names under which `grpc.health.v1` answers: the server, what envoyproxy/ratelimit calls itself, the service.
const HEALTH_NAMES: [&str; 3] = ["", "ratelimit", RLS_NAME];

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
}

impl Default for ServerOptions {
    fn default() -> Self {
        Self {
            max_connection_age: None,
            max_connection_age_grace: None,
            max_concurrent_streams: 10_000,
            max_message_bytes: 4 << 20,
        }
    }
}

/// A server that is put together but does not listen yet.
pub struct GrpcServer {
    router: Router,
    health: HealthReporter,
}

impl GrpcServer {
    /// All services of the port.
    ///
    /// # Errors
    /// When the binary's own descriptors are broken.
    pub async fn new(options: &ServerOptions, rls: RateLimitService) -> Result<Self, tonic_reflection::server::Error> {
        let (health, health_service) = tonic_health::server::health_reporter();
        for name in HEALTH_NAMES {
            health.set_service_status(name, ServingStatus::NotServing).await;
        }
        let reflection = || {
            tonic_reflection::server::Builder::configure()
                .register_encoded_file_descriptor_set(DESCRIPTORS)
                .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        };
        let rls = RateLimitServiceServer::new(rls)
            .max_decoding_message_size(options.max_message_bytes)
            .max_encoding_message_size(usize::MAX);
        let router = builder(options)
            .add_service(rls)
            .add_service(health_service)
            .add_service(reflection().build_v1()?)
            .add_service(reflection().build_v1alpha()?);
        Ok(Self { router, health })
    }

    /// The switch between SERVING and NOT_SERVING.
    #[must_use]
    pub fn health(&self) -> GrpcHealth {
        GrpcHealth(self.health.clone())
    }

    /// Serves until `shutdown` completes, then lets answers under way finish.
    ///
    /// # Errors
    /// When the transport fails as a whole; a broken connection is not an error here.
    pub async fn serve<I, IO, E>(
        self,
        incoming: I,
        shutdown: impl Future<Output = ()>,
    ) -> Result<(), tonic::transport::Error>
    where
        I: Stream<Item = Result<IO, E>>,
        IO: AsyncRead + AsyncWrite + Connected + Unpin + Send + 'static,
        E: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        self.router.serve_with_incoming_shutdown(incoming, shutdown).await
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

fn builder(options: &ServerOptions) -> Server {
    let mut server = Server::builder()
        .max_concurrent_streams(options.max_concurrent_streams)
        .http2_keepalive_interval(Some(Duration::from_secs(30)))
        .http2_keepalive_timeout(Some(Duration::from_secs(10)));
    if let Some(age) = options.max_connection_age {
        server = server.max_connection_age(age);
    }
    if let Some(grace) = options.max_connection_age_grace {
        server = server.max_connection_age_grace(grace);
    }
    server
}
