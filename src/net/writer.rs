//! Connection wrapper with a coalescing (non-vectored) writer that also recognizes the client's HTTP/2 preface.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::authority::AuthorityFilter;
use super::limiter::ConnectionActivity;
use super::resets::ResetWatch;

/// HTTP/2 connection preface and the header of the SETTINGS frame that must follow it (RFC 9113, 3.4), in bytes.
const PREFACE_BYTES: usize = 24 + 9;

/// A connection that reports no support for vectored writes.
///
/// h2 writes a frame of 256 bytes or more in a system call of its own where the connection supports vectored writes,
/// and otherwise only frames of 1024 bytes or more. A denial (status, problem body, metadata) lies between the two:
/// coalesced with other frames it costs a third less CPU.
///
/// Once the client's preface is complete, the connection counts as active.
#[derive(Debug)]
pub(super) struct CoalescingIo<IO> {
    io: IO,
    /// Bytes that the preface still lacks.
    preface_missing: usize,
    activity: ConnectionActivity,
    resets: ResetWatch,
    authority: AuthorityFilter,
}

impl<IO> CoalescingIo<IO> {
    pub(super) const fn new(io: IO, activity: ConnectionActivity, resets: ResetWatch) -> Self {
        Self {
            io,
            preface_missing: PREFACE_BYTES,
            activity,
            resets,
            authority: AuthorityFilter::new(),
        }
    }

    fn record_preface(&mut self, bytes: usize) {
        self.preface_missing = self.preface_missing.saturating_sub(bytes);
        if self.preface_missing == 0 {
            self.activity.begin();
        }
    }
}

impl<IO: AsyncRead + Unpin> AsyncRead for CoalescingIo<IO> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = Pin::new(&mut self.io).poll_read(cx, buf);
        if self.preface_missing > 0 {
            let bytes = buf.filled().get(before..).unwrap_or_default();
            if self.preface_missing == PREFACE_BYTES && !bytes.is_empty() {
                self.resets.check_protocol(bytes);
            }
            self.record_preface(bytes.len());
        }
        if let Some(bytes) = buf.filled_mut().get_mut(before..) {
            self.authority.pass(bytes);
        }
        read
    }
}

impl<IO: AsyncWrite + Unpin> AsyncWrite for CoalescingIo<IO> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.io).poll_write(cx, buf);
        if let Poll::Ready(Ok(bytes)) = written {
            self.resets.record_written(&buf[..bytes.min(buf.len())]);
        }
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
