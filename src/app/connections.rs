//! The HTTP ports: connections bounded in number, and in the time that a slow client may take.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::service::accept::{Accepted, Listener};

use super::AppError;

/// Connections of one port at the same time; more wait to be accepted.
const MAX_CONNECTIONS: usize = 1024;
/// How long a client may take to send the head of a request, and how long a connection may be idle.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// A quiet HTTP/2 peer is asked after so long whether it is still there …
const PING_EVERY: Duration = Duration::from_secs(30);
/// … and taken for dead after so much more.
const PING_TIMEOUT: Duration = Duration::from_secs(10);

/// Serves a router until `stop`, then lets requests under way finish.
pub(super) fn serve(
    servers: &mut JoinSet<Result<(), AppError>>,
    listener: TcpListener,
    router: Router,
    stop: &CancellationToken,
) {
    let stop = stop.clone();
    servers.spawn(async move {
        accept(Listener::Tcp(listener), router, stop).await;
        Ok(())
    });
}

async fn accept(listener: Listener, router: Router, stop: CancellationToken) {
    let (slots, connections) = (Arc::new(Semaphore::new(MAX_CONNECTIONS)), TaskTracker::new());
    let next = async || {
        let slot = Arc::clone(&slots).acquire_owned().await;
        (slot, listener.accept().await)
    };
    while let Some((slot, accepted)) = stop.run_until_cancelled(next()).await {
        let connection = connection(accepted, router.clone(), stop.clone());
        connections.spawn(async move {
            connection.await;
            drop(slot);
        });
    }
    connections.close();
    connections.wait().await;
}

async fn connection(accepted: Accepted, router: Router, stop: CancellationToken) {
    let io = match accepted.open() {
        Ok(io) => TokioIo::new(io),
        Err(error) => {
            tracing::warn!(%error, "an accepted HTTP connection could not be opened");
            return;
        }
    };
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(PING_EVERY)
        .keep_alive_timeout(PING_TIMEOUT);
    let mut connection = std::pin::pin!(builder.serve_connection(io, TowerToHyperService::new(router)));
    let result = tokio::select! {
        result = connection.as_mut() => result,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = result {
        tracing::debug!(%error, "an HTTP connection broke");
    }
}
