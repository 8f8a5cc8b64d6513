//! Ports.

use std::net::SocketAddr;

use axum::Router;
use tokio::net::{TcpListener, TcpSocket};
use tokio::task::JoinSet;
use tokio_stream::wrappers::UnixListenerStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::server::TcpIncoming;

use crate::config::settings::ListenSettings;
use crate::service::server::GrpcServer;

use super::AppError;

/// Connections that may wait to be accepted.
const BACKLOG: u32 = 4096;

/// Takes a TCP port.
pub(super) fn tcp(addr: SocketAddr, what: &'static str, flag: &'static str) -> Result<TcpListener, AppError> {
    let bind = || {
        let socket = if addr.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        // A restart must not wait for old connections to time out.
        socket.set_reuseaddr(true)?;
        socket.bind(addr)?;
        socket.listen(BACKLOG)
    };
    bind().map_err(|error| AppError::Listen { what, flag, addr: addr.to_string(), error })
}

/// Serves a router until `stop`.
pub(super) fn serve_http(
    servers: &mut JoinSet<Result<(), AppError>>,
    listener: TcpListener,
    router: Router,
    stop: &CancellationToken,
) {
    let stop = stop.clone().cancelled_owned();
    servers.spawn(async move {
        axum::serve(listener, router).with_graceful_shutdown(stop).await.map_err(AppError::Http)
    });
}

/// The gRPC port, whatever it is made of.
pub(super) enum GrpcListener {
    /// Plain TCP.
    Tcp(TcpListener),
    /// A unix socket.
    Unix(tokio::net::UnixListener),
}

impl GrpcListener {
    /// Takes the port.
    pub(super) async fn bind(settings: &ListenSettings) -> Result<Self, AppError> {
        let Some(path) = &settings.grpc_uds else {
            return tcp(settings.grpc_addr, "gRPC", "--grpc-addr").map(Self::Tcp);
        };
        let failed = |error| AppError::Listen {
            what: "gRPC",
            flag: "--grpc-uds",
            addr: path.display().to_string(),
            error,
        };
        // A socket that a process before us left behind is not in use: nobody answers on it.
        if tokio::net::UnixStream::connect(path).await.is_err() && is_socket(path) {
            std::fs::remove_file(path).map_err(failed)?;
        }
        tokio::net::UnixListener::bind(path).map(Self::Unix).map_err(failed)
    }

    /// The TCP address.
    pub(super) fn tcp_addr(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(listener) => listener.local_addr().ok(),
            Self::Unix(_) => None,
        }
    }

    /// Serves until `stop` completes.
    pub(super) async fn serve(self, server: GrpcServer, stop: impl Future<Output = ()>) -> Result<(), AppError> {
        match self {
            Self::Tcp(listener) => server.serve(TcpIncoming::from(listener).with_nodelay(Some(true)), stop).await?,
            Self::Unix(listener) => server.serve(UnixListenerStream::new(listener), stop).await?,
        }
        Ok(())
    }
}

fn is_socket(path: &std::path::Path) -> bool {
    use std::os::unix::fs::FileTypeExt;
    std::fs::symlink_metadata(path).is_ok_and(|meta| meta.file_type().is_socket())
}
