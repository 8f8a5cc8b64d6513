//! Quotas that Envoys enforce themselves (RLQS).

use parking_lot::Mutex;
use prometheus::{Histogram, IntCounter, IntCounterVec, IntGauge};

use super::labels::{MAX_LABEL, bounded};
use super::registrar::{LATENCY_BUCKETS, Registrar};

/// Reasons and domains of reports that were left out which are logged.
const MOST_LOGGED: usize = 64;

/// What is counted of streams, and the hits of each rule.
#[derive(Debug)]
pub struct RlqsMetrics {
    /// Streams at this moment.
    pub streams: IntGauge,
    /// Buckets of all streams at this moment.
    pub buckets: IntGauge,
    /// Streams whose Envoy has not reported in time, at this moment.
    pub late_streams: IntGauge,
    /// Streams whose quotas are what `on_store_error` says, because the store does not answer, at this moment.
    pub undecided_streams: IntGauge,
    /// Usage reports of a bucket that were taken in.
    pub reports: IntCounter,
    /// Those that were left out, by why.
    pub left_out: IntCounterVec,
    /// Time to take in a message of reports and to answer it.
    pub duration: Histogram,
    undecided: IntCounterVec,
    hits: IntCounterVec,
    /// What has been said of reports that were left out: reason and domain.
    logged: Mutex<Vec<(&'static str, String)>>,
}

/// The hits of one rule.
#[derive(Debug, Clone)]
pub struct QuotaHits {
    /// Leased to Envoys.
    pub granted: IntCounter,
    /// Reported as admitted.
    pub used: IntCounter,
    /// Reported as denied.
    pub denied: IntCounter,
    /// Leased, proved unused, and given back.
    pub returned: IntCounter,
    /// Leased to a stream that ended, and counted as used.
    pub written_off: IntCounter,
}

impl RlqsMetrics {
    pub(super) fn new(r: Registrar<'_>) -> prometheus::Result<Self> {
        let duration = r.histograms(
            "sluicegate_rlqs_report_duration_seconds",
            "Time to take in a message of usage reports and to answer it",
            &[],
            &LATENCY_BUCKETS,
        )?;
        Ok(Self {
            streams: r.gauge("sluicegate_rlqs_streams", "Streams of Envoys that enforce quotas themselves")?,
            buckets: r.gauge("sluicegate_rlqs_buckets", "Buckets of all RLQS streams")?,
            late_streams: r.gauge(
                "sluicegate_rlqs_late_streams",
                "RLQS streams whose Envoy has not reported for six seconds: what it holds stays counted",
            )?,
            undecided_streams: r.gauge(
                "sluicegate_rlqs_streams_without_store",
                "RLQS streams whose quotas on_store_error decides, because the store does not answer",
            )?,
            undecided: r.counters(
                "sluicegate_rlqs_decided_without_store_total",
                "Answers to the need of an RLQS bucket that on_store_error gave, because the store did not",
                &["mode"],
            )?,
            reports: r.counter("sluicegate_rlqs_reports_total", "Usage reports of buckets")?,
            left_out: r.counters(
                "sluicegate_rlqs_reports_left_out_total",
                "Usage reports of buckets that were not taken in: malformed, or above a bound",
                &["reason"],
            )?,
            duration: duration.with_label_values::<&str>(&[]),
            hits: r.counters(
                "sluicegate_rlqs_hits_total",
                "Hits of quotas: granted to Envoys, used or denied by them, returned unused, or written_off with their stream",
                &["domain", "rule", "result"],
            )?,
            logged: Mutex::default(),
        })
    }

    /// The counters of a rule.
    #[must_use]
    pub fn hits(&self, domain: &str, rule: &str) -> QuotaHits {
        let (domain, path) = (bounded(domain, MAX_LABEL), bounded(rule, MAX_LABEL));
        let of = |result: &str| self.hits.with_label_values(&[&*domain, &*path, result]);
        QuotaHits {
            granted: of("granted"),
            used: of("used"),
            denied: of("denied"),
            returned: of("returned"),
            written_off: of("written_off"),
        }
    }

    /// Answers that `on_store_error` gave in this mode.
    #[must_use]
    pub fn undecided(&self, mode: &str) -> IntCounter {
        self.undecided.with_label_values(&[mode])
    }

    /// Marks that a report of a domain was left out; whether it is the first one for this reason. At the bound none is.
    pub fn mark_logged(&self, reason: &'static str, domain: &str) -> bool {
        let mut logged = self.logged.lock();
        let is_known = |(known, of): &(&str, String)| *known == reason && of == domain;
        let is_first = logged.len() < MOST_LOGGED && !logged.iter().any(is_known);
        if is_first {
            logged.push((reason, domain.to_owned()));
        }
        is_first
    }
}
