//! Plain HTTP on a port that speaks TLS: told by its first byte, and answered in a way that its sender can read.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;
use tokio_util::either::Either;

use super::listener::AcceptedIo;

const DETAIL: &str = "this port speaks TLS: ask by https://";
/// How long the sender may take to read the answer.
const LINGER: Duration = Duration::from_secs(1);

/// Refuses plain HTTP; logs the first time.
#[derive(Debug, Default)]
pub(super) struct PlainRefusal {
    is_logged: AtomicBool,
}

/// Whether a connection begins as HTTP does, with a capital letter: a TLS handshake begins with the byte 22. Waits for the first
/// byte, and leaves it to be read.
pub(super) async fn begins_in_plain(io: &AcceptedIo) -> bool {
    let mut first = [0];
    let Either::Left(tcp) = io else { return false };
    tcp.peek(&mut first).await.is_ok_and(|_| first[0].is_ascii_uppercase())
}

impl PlainRefusal {
    /// Answers, and closes the connection.
    pub(super) async fn refuse(&self, port: &str, mut io: AcceptedIo) {
        if !self.is_logged.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                port,
                "plain HTTP on a port that speaks TLS is refused: probes, scrapes and clients of it must use https (told once)"
            );
        }
        let body = format!(r#"{{"type":"about:blank","title":"Bad Request","status":400,"detail":"{DETAIL}"}}"#);
        let head = "HTTP/1.1 400 Bad Request\r\ncontent-type: application/problem+json\r\nconnection: close";
        let answer = format!("{head}\r\ncontent-length: {}\r\n\r\n{body}\n", body.len() + 1);
        let answered = async {
            io.write_all(answer.as_bytes()).await?;
            io.shutdown().await?;
            // Closed with unread bytes, the connection would be reset, and the answer lost on its way.
            let mut rest = [0; 4096];
            while io.read(&mut rest).await? > 0 {}
            std::io::Result::Ok(())
        };
        // Whether the sender reads it is its own concern.
        let _ = timeout(LINGER, answered).await;
    }
}
