//! A request's body on its way: bounded in time, and in what all that have not arrived yet hold together.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use tokio::time::{Sleep, sleep};
use tonic::Status;

use super::places::Use;

/// Bytes that bodies of one port may hold while they are waited for.
const MAX_HELD_BYTES: usize = 128 << 20;
/// What one of them costs beside its bytes: a stream, a task, a timer.
const BODY_BYTES: usize = 8 << 10;

/// The bodies of one port.
#[derive(Debug)]
pub struct Arrivals {
    /// How long one may take.
    timeout: Duration,
    held: AtomicUsize,
}

/// One body. What arrives together with its head, as all requests of Envoy do, is not touched.
#[derive(Debug)]
pub struct Arriving<B> {
    body: B,
    arrivals: Arc<Arrivals>,
    /// Bytes that have come.
    come: usize,
    waiting: Option<Waiting>,
    usage: Option<Use>,
}

#[derive(Debug)]
struct Waiting {
    too_late: Pin<Box<Sleep>>,
    held: usize,
}

impl Arrivals {
    /// For a port where a body may take this long.
    #[must_use]
    pub fn new(timeout: Duration) -> Arc<Self> {
        Arc::new(Self {
            timeout,
            held: AtomicUsize::new(0),
        })
    }

    /// Holds so many bytes more.
    fn hold(&self, bytes: usize) -> Result<(), Status> {
        if self.held.fetch_add(bytes, Ordering::Relaxed).saturating_add(bytes) > MAX_HELD_BYTES {
            self.held.fetch_sub(bytes, Ordering::Relaxed);
            return Err(Status::unavailable(
                "too many unfinished requests; send each at once, or try again later",
            ));
        }
        Ok(())
    }
}

impl<B> Arriving<B> {
    /// Bounds a body.
    #[must_use]
    pub fn new(body: B, arrivals: &Arc<Arrivals>) -> Self {
        Self {
            body,
            arrivals: Arc::clone(arrivals),
            come: 0,
            waiting: None,
            usage: None,
        }
    }

    /// While this body is waited for, its connection is not in use: it leaves before others when places are short.
    #[must_use]
    pub fn of(mut self, usage: Use) -> Self {
        self.usage = Some(usage);
        self
    }

    /// There is nothing to read now.
    fn wait(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Status>> {
        if self.waiting.is_none() {
            let held = BODY_BYTES + self.come;
            self.arrivals.hold(held)?;
            self.waiting = Some(Waiting {
                too_late: Box::pin(sleep(self.arrivals.timeout)),
                held,
            });
            if let Some(usage) = &self.usage {
                usage.end();
            }
        }
        let late = self.waiting.as_mut().map(|waiting| waiting.too_late.as_mut().poll(cx));
        match late {
            Some(Poll::Ready(())) => Poll::Ready(Err(Status::deadline_exceeded(format!(
                "the request's body did not arrive within {:?}",
                self.arrivals.timeout
            )))),
            _ => Poll::Pending,
        }
    }

    /// So many bytes came.
    fn came(&mut self, bytes: usize) -> Result<(), Status> {
        self.come += bytes;
        if let Some(waiting) = &mut self.waiting {
            self.arrivals.hold(bytes)?;
            waiting.held += bytes;
        }
        Ok(())
    }

    fn release(&mut self) {
        if let Some(waiting) = self.waiting.take() {
            self.arrivals.held.fetch_sub(waiting.held, Ordering::Relaxed);
            if let Some(usage) = &self.usage {
                usage.begin();
            }
        }
    }
}

impl<B> Drop for Arriving<B> {
    fn drop(&mut self) {
        self.release();
    }
}

impl<B> Body for Arriving<B>
where
    B: Body<Data = Bytes, Error: Into<Box<dyn std::error::Error + Send + Sync>>> + Unpin,
{
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let frame = match Pin::new(&mut self.body).poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => self.came(frame.data_ref().map_or(0, Bytes::len)).map(|()| frame),
            Poll::Ready(Some(Err(error))) => Err(Status::from_error(error.into())),
            Poll::Ready(None) => {
                self.release();
                return Poll::Ready(None);
            }
            Poll::Pending => match self.wait(cx) {
                Poll::Ready(Err(late)) => Err(late),
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

    /// A body whose bytes come when the test says so.
    struct Given(UnboundedReceiver<usize>);

    impl Body for Given {
        type Data = Bytes;
        type Error = std::convert::Infallible;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
            let given = self.0.poll_recv(cx);
            given.map(|bytes| bytes.map(|bytes| Ok(Frame::data(Bytes::from(vec![0; bytes])))))
        }
    }

    fn given(arrivals: &Arc<Arrivals>) -> (UnboundedSender<usize>, Arriving<Given>) {
        let (sender, receiver) = unbounded_channel();
        (sender, Arriving::new(Given(receiver), arrivals))
    }

    async fn next(body: &mut Arriving<Given>) -> Option<Result<usize, Code>> {
        let frame = poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx)).await?;
        Some(
            frame
                .map(|frame| frame.data_ref().unwrap().len())
                .map_err(|status| status.code()),
        )
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_trickles_has_its_time_in_all() {
        let arrivals = Arrivals::new(Duration::from_secs(10));
        let (send, mut body) = given(&arrivals);
        let trickle = tokio::spawn(async move {
            while send.send(1).is_ok() {
                sleep(Duration::from_secs(3)).await;
            }
        });
        let mut came = 0;
        let end = loop {
            match next(&mut body).await.unwrap() {
                Ok(bytes) => came += bytes,
                Err(code) => break code,
            }
        };
        assert_eq!((came, end), (4, Code::DeadlineExceeded));
        drop(body);
        trickle.await.unwrap();
        assert_eq!(arrivals.held.load(Ordering::Relaxed), 0);
    }

    #[tokio::test]
    async fn what_has_come_before_anybody_waits_is_not_counted() {
        let arrivals = Arrivals::new(Duration::from_secs(10));
        let (send, mut body) = given(&arrivals);
        send.send(MAX_HELD_BYTES * 2).unwrap();
        drop(send);
        assert_eq!(next(&mut body).await, Some(Ok(MAX_HELD_BYTES * 2)));
        assert_eq!(next(&mut body).await, None);
    }

    #[tokio::test]
    async fn all_that_wait_share_a_bound() {
        let arrivals = Arrivals::new(Duration::from_secs(10));
        let most = MAX_HELD_BYTES / BODY_BYTES;
        let mut bodies: Vec<_> = (0..=most).map(|_| given(&arrivals)).collect();
        let (_send, mut last) = bodies.pop().unwrap();
        for (_, body) in &mut bodies {
            assert!(futures::poll!(std::pin::pin!(next(body))).is_pending());
        }
        assert_eq!(next(&mut last).await, Some(Err(Code::Unavailable)));
        // Those that are there cannot grow, and make room when they leave.
        let (send, mut first) = bodies.pop().unwrap();
        send.send(1).unwrap();
        assert_eq!(next(&mut first).await, Some(Err(Code::Unavailable)));
        drop(first);
        assert!(futures::poll!(std::pin::pin!(next(&mut last))).is_pending());
        drop((bodies, last));
        assert_eq!(arrivals.held.load(Ordering::Relaxed), 0);
    }
}
