//! The gRPC port: accepts connections, bounds them, and serves each on one core over TLS and HTTP/2.

use std::io;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::cores::Cores;
use super::http2::{self, ConnectionOptions, ConnectionService};
use super::limiter::{ConnectionLimiter, Permit};
use super::listener::{Accepted, Listener};
use super::stalled::ResponseCounts;
use super::tls::TlsAccept;
use crate::telemetry::PortMetrics;

/// Bounds of the port.
#[derive(Debug, Clone)]
pub struct PortOptions {
    /// Connections at the same time; see [`ConnectionLimiter`] for what happens to more.
    pub max_connections: usize,
    /// Threads that serve connections, each with its own runtime; 0 = the runtime that [`serve`] is called on serves them.
    pub threads: usize,
    /// Bounds of each connection.
    pub connection: ConnectionOptions,
    /// Where connections are counted.
    pub metrics: Option<PortMetrics>,
}

impl Default for PortOptions {
    fn default() -> Self {
        Self {
            max_connections: 20_000,
            threads: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
            connection: ConnectionOptions::default(),
            metrics: None,
        }
    }
}

/// What all connections of the port share.
struct ServingPort {
    tls: Option<TlsAccept>,
    options: ConnectionOptions,
    stop: CancellationToken,
}

/// Serves until `shutdown` completes, then sends GOAWAY on every connection and lets responses under way finish.
/// `service` makes the service of one connection; it counts its unary responses in the [`ResponseCounts`].
///
/// # Errors
/// When the serving threads cannot be started; a broken connection is not an error here.
pub async fn serve<S: ConnectionService>(
    listener: Listener,
    tls: Option<TlsAccept>,
    options: PortOptions,
    service: impl Fn(Arc<ResponseCounts>) -> S,
    shutdown: impl Future<Output = ()>,
) -> io::Result<()> {
    let cores = Cores::start(options.threads)?;
    let connections = TaskTracker::new();
    let limiter = ConnectionLimiter::new("grpc", options.max_connections, options.metrics);
    let port = Arc::new(ServingPort {
        tls,
        options: options.connection,
        stop: CancellationToken::new(),
    });
    let mut shutdown = std::pin::pin!(shutdown);
    loop {
        let accepted = tokio::select! {
            () = shutdown.as_mut() => break,
            accepted = listener.accept() => accepted,
        };
        let Some(permit) = limiter.acquire().await else {
            continue;
        };
        let responses = Arc::<ResponseCounts>::default();
        let service = service(Arc::clone(&responses));
        let connection = Arc::clone(&port).connection(accepted, permit, service, responses);
        cores.spawn(connections.track_future(connection));
    }
    drop(listener);
    port.stop.cancel();
    connections.close();
    connections.wait().await;
    Ok(())
}

impl ServingPort {
    /// One connection on its core: TLS if the port has it, then HTTP/2.
    async fn connection<S: ConnectionService>(
        self: Arc<Self>,
        accepted: Accepted,
        permit: Permit,
        service: S,
        responses: Arc<ResponseCounts>,
    ) {
        let io = match accepted.register() {
            Ok(io) => io,
            Err(error) => {
                tracing::warn!(%error, "an accepted gRPC connection could not be registered with its runtime");
                return;
            }
        };
        let (service, stop) = ((service, &*responses), self.stop.clone());
        // Boxed, so that a connection does not keep the memory of the handshake, or of the variant that it does not use.
        match &self.tls {
            None => Box::pin(http2::serve(io, service, &self.options, &permit, stop)).await,
            Some(tls) => {
                let io = tokio::select! {
                    io = Box::pin(tls.accept(io, self.options.client_timeout)) => {
                        if io.is_none() {
                            permit.count_handshake();
                        }
                        io
                    }
                    () = permit.evicted() => None,
                    () = self.stop.cancelled() => None,
                };
                if let Some(io) = io {
                    Box::pin(http2::serve(io, service, &self.options, &permit, stop)).await;
                }
            }
        }
    }
}
