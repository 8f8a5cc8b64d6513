//! Listening sockets: bind, accept, and hand each connection to the runtime that serves it.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use tokio::net::{TcpListener, TcpSocket, TcpStream, UnixListener, UnixStream};
use tokio_util::either::Either;

/// Pause after an accept that failed for lack of a file descriptor or memory.
const RETRY_PAUSE: Duration = Duration::from_millis(100);

/// Connections that may wait to be accepted.
const BACKLOG: u32 = 4096;

/// A listening socket.
#[derive(Debug)]
pub enum Listener {
    /// TCP.
    Tcp(TcpListener),
    /// A unix socket.
    Unix(UnixListener),
}

/// An accepted connection that is registered with no runtime yet, so that it can be moved to one.
#[derive(Debug)]
pub(super) enum Accepted {
    Tcp(std::net::TcpStream),
    Unix(std::os::unix::net::UnixStream),
}

/// An accepted connection on the runtime that serves it.
pub(super) type AcceptedIo = Either<TcpStream, UnixStream>;

/// Listens on a TCP address.
///
/// # Errors
/// When the operating system refuses it.
pub fn bind_tcp(addr: SocketAddr) -> io::Result<TcpListener> {
    let socket = if addr.is_ipv4() {
        TcpSocket::new_v4()
    } else {
        TcpSocket::new_v6()
    }?;
    // A restart must not wait for old connections to time out.
    socket.set_reuseaddr(true)?;
    socket.bind(addr)?;
    socket.listen(BACKLOG)
}

/// Listens on a unix socket; removes one that an earlier process left behind.
///
/// # Errors
/// When the operating system refuses it, or a process listens on it.
pub async fn bind_unix(path: &Path) -> io::Result<UnixListener> {
    if is_socket(path) && UnixStream::connect(path).await.is_err() {
        std::fs::remove_file(path)?;
    }
    UnixListener::bind(path)
}

fn is_socket(path: &Path) -> bool {
    use std::os::unix::fs::FileTypeExt;
    std::fs::symlink_metadata(path).is_ok_and(|meta| meta.file_type().is_socket())
}

impl Listener {
    /// The next connection. Skips clients that have closed theirs already; when the operating system is short of file
    /// descriptors or memory, logs it once and tries again every [`RETRY_PAUSE`].
    pub(super) async fn accept(&self) -> Accepted {
        let mut failures: u64 = 0;
        loop {
            match self.try_accept().await {
                Ok(accepted) => {
                    if failures > 0 {
                        tracing::info!(failures, "connections are accepted again after failures");
                    }
                    return accepted;
                }
                Err(error) if is_from_client(&error) => {}
                Err(error) => {
                    if failures == 0 {
                        tracing::warn!(%error, "a connection could not be accepted; trying again every {RETRY_PAUSE:?}");
                    }
                    failures += 1;
                    tokio::time::sleep(RETRY_PAUSE).await;
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
    /// The client's address; `None` on a unix socket.
    pub(super) fn peer(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(stream) => stream.peer_addr().ok(),
            Self::Unix(_) => None,
        }
    }

    /// Registers the connection with the runtime that this is called on.
    ///
    /// # Errors
    /// When the operating system refuses to watch another socket.
    pub(super) fn register(self) -> io::Result<AcceptedIo> {
        match self {
            Self::Tcp(stream) => TcpStream::from_std(stream).map(Either::Left),
            Self::Unix(stream) => UnixStream::from_std(stream).map(Either::Right),
        }
    }
}

fn is_from_client(error: &io::Error) -> bool {
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
