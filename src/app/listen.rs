//! Ports.

use std::net::SocketAddr;
use std::path::Path;

use tokio::net::{TcpListener, TcpSocket, UnixListener, UnixStream};

use crate::config::settings::ListenSettings;
use crate::service::accept::Listener;
use crate::service::server::GrpcServer;
use crate::service::tls::TlsListener;

use super::AppError;

/// Connections that may wait to be accepted.
const BACKLOG: u32 = 4096;

/// Takes a TCP port.
pub(super) fn tcp(addr: SocketAddr, what: &'static str, flag: &'static str) -> Result<TcpListener, AppError> {
    let bind = || {
        let socket = if addr.is_ipv4() {
            TcpSocket::new_v4()
        } else {
            TcpSocket::new_v6()
        }?;
        // A restart must not wait for old connections to time out.
        socket.set_reuseaddr(true)?;
        socket.bind(addr)?;
        socket.listen(BACKLOG)
    };
    bind().map_err(|error| AppError::Listen {
        what,
        flag,
        addr: addr.to_string(),
        error,
    })
}

/// The gRPC port.
pub(super) struct GrpcListener {
    listener: Listener,
    tls: Option<TlsListener>,
}

impl GrpcListener {
    /// Takes the port and reads the certificates.
    pub(super) async fn bind(settings: &ListenSettings) -> Result<Self, AppError> {
        let tls = settings.grpc_tls.as_ref().map(TlsListener::start).transpose();
        let tls = tls.map_err(|error| AppError::Tls(error.to_string()))?;
        let listener = match &settings.grpc_uds {
            Some(path) => Listener::Unix(unix(path).await?),
            None => Listener::Tcp(tcp(
                settings.grpc_addr,
                "gRPC",
                "--grpc-addr, or GRPC_HOST and GRPC_PORT",
            )?),
        };
        Ok(Self { listener, tls })
    }

    /// The TCP address.
    pub(super) fn tcp_addr(&self) -> Option<SocketAddr> {
        match &self.listener {
            Listener::Tcp(listener) => listener.local_addr().ok(),
            Listener::Unix(_) => None,
        }
    }

    /// Serves until `stop` completes.
    pub(super) async fn serve(self, server: GrpcServer, stop: impl Future<Output = ()>) -> Result<(), AppError> {
        server
            .serve(self.listener, self.tls, stop)
            .await
            .map_err(AppError::Grpc)
    }
}

async fn unix(path: &Path) -> Result<UnixListener, AppError> {
    let failed = |error| AppError::Listen {
        what: "gRPC",
        flag: "--grpc-uds, or GRPC_UDS",
        addr: path.display().to_string(),
        error,
    };
    // A socket that a process before us left behind is not in use: nobody answers on it.
    if is_socket(path) && UnixStream::connect(path).await.is_err() {
        std::fs::remove_file(path).map_err(failed)?;
    }
    UnixListener::bind(path).map_err(failed)
}

fn is_socket(path: &Path) -> bool {
    use std::os::unix::fs::FileTypeExt;
    std::fs::symlink_metadata(path).is_ok_and(|meta| meta.file_type().is_socket())
}
