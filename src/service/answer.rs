//! An answer on its way: whether the peer takes it.
//!
//! HTTP/2 lets a peer ask and never take an answer (it closes its windows, and still says that it is there). A connection
//! whose answers nobody takes is closed, so that they do not pile up.

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

/// The answers of one connection. It lives on one thread, so that the counters are nobody else's.
#[derive(Debug, Default)]
pub(super) struct Answers {
    given: AtomicU64,
    taken: AtomicU64,
}

impl Answers {
    /// Completes once the peer has, for this long, not taken as many answers as it had been given before.
    pub(super) async fn not_taken(&self, patience: Duration) {
        loop {
            let given = self.given.load(Ordering::Relaxed);
            tokio::time::sleep(patience).await;
            if self.taken.load(Ordering::Relaxed) < given {
                return;
            }
        }
    }
}

/// What a service will answer.
pub(super) struct Answering<F> {
    answer: F,
    /// `None` for streams of answers, which may stay open.
    answers: Option<Arc<Answers>>,
}

impl<F> Answering<F> {
    pub(super) const fn new(answer: F, answers: Option<Arc<Answers>>) -> Self {
        Self { answer, answers }
    }
}

impl<F> Future for Answering<F>
where
    F: Future<Output = Result<Response<tonic::body::Body>, Infallible>> + Unpin,
{
    type Output = Result<Response<Answer>, Infallible>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.answer).poll(cx).map_ok(|response| {
            response.map(|body| {
                let answers = self.answers.take();
                if let Some(answers) = &answers {
                    answers.given.fetch_add(1, Ordering::Relaxed);
                }
                Answer { body, answers }
            })
        })
    }
}

/// A body that is dropped when the peer has taken it, or is gone.
pub(super) struct Answer {
    body: tonic::body::Body,
    answers: Option<Arc<Answers>>,
}

impl Drop for Answer {
    fn drop(&mut self) {
        if let Some(answers) = &self.answers {
            answers.taken.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Body for Answer {
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
    async fn a_peer_that_takes_is_left_alone_and_one_that_stops_is_noticed() {
        let answers = Arc::new(Answers::default());
        let give = async || {
            let answer = std::future::ready(Ok(Response::new(tonic::body::Body::empty())));
            Answering::new(answer, Some(Arc::clone(&answers))).await.unwrap()
        };
        let patience = Duration::from_secs(10);
        let mut not_taken = std::pin::pin!(answers.not_taken(patience));
        for _ in 0..20 {
            drop(give().await);
            tokio::time::advance(Duration::from_secs(3)).await;
            assert!(futures::poll!(not_taken.as_mut()).is_pending());
        }
        let kept = give().await;
        tokio::time::timeout(patience * 3, not_taken).await.unwrap();
        drop(kept);
    }
}
