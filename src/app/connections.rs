//! The HTTP ports: connections bounded in number, and in the time that a slow client may take.

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
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt;

use crate::service::accept::{Accepted, Listener};
use crate::service::arrival::{Arrivals, Arriving};
use crate::service::connection::{KEEPALIVE_INTERVAL, KEEPALIVE_TIMEOUT};
use crate::service::places::{Place, Places, Use};
use crate::telemetry::PortMetrics;

use super::AppError;

/// Most that is read ahead of a request, in bytes; its head must fit.
const MAX_BUFFER_BYTES: usize = 64 << 10;

/// What bounds a port, and what it is called in metrics and logs.
#[derive(Debug, Clone)]
pub(super) struct Bounds {
    pub(super) name: &'static str,
    pub(super) metrics: PortMetrics,
    /// Connections at the same time.
    pub(super) connections: usize,
    /// How long a client may take to send the head of a request, or its body, and how long a connection may be idle.
    pub(super) client_timeout: Duration,
}

/// One port.
#[derive(Clone)]
struct Port {
    router: Router,
    arrivals: Arc<Arrivals>,
    client_timeout: Duration,
    stop: CancellationToken,
}

/// Serves a router until `stop`, then lets requests under way finish.
pub(super) fn serve(
    servers: &mut JoinSet<Result<(), AppError>>,
    listener: TcpListener,
    router: Router,
    bounds: Bounds,
    stop: &CancellationToken,
) {
    let places = Places::new(bounds.name, bounds.connections, Some(bounds.metrics));
    let port = Port {
        router,
        arrivals: Arrivals::new(bounds.client_timeout),
        client_timeout: bounds.client_timeout,
        stop: stop.clone(),
    };
    servers.spawn(async move {
        port.accept(Listener::Tcp(listener), &places).await;
        Ok(())
    });
}

impl Port {
    async fn accept(self, listener: Listener, places: &Arc<Places>) {
        let connections = TaskTracker::new();
        while let Some(accepted) = self.stop.run_until_cancelled(listener.accept()).await {
            if let Some(place) = places.take().await {
                connections.spawn(self.clone().connection(accepted, place));
            }
        }
        connections.close();
        connections.wait().await;
    }

    async fn connection(self, accepted: Accepted, place: Place) {
        let peer = accepted.peer().map(ConnectInfo);
        let io = match accepted.open() {
            Ok(io) => TokioIo::new(io),
            Err(error) => {
                tracing::warn!(%error, "an accepted HTTP connection could not be opened");
                return;
            }
        };
        let (builder, usage) = (self.builder(), place.usage());
        let service = service_fn(|mut request: Request<Incoming>| {
            if let Some(peer) = peer {
                request.extensions_mut().insert(peer);
            }
            self.answer(request, usage.clone())
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
            // From the first byte to the first request's head; after that hyper watches.
            () = place.silent(self.client_timeout, &self.stop) => return place.slow(),
            () = place.leave() => return,
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

    fn answer(
        &self,
        request: Request<Incoming>,
        usage: Use,
    ) -> impl Future<Output = Result<Response, Infallible>> + Send + use<> {
        let in_use = usage.guard();
        let request = request.map(|body| Arriving::new(body, &self.arrivals).of(usage));
        let answer = self.router.clone().oneshot(request);
        async move {
            let answer = answer.await;
            drop(in_use);
            answer
        }
    }
}
