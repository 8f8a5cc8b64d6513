//! How lines travel.

use std::fmt;
use std::io::{self, Write};
use std::net::{TcpStream, ToSocketAddrs, UdpSocket};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use cadence::{BufferedUdpMetricSink, MetricResult, MetricSink, StatsdClient};

use crate::config::settings::{StatsdSettings, StatsdTransport};

/// How long connecting and writing may take.
const PATIENCE: Duration = Duration::from_secs(2);
/// Bytes of a datagram that no link splits.
const DATAGRAM: usize = 1432;

/// A way to the server.
pub(super) struct Transport {
    settings: StatsdSettings,
    connection: Option<TcpStream>,
}

impl Transport {
    pub(super) const fn new(settings: StatsdSettings) -> Self {
        Self {
            settings,
            connection: None,
        }
    }

    /// Sends what `write` hands to the client, all of it or (as far as can be known) nothing.
    pub(super) fn send(&mut self, write: impl FnOnce(&StatsdClient) -> MetricResult<()>) -> io::Result<()> {
        match self.settings.transport {
            StatsdTransport::Udp => self.send_datagrams(write),
            StatsdTransport::Tcp => {
                let lines = Lines::default();
                write(&StatsdClient::from_sink("", lines.clone())).map_err(io::Error::other)?;
                self.send_bytes(&lines.lock())
            }
        }
    }

    fn send_datagrams(&self, write: impl FnOnce(&StatsdClient) -> MetricResult<()>) -> io::Result<()> {
        // The name is looked up each time: the server may have moved.
        let server = self.resolve()?;
        let here = if server.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
        let sink =
            BufferedUdpMetricSink::with_capacity(server, UdpSocket::bind(here)?, DATAGRAM).map_err(io::Error::other)?;
        let client = StatsdClient::from_sink("", sink);
        write(&client).and_then(|()| client.flush()).map_err(io::Error::other)
    }

    fn send_bytes(&mut self, lines: &[u8]) -> io::Result<()> {
        if lines.is_empty() {
            return Ok(());
        }
        let mut connection = match self.connection.take().filter(is_open) {
            Some(connection) => connection,
            None => self.connect()?,
        };
        connection.write_all(lines)?;
        self.connection = Some(connection);
        Ok(())
    }

    fn connect(&self) -> io::Result<TcpStream> {
        let connection = TcpStream::connect_timeout(&self.resolve()?, PATIENCE)?;
        connection.set_write_timeout(Some(PATIENCE))?;
        Ok(connection)
    }

    fn resolve(&self) -> io::Result<std::net::SocketAddr> {
        let StatsdSettings { host, port, .. } = &self.settings;
        let mut found = (host.as_str(), *port).to_socket_addrs()?;
        found
            .next()
            .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "the name has no address"))
    }
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.settings.host, self.settings.port)
    }
}

/// Whether the server has not closed it: a write would seem to succeed once more.
fn is_open(connection: &TcpStream) -> bool {
    let nothing_yet = |error: io::Error| error.kind() == io::ErrorKind::WouldBlock;
    connection.set_nonblocking(true).is_ok()
        && connection.peek(&mut [0]).map_or_else(nothing_yet, |read| read > 0)
        && connection.set_nonblocking(false).is_ok()
}

/// Lines that wait to be written in one go.
#[derive(Debug, Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Lines {
    fn lock(&self) -> MutexGuard<'_, Vec<u8>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl MetricSink for Lines {
    fn emit(&self, metric: &str) -> io::Result<usize> {
        let mut lines = self.lock();
        lines.extend_from_slice(metric.as_bytes());
        lines.push(b'\n');
        Ok(metric.len() + 1)
    }
}
