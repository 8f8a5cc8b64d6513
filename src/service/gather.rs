//! A connection whose answers are gathered into few writes, and of which it is known whether its peer has spoken.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::places::Use;

/// HTTP/2's preface and the head of the SETTINGS frame that must follow it.
const GREETING_BYTES: usize = 24 + 9;

/// Says of a connection that it has no vectored writes.
///
/// h2 writes a frame of 256 bytes or more by itself, in a system call of its own, where the connection can write from
/// several buffers at once; where it cannot, only frames of 1024 bytes or more. A denial (status, problem body, metadata)
/// lies between the two: gathered with others it costs a third less.
///
/// From the peer's greeting on, the connection counts as in use.
#[derive(Debug)]
pub(super) struct Gather<IO> {
    io: IO,
    /// Bytes that are still missing to a greeting.
    silent: usize,
    usage: Use,
}

impl<IO> Gather<IO> {
    pub(super) const fn new(io: IO, usage: Use) -> Self {
        Self {
            io,
            silent: GREETING_BYTES,
            usage,
        }
    }

    fn heard(&mut self, bytes: usize) {
        self.silent = self.silent.saturating_sub(bytes);
        if self.silent == 0 {
            self.usage.begin();
        }
    }
}

impl<IO: AsyncRead + Unpin> AsyncRead for Gather<IO> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = Pin::new(&mut self.io).poll_read(cx, buf);
        if self.silent > 0 {
            self.heard(buf.filled().len() - before);
        }
        read
    }
}

impl<IO: AsyncWrite + Unpin> AsyncWrite for Gather<IO> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
