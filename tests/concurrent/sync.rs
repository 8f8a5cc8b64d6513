//! `tokio::sync`: tokio's own, with a point before and after each operation at which another task may go on.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use real_tokio::sync as real;

/// Another task may go on.
pub fn point() {
    shuttle::thread::sleep(Duration::ZERO);
}

/// One step between two points.
fn step<T>(step: impl FnOnce() -> T) -> T {
    point();
    let done = step();
    point();
    done
}

#[derive(Debug, Default)]
pub struct Notify(Arc<real::Notify>);

impl Notify {
    pub fn notified_owned(self: Arc<Self>) -> futures::OwnedNotified {
        step(|| futures::OwnedNotified(Box::pin(Arc::clone(&self.0).notified_owned())))
    }

    pub fn notify_waiters(&self) {
        step(|| self.0.notify_waiters());
    }
}

pub mod futures {
    use super::{Context, Pin, Poll, real};

    pub struct OwnedNotified(pub(super) Pin<Box<real::futures::OwnedNotified>>);

    impl Future for OwnedNotified {
        type Output = ();

        fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
            super::point();
            self.0.as_mut().poll(context)
        }
    }
}

pub mod oneshot {
    use super::{Context, Pin, Poll, real, step};

    #[derive(Debug)]
    pub struct Sender<T>(real::oneshot::Sender<T>);

    #[derive(Debug)]
    pub struct Receiver<T>(real::oneshot::Receiver<T>);

    pub fn channel<T>() -> (Sender<T>, Receiver<T>) {
        let (sender, receiver) = real::oneshot::channel();
        (Sender(sender), Receiver(receiver))
    }

    impl<T> Sender<T> {
        pub fn send(self, value: T) -> Result<(), T> {
            step(|| self.0.send(value))
        }

        pub fn is_closed(&self) -> bool {
            step(|| self.0.is_closed())
        }
    }

    impl<T> Receiver<T> {
        pub fn close(&mut self) {
            step(|| self.0.close());
        }

        pub fn try_recv(&mut self) -> Result<T, real::oneshot::error::TryRecvError> {
            step(|| self.0.try_recv())
        }
    }

    impl<T> Future for Receiver<T> {
        type Output = Result<T, real::oneshot::error::RecvError>;

        fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
            super::point();
            Pin::new(&mut self.0).poll(context)
        }
    }
}

pub mod watch {
    use super::{real, step};

    pub use real::watch::{Receiver, Ref};

    #[derive(Debug)]
    pub struct Sender<T>(real::watch::Sender<T>);

    impl<T> Sender<T> {
        pub fn new(value: T) -> Self {
            Self(real::watch::Sender::new(value))
        }

        pub fn subscribe(&self) -> Receiver<T> {
            step(|| self.0.subscribe())
        }

        /// No task goes on while it is borrowed.
        pub fn borrow(&self) -> Ref<'_, T> {
            super::point();
            self.0.borrow()
        }

        pub fn send_if_modified(&self, modify: impl FnOnce(&mut T) -> bool) -> bool {
            step(|| self.0.send_if_modified(modify))
        }
    }
}
