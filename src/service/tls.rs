//! TLS on the gRPC listener: raw connections in, connections with a finished handshake out.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_stream::Stream;
use tokio_util::task::AbortOnDropHandle;

use crate::model::{Clock, MonotonicClock};
use crate::telemetry::throttle::Throttle;
use crate::tls::{Reloaded, ServerTls, TlsError, reload, server_config};

/// How long a handshake may take: a client that opens a connection and says nothing must not hold a place for ever.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Handshakes at the same time; more connections wait in the kernel.
const MAX_HANDSHAKES: usize = 1024;

/// The listener's certificates: every new connection gets the newest.
#[derive(Debug)]
pub struct TlsListener {
    config: Reloaded<ServerConfig>,
    refusals: Arc<Refusals>,
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
            refusals: Arc::default(),
        })
    }

    /// Shakes hands with each connection, several at a time. One that fails is logged and dropped; it is no error of
    /// the stream.
    pub fn incoming<IO>(
        self,
        connections: impl Stream<Item = io::Result<IO>>,
    ) -> impl Stream<Item = io::Result<TlsStream<IO>>>
    where
        IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        connections
            .map(move |connection| {
                let (config, refusals) = (self.config.get(), Arc::clone(&self.refusals));
                async move {
                    match connection {
                        // A task of its own: a handshake is a millisecond of arithmetic.
                        Ok(io) => AbortOnDropHandle::new(tokio::spawn(shake_hands(config, refusals, io)))
                            .await
                            .ok()
                            .flatten(),
                        Err(error) => Some(Err(error)),
                    }
                }
            })
            .buffer_unordered(MAX_HANDSHAKES)
            .filter_map(std::future::ready)
    }
}

async fn shake_hands<IO>(
    config: Arc<ServerConfig>,
    refusals: Arc<Refusals>,
    io: IO,
) -> Option<io::Result<TlsStream<IO>>>
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    let problem = match timeout(HANDSHAKE_TIMEOUT, TlsAcceptor::from(config).accept(io)).await {
        Ok(Ok(stream)) => return Some(Ok(stream)),
        Ok(Err(error)) => error.to_string(),
        Err(_) => format!("no handshake within {HANDSHAKE_TIMEOUT:?}"),
    };
    refusals.log(&problem);
    None
}

impl Refusals {
    fn log(&self, problem: &str) {
        if let Some(suppressed) = self.throttle.pass(self.clock.now_us()) {
            tracing::warn!(problem, suppressed, "a TLS connection was refused");
        }
    }
}
