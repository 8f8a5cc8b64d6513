//! What the streams share.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use tokio::sync::{Mutex, watch};
use tokio_util::sync::CancellationToken;

use super::buckets::SharedBuckets;
use super::leases::{LeaseFilter, LeaseList, LeaseQuestion};
use crate::engine::Engine;
use crate::model::Clock;
use crate::telemetry::Metrics;

/// Streams that have not answered a question by then are left out: they wait for the store, or for their Envoy.
const PATIENCE: Duration = Duration::from_secs(1);
/// Buckets of all streams.
const MAX_BUCKETS: u64 = 5_000_000;

/// What all streams share.
pub(super) struct QuotaParts {
    pub(super) engine: Arc<Engine>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) shared: SharedBuckets,
    pub(super) streams: AtomicU64,
    pub(super) buckets: AtomicU64,
    /// Streams that have been opened so far.
    pub(super) opened: AtomicU64,
    /// What the streams are asked for the operator.
    pub(super) questions: watch::Sender<Option<Arc<LeaseQuestion>>>,
    /// Held by whoever asks.
    pub(super) asking: Mutex<()>,
    /// When counters began that this process alone keeps; `None` where they outlive it.
    pub(super) began_us: Option<u64>,
    pub(super) stop: CancellationToken,
}

impl QuotaParts {
    /// The leases of all streams, the largest first. One question at a time is under way.
    pub(super) async fn leases(&self, filter: LeaseFilter) -> LeaseList {
        let _turn = self.asking.lock().await;
        let streams = self.streams();
        let question = Arc::new(LeaseQuestion::new(filter));
        self.questions.send_replace(Some(Arc::clone(&question)));
        // Who is late is left out, and counted.
        let _ = tokio::time::timeout(PATIENCE, question.wait(streams)).await;
        self.questions.send_replace(None);
        let list = question.take();
        LeaseList {
            streams: streams.max(list.answered),
            ..list
        }
    }

    /// Streams at this moment.
    pub(super) fn streams(&self) -> u64 {
        self.streams.load(Relaxed)
    }

    /// A stream has ended.
    pub(super) fn closed(&self) {
        self.streams.fetch_sub(1, Relaxed);
        self.metrics.rlqs.streams.dec();
    }

    /// Takes a place for one more bucket; whether there was one.
    pub(super) fn take_bucket(&self) -> bool {
        if self.buckets.fetch_add(1, Relaxed) >= MAX_BUCKETS {
            self.buckets.fetch_sub(1, Relaxed);
            return false;
        }
        self.metrics.rlqs.buckets.inc();
        true
    }

    pub(super) fn drop_bucket(&self) {
        self.buckets.fetch_sub(1, Relaxed);
        self.metrics.rlqs.buckets.dec();
    }

    /// Counts a report that is not taken in; the first one for each reason and domain is logged.
    pub(super) fn left_out(&self, reason: &'static str, name: &str, domain: &str) {
        self.metrics.rlqs.left_out.with_label_values(&[reason]).inc();
        if self.metrics.rlqs.mark_logged(reason, domain) {
            tracing::warn!(
                reason,
                domain,
                envoy = name,
                "a usage report of RLQS was left out, so that its bucket gets no quota; further ones are only counted, in \
                 sluicegate_rlqs_reports_left_out_total"
            );
        }
    }
}
