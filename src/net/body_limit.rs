//! Request body limiter: bounds the time that one body may take, and the memory that all incomplete bodies of a port
//! hold together.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use tokio::time::{Sleep, sleep};
use tonic::Status;

use super::limiter::ConnectionActivity;

/// Most bytes that incomplete bodies of one port may hold.
const MAX_INCOMPLETE_BYTES: usize = 128 << 20;
/// What an incomplete body costs beside its bytes: a stream, a task, a timer.
const BODY_OVERHEAD_BYTES: usize = 8 << 10;

/// The bounds on the request bodies of one port, and what the incomplete ones hold now.
#[derive(Debug)]
pub struct BodyLimiter {
    timeout: Duration,
    /// In bytes.
    reserved: AtomicUsize,
}

/// One request body under the port's [`BodyLimiter`]. A body that arrives together with its head, as Envoy's do,
/// reserves nothing and starts no timer.
#[derive(Debug)]
pub struct LimitedBody<B> {
    body: B,
    limiter: Arc<BodyLimiter>,
    received_bytes: usize,
    incomplete: Option<Incomplete>,
    activity: Option<ConnectionActivity>,
}

/// The state of a body whose reader has had to wait.
#[derive(Debug)]
struct Incomplete {
    timeout: Pin<Box<Sleep>>,
    reserved_bytes: usize,
}

impl BodyLimiter {
    /// Gives each body of a port this long to arrive.
    #[must_use]
    pub fn new(timeout: Duration) -> Arc<Self> {
        Arc::new(Self {
            timeout,
            reserved: AtomicUsize::new(0),
        })
    }

    fn reserve(&self, bytes: usize) -> Result<(), Status> {
        if self.reserved.fetch_add(bytes, Ordering::Relaxed).saturating_add(bytes) > MAX_INCOMPLETE_BYTES {
            self.reserved.fetch_sub(bytes, Ordering::Relaxed);
            return Err(Status::unavailable(
                "too many unfinished requests; send each at once, or try again later",
            ));
        }
        Ok(())
    }
}

impl<B> LimitedBody<B> {
    /// Bounds a body.
    #[must_use]
    pub fn new(body: B, limiter: &Arc<BodyLimiter>) -> Self {
        Self {
            body,
            limiter: Arc::clone(limiter),
            received_bytes: 0,
            incomplete: None,
            activity: None,
        }
    }

    /// Counts the body's connection as idle while the body is incomplete, so that the connection limiter may evict it.
    #[must_use]
    pub fn pausing(mut self, activity: ConnectionActivity) -> Self {
        self.activity = Some(activity);
        self
    }

    /// Nothing can be read now: reserves memory and starts the timer on the first call.
    fn poll_timeout(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Status>> {
        if self.incomplete.is_none() {
            let reserved_bytes = BODY_OVERHEAD_BYTES + self.received_bytes;
            self.limiter.reserve(reserved_bytes)?;
            self.incomplete = Some(Incomplete {
                timeout: Box::pin(sleep(self.limiter.timeout)),
                reserved_bytes,
            });
            if let Some(activity) = &self.activity {
                activity.end();
            }
        }
        let timeout = self.incomplete.as_mut().map(|body| body.timeout.as_mut().poll(cx));
        match timeout {
            Some(Poll::Ready(())) => Poll::Ready(Err(Status::deadline_exceeded(format!(
                "the request's body did not arrive within {:?}",
                self.limiter.timeout
            )))),
            _ => Poll::Pending,
        }
    }

    fn record_received(&mut self, bytes: usize) -> Result<(), Status> {
        self.received_bytes += bytes;
        if let Some(incomplete) = &mut self.incomplete {
            self.limiter.reserve(bytes)?;
            incomplete.reserved_bytes += bytes;
        }
        Ok(())
    }

    fn release(&mut self) {
        if let Some(incomplete) = self.incomplete.take() {
            self.limiter
                .reserved
                .fetch_sub(incomplete.reserved_bytes, Ordering::Relaxed);
            if let Some(activity) = &self.activity {
                activity.begin();
            }
        }
    }
}

impl<B> Drop for LimitedBody<B> {
    fn drop(&mut self) {
        self.release();
    }
}

impl<B> Body for LimitedBody<B>
where
    B: Body<Data = Bytes, Error: Into<Box<dyn std::error::Error + Send + Sync>>> + Unpin,
{
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let frame = match Pin::new(&mut self.body).poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => {
                let bytes = frame.data_ref().map_or(0, Bytes::len);
                self.record_received(bytes).map(|()| frame)
            }
            Poll::Ready(Some(Err(error))) => Err(Status::from_error(error.into())),
            Poll::Ready(None) => {
                self.release();
                return Poll::Ready(None);
            }
            Poll::Pending => match self.poll_timeout(cx) {
                Poll::Ready(Err(status)) => Err(status),
                _ => return Poll::Pending,
            },
        };
        Poll::Ready(Some(frame))
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
    use std::future::poll_fn;
    use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
    use tonic::Code;

    /// A body whose bytes the test sends.
    struct ChannelBody(UnboundedReceiver<usize>);

    impl Body for ChannelBody {
        type Data = Bytes;
        type Error = std::convert::Infallible;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
            let received = self.0.poll_recv(cx);
            received.map(|bytes| bytes.map(|bytes| Ok(Frame::data(Bytes::from(vec![0; bytes])))))
        }
    }

    fn limited(limiter: &Arc<BodyLimiter>) -> (UnboundedSender<usize>, LimitedBody<ChannelBody>) {
        let (sender, receiver) = unbounded_channel();
        (sender, LimitedBody::new(ChannelBody(receiver), limiter))
    }

    async fn next(body: &mut LimitedBody<ChannelBody>) -> Option<Result<usize, Code>> {
        let frame = poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx)).await?;
        Some(
            frame
                .map(|frame| frame.data_ref().unwrap().len())
                .map_err(|status| status.code()),
        )
    }

    #[tokio::test(start_paused = true)]
    async fn the_timeout_covers_the_whole_body_of_a_slow_client() {
        let limiter = BodyLimiter::new(Duration::from_secs(10));
        let (send, mut body) = limited(&limiter);
        let trickle = tokio::spawn(async move {
            while send.send(1).is_ok() {
                sleep(Duration::from_secs(3)).await;
            }
        });
        let mut received = 0;
        let end = loop {
            match next(&mut body).await.unwrap() {
                Ok(bytes) => received += bytes,
                Err(code) => break code,
            }
        };
        assert_eq!((received, end), (4, Code::DeadlineExceeded));
        drop(body);
        trickle.await.unwrap();
        assert_eq!(limiter.reserved.load(Ordering::Relaxed), 0);
    }

    #[tokio::test]
    async fn a_body_that_is_read_without_waiting_reserves_nothing() {
        let limiter = BodyLimiter::new(Duration::from_secs(10));
        let (send, mut body) = limited(&limiter);
        send.send(MAX_INCOMPLETE_BYTES * 2).unwrap();
        drop(send);
        assert_eq!(next(&mut body).await, Some(Ok(MAX_INCOMPLETE_BYTES * 2)));
        assert_eq!(next(&mut body).await, None);
    }

    #[tokio::test]
    async fn incomplete_bodies_share_one_bound() {
        let limiter = BodyLimiter::new(Duration::from_secs(10));
        let most = MAX_INCOMPLETE_BYTES / BODY_OVERHEAD_BYTES;
        let mut bodies: Vec<_> = (0..=most).map(|_| limited(&limiter)).collect();
        let (_send, mut last) = bodies.pop().unwrap();
        for (_, body) in &mut bodies {
            assert!(futures::poll!(std::pin::pin!(next(body))).is_pending());
        }
        assert_eq!(next(&mut last).await, Some(Err(Code::Unavailable)));
        // At the bound an incomplete body cannot grow; dropping it releases its reservation.
        let (send, mut first) = bodies.pop().unwrap();
        send.send(1).unwrap();
        assert_eq!(next(&mut first).await, Some(Err(Code::Unavailable)));
        drop(first);
        assert!(futures::poll!(std::pin::pin!(next(&mut last))).is_pending());
        drop((bodies, last));
        assert_eq!(limiter.reserved.load(Ordering::Relaxed), 0);
    }
}
