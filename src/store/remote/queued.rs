//! Jobs in the dispatcher's queue, and the lead that makes jobs of one key wait for the one in flight.

use std::sync::Arc;

use super::job::Job;
use crate::model::CounterKey;

/// A job in the queue.
pub(super) struct Queued {
    pub shard: u16,
    pub job: Job,
    /// Only the one job of a key that is in flight has it.
    pub lead: Option<Lead>,
}

/// While it exists, other jobs of its key wait; when it is dropped, the next of them are sent.
pub(super) struct Lead {
    successors: Arc<dyn Successors>,
    key: CounterKey,
}

/// The jobs that wait while one of their key is in flight.
pub(super) trait Successors: Send + Sync {
    /// A key's call is no longer in flight: queues the key's next jobs to be sent, or forgets the key if there are none.
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
