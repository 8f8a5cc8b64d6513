//! TLS accept of a port: performs the server's handshake, with certificates that are read again when they change.

use std::time::Duration;

use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::model::{Clock, MonotonicClock};
use crate::telemetry::throttle::Throttle;
use crate::tls::{Reloaded, ServerTls, TlsError, http_server_config, reload, server_config};

/// Performs handshakes; each new connection gets the newest certificates.
#[derive(Debug)]
pub struct TlsAccept {
    /// As logs and metrics name it.
    port: &'static str,
    config: Reloaded<ServerConfig>,
    failures: FailureLog,
}

/// Logs failed handshakes, at most one line a second.
#[derive(Debug, Default)]
struct FailureLog {
    throttle: Throttle,
    clock: MonotonicClock,
}

impl TlsAccept {
    /// Of the gRPC port. Reads the files now, and again whenever they change.
    ///
    /// # Errors
    /// [`TlsError`] names the file that cannot be used.
    pub fn start(tls: &ServerTls) -> Result<Self, TlsError> {
        Self::start_every(tls, reload::EVERY)
    }

    /// The same, looking at the files this often.
    ///
    /// # Errors
    /// As [`TlsAccept::start`].
    pub fn start_every(tls: &ServerTls, every: Duration) -> Result<Self, TlsError> {
        Self::open("grpc", "gRPC listener's certificates", tls, every, server_config)
    }

    /// The same of the admin port, whose clients may speak HTTP/1.1.
    ///
    /// # Errors
    /// As [`TlsAccept::start`].
    pub fn start_admin(tls: &ServerTls) -> Result<Self, TlsError> {
        let what = "admin listener's certificates";
        Self::open("admin", what, tls, reload::EVERY, http_server_config)
    }

    fn open(
        port: &'static str,
        what: &'static str,
        tls: &ServerTls,
        every: Duration,
        load: fn(&ServerTls) -> Result<ServerConfig, TlsError>,
    ) -> Result<Self, TlsError> {
        let (files, tls) = (tls.files(), tls.clone());
        Ok(Self {
            port,
            config: Reloaded::start(what, files, every, move || load(&tls))?,
            failures: FailureLog::default(),
        })
    }

    /// Performs the handshake. One that fails or takes longer than `limit` is logged, and its connection closed: `None`.
    pub async fn accept<IO>(&self, io: IO, limit: Duration) -> Option<TlsStream<IO>>
    where
        IO: AsyncRead + AsyncWrite + Unpin,
    {
        let acceptor = TlsAcceptor::from(self.config.get());
        let problem = match timeout(limit, acceptor.accept(io)).await {
            Ok(Ok(stream)) => return Some(stream),
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("no handshake within {limit:?}"),
        };
        self.failures.log(self.port, &problem);
        None
    }
}

impl FailureLog {
    fn log(&self, port: &str, problem: &str) {
        if let Some(suppressed) = self.throttle.pass(self.clock.now_us()) {
            tracing::warn!(
                port,
                problem,
                suppressed,
                "TLS handshake failed; the connection is closed"
            );
        }
    }
}
