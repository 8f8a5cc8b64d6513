//! Who holds what: asked of every stream, since each alone knows its own buckets.

use std::cmp::Reverse;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Semaphore;

use crate::model::CounterKey;
use crate::quota::account::LeaseStand;

/// Which leases to list.
#[derive(Debug, Clone, Default)]
pub struct LeaseFilter {
    /// Of this domain.
    pub domain: Option<String>,
    /// Of the rule with this path.
    pub rule: Option<String>,
    /// Of Envoys that call themselves so.
    pub envoy: Option<String>,
    /// At most so many, the largest.
    pub limit: usize,
}

/// One lease of one stream.
#[derive(Debug, Clone)]
pub struct LeaseEntry {
    /// The counter that it is held on.
    pub key: CounterKey,
    /// The stream, by its number in this process.
    pub stream: u64,
    /// What its Envoy calls itself; may be empty.
    pub envoy: Arc<str>,
    /// Its Envoy has not reported in time.
    pub is_late: bool,
    /// Granted, used, held, and until when.
    pub lease: LeaseStand,
}

/// What the streams of this process hold.
#[derive(Debug, Default)]
pub struct LeaseList {
    /// Streams at that moment.
    pub streams: u64,
    /// Those that have answered.
    pub answered: u64,
    /// Leases that the filter takes, listed or not.
    pub total: u64,
    /// Requests that they hold.
    pub held: u64,
    /// The largest of them.
    pub leases: Vec<LeaseEntry>,
}

/// A question to all streams, and what they have answered so far.
#[derive(Debug)]
pub(super) struct LeaseQuestion {
    pub(super) filter: LeaseFilter,
    list: Mutex<LeaseList>,
    /// A permit for each stream that has answered.
    answered: Semaphore,
}

impl LeaseQuestion {
    pub(super) fn new(filter: LeaseFilter) -> Self {
        Self {
            filter,
            list: Mutex::default(),
            answered: Semaphore::new(0),
        }
    }

    /// Adds the answer of a stream: its largest leases, how many there are, and what they hold.
    pub(super) fn add(&self, leases: impl Iterator<Item = LeaseEntry>, total: u64, held: u64) {
        let mut list = self.list.lock();
        (list.total, list.held, list.answered) = (list.total + total, list.held + held, list.answered + 1);
        list.leases.extend(leases);
        list.leases.sort_unstable_by(|a, b| {
            (Reverse(a.lease.held), &a.key, a.stream).cmp(&(Reverse(b.lease.held), &b.key, b.stream))
        });
        list.leases.truncate(self.filter.limit);
        self.answered.add_permits(1);
    }

    /// Waits until so many streams have answered.
    pub(super) async fn wait(&self, streams: u64) {
        let all = self.answered.acquire_many(u32::try_from(streams).unwrap_or(u32::MAX));
        // It is never closed.
        let _ = all.await;
    }

    /// What has been answered so far.
    pub(super) fn take(&self) -> LeaseList {
        std::mem::take(&mut *self.list.lock())
    }
}
