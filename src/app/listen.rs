//! Binds the ports that the settings name; an error says which setting to change.

use std::net::SocketAddr;

use tokio::net::TcpListener;

use crate::config::settings::ListenSettings;
use crate::net::listener::{Listener, bind_tcp, bind_unix};
use crate::net::tls::TlsAccept;
use crate::service::server::GrpcServer;

use super::AppError;

/// Listens on a TCP address.
pub(super) fn tcp(addr: SocketAddr, what: &'static str, flag: &'static str) -> Result<TcpListener, AppError> {
    bind_tcp(addr).map_err(|error| AppError::Listen {
        what,
        flag,
        addr: addr.to_string(),
        error,
    })
}

/// The admin port, and what performs its TLS handshakes.
pub(super) struct AdminListener {
    pub listener: TcpListener,
    pub tls: Option<TlsAccept>,
}

impl AdminListener {
    /// Listens on the port and reads the certificates.
    pub(super) fn bind(settings: &ListenSettings) -> Result<Self, AppError> {
        let tls = settings.admin_tls.as_ref().map(TlsAccept::start_admin).transpose();
        let flag = "--admin-addr, or DEBUG_HOST and DEBUG_PORT";
        warn_of_tokens_in_the_clear(settings);
        Ok(Self {
            tls: tls.map_err(|error| AppError::Tls("admin", error.to_string()))?,
            listener: tcp(settings.admin_addr, "admin HTTP", flag)?,
        })
    }
}

/// Who has certificates for gRPC would not want the token to be read on its way.
fn warn_of_tokens_in_the_clear(settings: &ListenSettings) {
    let is_open = settings.admin_tls.is_none() && !settings.admin_addr.ip().is_loopback();
    if is_open && settings.grpc_tls.is_some() && settings.admin_token_file.is_some() {
        tracing::warn!(
            addr = %settings.admin_addr,
            "the admin port has no TLS, although gRPC has: the admin token crosses the network in the clear \
             (--admin-tls-cert and --admin-tls-key, or ADMIN_TLS_CERT and ADMIN_TLS_KEY; or listen on loopback)"
        );
    }
}

/// The port of metrics alone, if there is one.
pub(super) fn prometheus(settings: &ListenSettings) -> Result<Option<TcpListener>, AppError> {
    let flag = "--prometheus-addr, or PROMETHEUS_ADDR";
    let settings = settings.prometheus.as_ref();
    settings.map(|at| tcp(at.addr, "metrics", flag)).transpose()
}

/// The gRPC port.
pub(super) struct GrpcListener {
    listener: Listener,
    tls: Option<TlsAccept>,
}

impl GrpcListener {
    /// Listens on the port and reads the certificates.
    pub(super) async fn bind(settings: &ListenSettings) -> Result<Self, AppError> {
        let tls = settings.grpc_tls.as_ref().map(TlsAccept::start).transpose();
        let tls = tls.map_err(|error| AppError::Tls("gRPC", error.to_string()))?;
        let listener = match &settings.grpc_uds {
            Some(path) => Listener::Unix(bind_unix(path).await.map_err(|error| AppError::Listen {
                what: "gRPC",
                flag: "--grpc-uds, or GRPC_UDS",
                addr: path.display().to_string(),
                error,
            })?),
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
