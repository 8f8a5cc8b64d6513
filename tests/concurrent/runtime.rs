//! `tokio::runtime`.

use crate::task::{JoinHandle, spawn};

/// shuttle's executor, which is always there.
pub struct Handle;

impl Handle {
    pub fn try_current() -> Result<Self, ()> {
        Ok(Self)
    }

    pub fn spawn<F>(&self, future: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        spawn(future)
    }
}
