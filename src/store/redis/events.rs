//! What happens to the connections, for logs and metrics: told of a server, not of each of its connections.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

use crate::store::StoreError;

/// Something happened to our connections to a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RedisEvent {
    /// Its address, without login.
    pub server: Arc<str>,
    /// What.
    pub change: RedisChange,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RedisChange {
    /// The first connection is up.
    Connected {
        /// Attempts that failed before, since there was one.
        failed_attempts: u32,
    },
    /// The last connection is gone.
    Disconnected(StoreError),
    /// There is none, and an attempt has failed; another follows.
    ConnectFailed {
        /// Why.
        error: StoreError,
        /// How many have failed since there was one.
        failed_attempts: u32,
    },
}

/// Whoever wants to know. Called from the tasks that keep connections: it must be quick.
pub type RedisObserver = Arc<dyn Fn(&RedisEvent) + Send + Sync>;

/// Counts the connections to a server and tells what changes.
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

    /// A connection is up, for as long as what is returned lives.
    pub fn connected(self: &Arc<Self>) -> Connection {
        if self.up.fetch_add(1, Ordering::AcqRel) == 0 {
            let failed_attempts = self.failed_attempts.swap(0, Ordering::AcqRel);
            self.tell(RedisChange::Connected { failed_attempts });
        }
        Connection {
            watch: self.clone(),
            lost: None,
        }
    }

    /// An attempt to connect has failed.
    pub fn failed(&self, error: StoreError) {
        if self.up.load(Ordering::Acquire) == 0 {
            let failed_attempts = self.failed_attempts.fetch_add(1, Ordering::AcqRel).saturating_add(1);
            self.tell(RedisChange::ConnectFailed { error, failed_attempts });
        }
    }

    fn tell(&self, change: RedisChange) {
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
    /// It is gone.
    pub fn lost(mut self, reason: StoreError) {
        self.lost = Some(reason);
    }
}

impl Drop for Connection {
    /// Without a reason, we ended it ourselves: nothing to tell.
    fn drop(&mut self) {
        let was_last = self.watch.up.fetch_sub(1, Ordering::AcqRel) == 1;
        if let (true, Some(reason)) = (was_last, self.lost.take()) {
            self.watch.tell(RedisChange::Disconnected(reason));
        }
    }
}
