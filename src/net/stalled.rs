//! Stalled-reader timeout: closes a connection whose client sends requests and never reads the responses.
//!
//! HTTP/2 lets a client do so: it closes its flow control windows and still answers pings. Without a timeout, responses
//! would pile up in memory.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::Response;
use hyper::body::{Body, Frame, SizeHint};
use tonic::Status;

use super::unserved::UnservedCalls;

/// Counts the responses of one connection. The connection lives on one thread, so its counters are uncontended.
#[derive(Debug, Default)]
pub struct ResponseCounts {
    started: AtomicU64,
    finished: AtomicU64,
}

impl ResponseCounts {
    /// Completes when, `timeout` after some moment, fewer responses have been read in all than were started before it.
    pub(super) async fn stalled(&self, timeout: Duration) {
        loop {
            let started = self.started.load(Ordering::Relaxed);
            tokio::time::sleep(timeout).await;
            if self.finished.load(Ordering::Relaxed) < started {
                return;
            }
        }
    }
}

/// A service's future whose response is counted.
pub struct CountedResponse<F> {
    response: F,
    /// `None` for server streams, which may stay open.
    counts: Option<Arc<ResponseCounts>>,
    unserved: Option<Arc<UnservedCalls>>,
}

impl<F> CountedResponse<F> {
    /// Counts the response of `response`; without counts it is passed on as it is.
    pub const fn new(response: F, counts: Option<Arc<ResponseCounts>>, unserved: Option<Arc<UnservedCalls>>) -> Self {
        Self {
            response,
            counts,
            unserved,
        }
    }
}

impl<F> Future for CountedResponse<F>
where
    F: Future<Output = Result<Response<tonic::body::Body>, Infallible>> + Unpin,
{
    type Output = Result<Response<CountedBody>, Infallible>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.response).poll(cx).map_ok(|response| {
            if let Some(unserved) = &self.unserved {
                unserved.observe(response.headers());
            }
            response.map(|body| {
                let counts = self.counts.take();
                if let Some(counts) = &counts {
                    counts.started.fetch_add(1, Ordering::Relaxed);
                }
                CountedBody { body, counts }
            })
        })
    }
}

/// A response body that counts as finished when it is dropped: hyper drops it once it is written, or the stream is reset.
pub struct CountedBody {
    body: tonic::body::Body,
    counts: Option<Arc<ResponseCounts>>,
}

impl Drop for CountedBody {
    fn drop(&mut self) {
        if let Some(counts) = &self.counts {
            counts.finished.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Body for CountedBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_client_that_reads_is_left_alone_and_one_that_stops_reading_is_noticed() {
        let counts = Arc::new(ResponseCounts::default());
        let respond = async || {
            let response = std::future::ready(Ok(Response::new(tonic::body::Body::empty())));
            let response = CountedResponse::new(response, Some(Arc::clone(&counts)), None);
            response.await.unwrap()
        };
        let timeout = Duration::from_secs(10);
        let mut stalled = std::pin::pin!(counts.stalled(timeout));
        for _ in 0..20 {
            drop(respond().await);
            tokio::time::advance(Duration::from_secs(3)).await;
            assert!(futures::poll!(stalled.as_mut()).is_pending());
        }
        let unread = respond().await;
        tokio::time::timeout(timeout * 3, stalled).await.unwrap();
        drop(unread);
    }
}
