//! An HTTP port: serves a router on connections that are bounded in number and in the time a slow client may take, over TLS where
//! it is configured.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{ConnectInfo, Request};
use axum::response::Response;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::time::timeout;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt;

use super::body_limit::{BodyLimiter, LimitedBody};
use super::http2::{KEEPALIVE_INTERVAL, KEEPALIVE_TIMEOUT};
use super::limiter::{ConnectionActivity, ConnectionLimiter, Permit};
use super::listener::{Accepted, AcceptedIo, Listener};
use super::plain::{PlainRefusal, begins_in_plain};
use super::tls::TlsAccept;
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
    name: &'static str,
    tls: Option<Arc<SecuredPort>>,
    router: Router,
    bodies: Arc<BodyLimiter>,
    client_timeout: Duration,
    stop: CancellationToken,
}

/// What a port with TLS has besides.
struct SecuredPort {
    accept: TlsAccept,
    plain: PlainRefusal,
}

/// Serves a router until `stop` is cancelled, then lets requests under way finish; with `tls`, over TLS alone.
pub async fn serve(
    listener: TcpListener,
    tls: Option<TlsAccept>,
    router: Router,
    options: HttpPortOptions,
    stop: CancellationToken,
) {
    let limiter = ConnectionLimiter::new(options.name, options.max_connections, Some(options.metrics));
    let plain = PlainRefusal::default();
    let port = HttpPort {
        name: options.name,
        tls: tls.map(|accept| Arc::new(SecuredPort { accept, plain })),
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
            Ok(io) => io,
            Err(error) => {
                tracing::warn!(%error, "an accepted HTTP connection could not be registered with the runtime");
                return;
            }
        };
        let Some(tls) = &self.tls else {
            return self.exchange(io, peer, &permit).await;
        };
        let secured = tokio::select! {
            io = self.handshake(tls, io, &permit) => io,
            () = permit.evicted() => None,
            () = self.stop.cancelled() => None,
        };
        if let Some(io) = secured {
            self.exchange(io, peer, &permit).await;
        }
    }

    async fn handshake(&self, tls: &SecuredPort, io: AcceptedIo, permit: &Permit) -> Option<TlsStream<AcceptedIo>> {
        match timeout(self.client_timeout, begins_in_plain(&io)).await {
            Ok(false) => {
                let secured = tls.accept.accept(io, self.client_timeout).await;
                if secured.is_none() {
                    permit.count_handshake();
                }
                return secured;
            }
            Ok(true) => {
                permit.count_handshake();
                tls.plain.refuse(self.name, io).await;
            }
            Err(_) => permit.count_slow(),
        }
        None
    }

    /// HTTP, whatever is below it.
    async fn exchange<IO>(&self, io: IO, peer: Option<ConnectInfo<SocketAddr>>, permit: &Permit)
    where
        IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (builder, activity) = (self.builder(), permit.activity());
        let service = service_fn(|mut request: Request<Incoming>| {
            if let Some(peer) = peer {
                request.extensions_mut().insert(peer);
            }
            self.respond(request, activity.clone())
        });
        let mut connection = std::pin::pin!(builder.serve_connection(TokioIo::new(io), service));
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
