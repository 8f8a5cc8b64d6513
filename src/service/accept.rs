//! The listening socket: accepts, and hands each connection to a core.

use std::io;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio_util::either::Either;

/// After the operating system had no room for another connection (no file descriptor, no memory).
const PAUSE: Duration = Duration::from_millis(100);

/// A socket that listens.
#[derive(Debug)]
pub enum Listener {
    /// TCP.
    Tcp(TcpListener),
    /// A unix socket.
    Unix(UnixListener),
}

/// An accepted connection that belongs to no runtime, so that it can be moved to one.
#[derive(Debug)]
pub(crate) enum Accepted {
    Tcp(std::net::TcpStream),
    Unix(std::os::unix::net::UnixStream),
}

/// An accepted connection on the runtime that serves it.
pub(crate) type Io = Either<TcpStream, UnixStream>;

impl Listener {
    /// The next connection. A peer that is gone already is passed over; when the system has no room, it is tried again
    /// after a pause, and said in the log.
    pub(crate) async fn accept(&self) -> Accepted {
        let mut failures: u64 = 0;
        loop {
            match self.try_accept().await {
                Ok(accepted) => {
                    if failures > 0 {
                        tracing::info!(failures, "connections are accepted again");
                    }
                    return accepted;
                }
                Err(error) if is_the_peers(&error) => {}
                Err(error) => {
                    if failures == 0 {
                        tracing::warn!(%error, "a connection could not be accepted; trying again every {PAUSE:?}");
                    }
                    failures += 1;
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }

    async fn try_accept(&self) -> io::Result<Accepted> {
        match self {
            Self::Tcp(listener) => {
                let (stream, _) = listener.accept().await?;
                // Answers are small and must not wait for one another.
                stream.set_nodelay(true)?;
                stream.into_std().map(Accepted::Tcp)
            }
            Self::Unix(listener) => {
                let (stream, _) = listener.accept().await?;
                stream.into_std().map(Accepted::Unix)
            }
        }
    }
}

impl Accepted {
    /// The other end of a TCP connection.
    pub(crate) fn peer(&self) -> Option<std::net::SocketAddr> {
        match self {
            Self::Tcp(stream) => stream.peer_addr().ok(),
            Self::Unix(_) => None,
        }
    }

    /// Registers the connection with the runtime that this is called on.
    pub(crate) fn open(self) -> io::Result<Io> {
        match self {
            Self::Tcp(stream) => TcpStream::from_std(stream).map(Either::Left),
            Self::Unix(stream) => UnixStream::from_std(stream).map(Either::Right),
        }
    }
}

fn is_the_peers(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::Interrupted
            | io::ErrorKind::InvalidInput
            | io::ErrorKind::NotConnected
    )
}
