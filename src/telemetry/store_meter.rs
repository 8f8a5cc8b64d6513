//! Counts and times the calls that really leave for a server.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use prometheus::{Histogram, HistogramVec, IntCounter, IntCounterVec};
use tokio::time::Instant;

use super::registrar::{LATENCY_BUCKETS, Registrar};
use crate::algorithms::op::Op;
use crate::model::{CounterKey, Transaction};
use crate::store::StoreError;
use crate::store::remote::transport::{BreakerScope, Delivery, Transport};
use crate::store::reset::{Cursor, NamePage};

/// Checks in one call.
const CHECKS_BUCKETS: [f64; 9] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0];

/// Calls to all shared stores, by the label `store`.
#[derive(Debug)]
pub struct StoreMetrics {
    calls: IntCounterVec,
    errors: IntCounterVec,
    duration: HistogramVec,
    checks: HistogramVec,
}

impl StoreMetrics {
    pub(super) fn new(r: Registrar<'_>) -> prometheus::Result<Self> {
        let name = "sluicegate_store_errors_total";
        let errors = r.counters(name, "Calls to the store that failed", &["store", "kind"])?;
        let store = &["store"];
        let name = "sluicegate_store_duration_seconds";
        let duration = r.histograms(name, "Time of a store call", store, &LATENCY_BUCKETS)?;
        let name = "sluicegate_store_call_checks";
        let checks = r.histograms(name, "Checks in a store call", store, &CHECKS_BUCKETS)?;
        Ok(Self {
            calls: r.counters("sluicegate_store_calls_total", "Calls to the store", store)?,
            errors,
            duration,
            checks,
        })
    }
}

/// A transport that is metered.
pub struct StoreMeter<T> {
    inner: T,
    timeout: Duration,
    name: &'static str,
    calls: IntCounter,
    checks: Histogram,
    duration: Histogram,
    errors: IntCounterVec,
    /// Whether the log has said that this server is a node of a cluster.
    cluster_logged: AtomicBool,
}

impl<T> StoreMeter<T> {
    /// What is measured.
    pub const fn inner(&self) -> &T {
        &self.inner
    }
}

impl<T: Transport> StoreMeter<T> {
    /// Counts calls of `inner` under the label `name`; one that is answered after `timeout` counts as a timeout, too: its
    /// callers did not wait for it.
    pub fn new(inner: T, name: &'static str, timeout: Duration, metrics: &StoreMetrics) -> Self {
        Self {
            inner,
            timeout,
            name,
            calls: metrics.calls.with_label_values(&[name]),
            checks: metrics.checks.with_label_values(&[name]),
            duration: metrics.duration.with_label_values(&[name]),
            errors: metrics.errors.clone(),
            cluster_logged: AtomicBool::new(false),
        }
    }

    /// Says once that a single server is a node of a cluster: it refuses the calls whose keys other nodes have, and too
    /// few of them in a row may fail to open the circuit.
    fn log_cluster(&self, error: &StoreError) {
        let of_one_server = self.inner.scope() == BreakerScope::OneServer;
        if of_one_server && error.is_of_a_cluster() && !self.cluster_logged.swap(true, Relaxed) {
            tracing::error!(
                server = self.name,
                %error,
                "this Redis is a node of a cluster and refuses the keys of other nodes, which the failure mode decides: set \
                 REDIS_TYPE=CLUSTER, or give its address as redis-cluster://"
            );
        }
    }
}

impl<T: Transport> Transport for StoreMeter<T> {
    fn shard(&self, key: &CounterKey) -> u16 {
        self.inner.shard(key)
    }

    fn lane(&self, shard: u16) -> u16 {
        self.inner.lane(shard)
    }

    fn scope(&self) -> BreakerScope {
        self.inner.scope()
    }

    async fn send(&self, shard: u16, calls: &[Transaction<Op>]) -> Delivery {
        let start = Instant::now();
        let delivery = self.inner.send(shard, calls).await;
        self.calls.inc();
        let checks: usize = calls.iter().map(|call| call.checks.len()).sum();
        self.checks.observe(u32::try_from(checks).map_or(f64::MAX, f64::from));
        self.duration.observe(start.elapsed().as_secs_f64());
        let late = StoreError::Timeout(self.timeout);
        let error = match &delivery {
            Delivery::Answered(Err(error)) | Delivery::NotSent(error) | Delivery::Indeterminate(error) => Some(error),
            Delivery::Answered(Ok(_)) if start.elapsed() >= self.timeout => Some(&late),
            Delivery::Answered(Ok(_)) => None,
        };
        // A slot moves: the parts are sent by themselves.
        let moves = |error: &&StoreError| error.is_cross_slot() && self.scope() == BreakerScope::Cluster;
        if let Some(error) = error.filter(|error| !moves(error)) {
            self.errors.with_label_values(&[self.name, error.kind()]).inc();
            self.log_cluster(error);
        }
        delivery
    }

    async fn announce(&self, log: &CounterKey, counters: &[CounterKey]) -> Result<(), StoreError> {
        self.inner.announce(log, counters).await
    }

    async fn resets(&self, log: &CounterKey, since: u64, most: usize) -> Result<Vec<(CounterKey, u64)>, StoreError> {
        self.inner.resets(log, since, most).await
    }

    async fn scan(&self, prefix: &str, from: Cursor) -> Result<NamePage, StoreError> {
        self.inner.scan(prefix, from).await
    }
}
