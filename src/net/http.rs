//! An HTTP port: serves a router on connections that are bounded in number and in the time a slow client may take.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{ConnectInfo, Request};
use axum::response::Response;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt;

use super::body_limit::{BodyLimiter, LimitedBody};
use super::http2::{KEEPALIVE_INTERVAL, KEEPALIVE_TIMEOUT};
use super::limiter::{ConnectionActivity, ConnectionLimiter, Permit};
use super::listener::{Accepted, Listener};
use crate::telemetry::PortMetrics;

/// Most that is read ahead of a request, in bytes; its head must fit.
const MAX_BUFFER_BYTES: usize = 64 << 10;

/// Bounds of an HTTP port, and its name in metrics and logs.
#[derive(Debug, Clone)]
pub struct HttpPortOptions {
    /// One of a few fixed words.
    pub name: &'static str,
    /// Where connections are counted.
    pub metrics: PortMetrics,
    /// Connections at the same time; see [`ConnectionLimiter`] for what happens to more.
    pub max_connections: usize,
    /// How long a client may take to send the head of a request, or its body, and how long a connection may be idle.
    pub client_timeout: Duration,
}

/// What all connections of the port share.
#[derive(Clone)]
struct HttpPort {
    router: Router,
    bodies: Arc<BodyLimiter>,
    client_timeout: Duration,
    stop: CancellationToken,
}

/// Serves a router until `stop` is cancelled, then lets requests under way finish.
pub async fn serve(listener: TcpListener, router: Router, options: HttpPortOptions, stop: CancellationToken) {
    let limiter = ConnectionLimiter::new(options.name, options.max_connections, Some(options.metrics));
    let port = HttpPort {
        router,
        bodies: BodyLimiter::new(options.client_timeout),
        client_timeout: options.client_timeout,
        stop: stop.clone(),
    };
    let (listener, connections) = (Listener::Tcp(listener), TaskTracker::new());
    while let Some(accepted) = stop.run_until_cancelled(listener.accept()).await {
        if let Some(permit) = limiter.acquire().await {
            connections.spawn(port.clone().connection(accepted, permit));
        }
    }
    drop(listener);
    connections.close();
    connections.wait().await;
}

impl HttpPort {
    async fn connection(self, accepted: Accepted, permit: Permit) {
        let peer = accepted.peer().map(ConnectInfo);
        let io = match accepted.register() {
            Ok(io) => TokioIo::new(io),
            Err(error) => {
                tracing::warn!(%error, "an accepted HTTP connection could not be registered with the runtime");
                return;
            }
        };
        let (builder, activity) = (self.builder(), permit.activity());
        let service = service_fn(|mut request: Request<Incoming>| {
            if let Some(peer) = peer {
                request.extensions_mut().insert(peer);
            }
            self.respond(request, activity.clone())
        });
        let mut connection = std::pin::pin!(builder.serve_connection(io, service));
        let served = async {
            tokio::select! {
                result = connection.as_mut() => result,
                () = self.stop.cancelled() => {
                    connection.as_mut().graceful_shutdown();
                    connection.await
                }
            }
        };
        let result = tokio::select! {
            result = served => result,
            // From the first byte to the first request's head; hyper's own timeout covers the later ones.
            () = permit.preface_timeout(self.client_timeout, &self.stop) => return permit.count_slow(),
            () = permit.evicted() => return,
        };
        if let Err(error) = result {
            tracing::debug!(%error, "an HTTP connection broke");
        }
    }

    fn builder(&self) -> auto::Builder<TokioExecutor> {
        let mut builder = auto::Builder::new(TokioExecutor::new());
        builder
            .http1()
            .timer(TokioTimer::new())
            .max_buf_size(MAX_BUFFER_BYTES)
            .header_read_timeout(self.client_timeout);
        builder
            .http2()
            .timer(TokioTimer::new())
            .keep_alive_interval(KEEPALIVE_INTERVAL)
            .keep_alive_timeout(KEEPALIVE_TIMEOUT);
        builder
    }

    fn respond(
        &self,
        request: Request<Incoming>,
        activity: ConnectionActivity,
    ) -> impl Future<Output = Result<Response, Infallible>> + Send + use<> {
        let active = activity.guard();
        let request = request.map(|body| LimitedBody::new(body, &self.bodies).pausing(activity));
        let response = self.router.clone().oneshot(request);
        async move {
            let response = response.await;
            drop(active);
            response
        }
    }
}
