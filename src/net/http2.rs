//! One HTTP/2 connection, from its first byte to its last.

use std::convert::Infallible;
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::limiter::Permit;
use super::resets::ResetWatch;
use super::stalled::{CountedBody, ResponseCounts};
use super::writer::CoalescingIo;

/// A silent client is sent a PING this often.
pub(super) const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(30);
/// A client that does not answer a PING within this time is disconnected.
pub(super) const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);

/// Most streams of one connection that are reset before the server accepts them; with more, the connection is closed (rapid
/// reset attack). Envoy cancels calls after 20 ms: while the server was paused for a few hundred (a CPU quota, a stopped virtual
/// machine), a busy Envoy has reset hundreds, and its newer calls would be lost with the connection. Each costs some hundred
/// bytes until the server accepts it.
const MAX_RESET_BEFORE_ACCEPT: usize = 1024;

/// Bounds of a connection.
#[derive(Debug, Clone)]
pub struct ConnectionOptions {
    /// The server sends GOAWAY after this long, up to a tenth more or less.
    pub max_age: Option<Duration>,
    /// And closes the connection after this much more.
    pub max_age_grace: Option<Duration>,
    /// Streams that one connection may have open; Envoy has one connection a worker and opens hundreds.
    pub max_concurrent_streams: u32,
    /// How long a client may take over one step: a TLS handshake, the HTTP/2 preface, a request's body, reading a response.
    pub client_timeout: Duration,
}

impl Default for ConnectionOptions {
    fn default() -> Self {
        Self {
            max_age: None,
            max_age_grace: None,
            max_concurrent_streams: 10_000,
            client_timeout: Duration::from_secs(10),
        }
    }
}

/// A service that one connection calls for each request.
pub trait ConnectionService:
    hyper::service::Service<
        Request<Incoming>,
        Response = Response<CountedBody>,
        Error = Infallible,
        Future: Send + 'static,
    > + Send
    + 'static
{
}

impl<S> ConnectionService for S where
    S: hyper::service::Service<
            Request<Incoming>,
            Response = Response<CountedBody>,
            Error = Infallible,
            Future: Send + 'static,
        > + Send
        + 'static
{
}

/// Serves until the client disconnects, the connection's age is reached or `stop` is cancelled, and then lets responses
/// under way finish. Closes the connection early when the client exceeds the preface timeout or the stalled-reader
/// timeout, or when the connection limiter evicts it.
pub(super) async fn serve<IO, S>(
    io: IO,
    (service, responses): (S, &ResponseCounts),
    options: &ConnectionOptions,
    permit: &Permit,
    stop: CancellationToken,
) where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    S: ConnectionService,
{
    let io = TokioIo::new(CoalescingIo::new(
        io,
        permit.activity(),
        ResetWatch::new(permit.metrics()),
    ));
    let mut connection = std::pin::pin!(builder(options).serve_connection(io, service));
    let aged = async {
        match options.max_age {
            Some(age) => sleep(jittered(age)).await,
            None => std::future::pending().await,
        }
    };
    let served = async {
        let aged = tokio::select! {
            result = connection.as_mut() => return log(result),
            () = stop.cancelled() => false,
            () = aged => true,
        };
        connection.as_mut().graceful_shutdown();
        match options.max_age_grace.filter(|_| aged) {
            // After its grace period the connection is closed, with all requests on it.
            Some(grace) => timeout(grace, connection).await.map_or((), log),
            None => log(connection.await),
        }
    };
    // The timeouts also run after graceful_shutdown: GOAWAY does not reach a client that has not sent its preface.
    tokio::select! {
        () = served => {}
        () = permit.preface_timeout(options.client_timeout, &stop) => permit.count_slow(),
        () = responses.stalled(options.client_timeout) => permit.count_slow(),
        () = permit.evicted() => {}
    }
}

/// A broken connection is the client's fault or the network's, so it is logged for debugging only.
fn log(result: hyper::Result<()>) {
    if let Err(error) = result {
        tracing::debug!(%error, "a gRPC connection broke");
    }
}

/// Up to a tenth more or less, so that connections opened together do not all reconnect together.
fn jittered(age: Duration) -> Duration {
    age.mul_f64(rand::random_range(0.9..=1.1))
}

fn builder(options: &ConnectionOptions) -> http2::Builder<TokioExecutor> {
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(options.max_concurrent_streams)
        .max_pending_accept_reset_streams(MAX_RESET_BEFORE_ACCEPT)
        .keep_alive_interval(KEEPALIVE_INTERVAL)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT);
    builder
}
