//! A job between the queue and its call.

use std::sync::Arc;

use super::job::Job;
use crate::model::CounterKey;

/// A job in the queue.
pub(super) struct Queued {
    pub shard: u16,
    pub job: Job,
    /// Held by the one job of a key that is in flight.
    pub lead: Option<Lead>,
}

/// Keeps a key's other jobs waiting; hands over to them when it is dropped.
pub(super) struct Lead {
    successors: Arc<dyn Successors>,
    key: CounterKey,
}

/// The jobs that wait while one of their key is in flight.
pub(super) trait Successors: Send + Sync {
    /// A key's call is no longer in flight: its next jobs leave, or the key is forgotten.
    fn free(self: Arc<Self>, key: &CounterKey);
}

impl Lead {
    pub(super) const fn new(successors: Arc<dyn Successors>, key: CounterKey) -> Self {
        Self { successors, key }
    }
}

impl Drop for Lead {
    fn drop(&mut self) {
        Arc::clone(&self.successors).free(&self.key);
    }
}
