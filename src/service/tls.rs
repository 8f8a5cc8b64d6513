//! TLS on the gRPC listener: a raw connection in, one with a finished handshake out.

use std::time::Duration;

use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::model::{Clock, MonotonicClock};
use crate::telemetry::throttle::Throttle;
use crate::tls::{Reloaded, ServerTls, TlsError, reload, server_config};

/// The listener's certificates: every new connection gets the newest.
#[derive(Debug)]
pub struct TlsListener {
    config: Reloaded<ServerConfig>,
    refusals: Refusals,
}

/// Refused handshakes, at most one log line a second.
#[derive(Debug, Default)]
struct Refusals {
    throttle: Throttle,
    clock: MonotonicClock,
}

impl TlsListener {
    /// Reads the files now, and again whenever they change.
    ///
    /// # Errors
    /// [`TlsError`] names the file that cannot be used.
    pub fn start(tls: &ServerTls) -> Result<Self, TlsError> {
        Self::start_every(tls, reload::EVERY)
    }

    /// The same, looking at the files this often.
    ///
    /// # Errors
    /// As [`TlsListener::start`].
    pub fn start_every(tls: &ServerTls, every: Duration) -> Result<Self, TlsError> {
        let files = tls.files();
        let tls = tls.clone();
        let config = Reloaded::start("gRPC listener's certificates", files, every, move || {
            server_config(&tls)
        })?;
        Ok(Self {
            config,
            refusals: Refusals::default(),
        })
    }

    /// Shakes hands. A peer with which that fails, or takes longer than `patience`, is logged and dropped: `None`.
    pub async fn accept<IO>(&self, io: IO, patience: Duration) -> Option<TlsStream<IO>>
    where
        IO: AsyncRead + AsyncWrite + Unpin,
    {
        let acceptor = TlsAcceptor::from(self.config.get());
        let problem = match timeout(patience, acceptor.accept(io)).await {
            Ok(Ok(stream)) => return Some(stream),
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("no handshake within {patience:?}"),
        };
        self.refusals.log(&problem);
        None
    }
}

impl Refusals {
    fn log(&self, problem: &str) {
        if let Some(suppressed) = self.throttle.pass(self.clock.now_us()) {
            tracing::warn!(problem, suppressed, "a TLS connection was refused");
        }
    }
}
