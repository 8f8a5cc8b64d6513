//! One HTTP/2 connection, from its first byte to its last.

use std::time::Duration;

use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::answer::{Answer, Answers};
use super::gather::Gather;
use super::places::Place;
use super::server::ServerOptions;

/// A quiet peer is asked this often whether it is still there.
pub(crate) const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(30);
/// And is taken for dead after this much more.
pub(crate) const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);

/// Calls of one connection that were cancelled before we came to them; more, and the connection is closed (rapid reset).
/// Callers give up after 20 ms: where the process was paused for a few hundred (a CPU quota, a stopped virtual machine), a
/// busy Envoy has cancelled hundreds, and all that it has asked since would go with its connection. Each costs some hundred
/// bytes until we come to it.
const MAX_CANCELLED_UNSEEN: usize = 1024;

/// Serves until the peer leaves, the connection's age is reached, or `stop`; then lets answers under way finish. A peer
/// that does not greet in time, or not before its place is needed, or does not take its answers, is left.
pub(super) async fn run<IO, S>(
    io: IO,
    (service, answers): (S, &Answers),
    options: &ServerOptions,
    place: &Place,
    stop: CancellationToken,
) where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    S: hyper::service::Service<
            http::Request<Incoming>,
            Response = http::Response<Answer>,
            Error = std::convert::Infallible,
            Future: Send + 'static,
        >,
{
    let io = TokioIo::new(Gather::new(io, place.usage()));
    let mut connection = std::pin::pin!(builder(options).serve_connection(io, service));
    let aged = async {
        match options.max_connection_age {
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
        match options.max_connection_age_grace.filter(|_| aged) {
            // Past its grace the connection is closed whatever is under way on it.
            Some(grace) => timeout(grace, connection).await.map_or((), log),
            None => log(connection.await),
        }
    };
    // Also of one that was told to go: a peer that has not greeted does not hear it.
    tokio::select! {
        () = served => {}
        () = place.silent(options.client_timeout, &stop) => place.slow(),
        () = answers.not_taken(options.client_timeout) => place.slow(),
        () = place.leave() => {}
    }
}

/// A broken connection is the peer's business; whoever debugs one can see it.
fn log(result: hyper::Result<()>) {
    if let Err(error) = result {
        tracing::debug!(%error, "a gRPC connection broke");
    }
}

/// Up to a tenth more or less, so that connections opened together do not all come back together.
fn jittered(age: Duration) -> Duration {
    age.mul_f64(rand::random_range(0.9..=1.1))
}

fn builder(options: &ServerOptions) -> http2::Builder<TokioExecutor> {
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(options.max_concurrent_streams)
        .max_pending_accept_reset_streams(MAX_CANCELLED_UNSEEN)
        .keep_alive_interval(KEEPALIVE_INTERVAL)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT);
    builder
}
