//! Events of connections, for logs and metrics: one for each server, not for each of its connections.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

use crate::store::StoreError;

/// An event of the connections to a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RedisEvent {
    /// Its address, without login.
    pub server: Arc<str>,
    /// The event.
    pub change: RedisChange,
}

/// A change of the connections to a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RedisChange {
    /// The first connection is up.
    Connected {
        /// Attempts that have failed since the last connection was lost.
        failed_attempts: u32,
    },
    /// The last connection is gone.
    Disconnected(StoreError),
    /// There is no connection, and an attempt to connect has failed; another one follows.
    ConnectFailed {
        /// Why.
        error: StoreError,
        /// Attempts that have failed since the last connection was lost.
        failed_attempts: u32,
    },
}

/// Receives the events. The tasks that keep connections call it, so it must not block.
pub type RedisObserver = Arc<dyn Fn(&RedisEvent) + Send + Sync>;

/// Counts the connections to a server and notifies the observer of changes.
pub(super) struct LinkWatch {
    server: Arc<str>,
    up: AtomicUsize,
    failed_attempts: AtomicU32,
    observer: RedisObserver,
}

impl LinkWatch {
    pub fn new(server: &str, observer: RedisObserver) -> Arc<Self> {
        Arc::new(Self {
            server: server.into(),
            up: AtomicUsize::new(0),
            failed_attempts: AtomicU32::new(0),
            observer,
        })
    }

    /// Records a connection, which is up until the returned value is dropped.
    pub fn connected(self: &Arc<Self>) -> Connection {
        if self.up.fetch_add(1, Ordering::AcqRel) == 0 {
            let failed_attempts = self.failed_attempts.swap(0, Ordering::AcqRel);
            self.notify(RedisChange::Connected { failed_attempts });
        }
        Connection {
            watch: self.clone(),
            lost: None,
        }
    }

    /// Records that an attempt to connect has failed.
    pub fn failed(&self, error: StoreError) {
        if self.up.load(Ordering::Acquire) == 0 {
            let failed_attempts = self.failed_attempts.fetch_add(1, Ordering::AcqRel).saturating_add(1);
            self.notify(RedisChange::ConnectFailed { error, failed_attempts });
        }
    }

    fn notify(&self, change: RedisChange) {
        (self.observer)(&RedisEvent {
            server: self.server.clone(),
            change,
        });
    }
}

/// A connection that is up.
pub(super) struct Connection {
    watch: Arc<LinkWatch>,
    lost: Option<StoreError>,
}

impl Connection {
    /// Records that the connection was lost.
    pub fn lost(mut self, reason: StoreError) {
        self.lost = Some(reason);
    }
}

impl Drop for Connection {
    /// A connection without a reason was closed by this process, of which the observer is not notified.
    fn drop(&mut self) {
        let was_last = self.watch.up.fetch_sub(1, Ordering::AcqRel) == 1;
        if let (true, Some(reason)) = (was_last, self.lost.take()) {
            self.watch.notify(RedisChange::Disconnected(reason));
        }
    }
}
