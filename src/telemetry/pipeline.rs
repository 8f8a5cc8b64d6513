//! What the pipeline to a shared store holds: corrections, leases, cached denials.

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{IntCounterVec, IntGauge, IntGaugeVec, Opts};

use crate::store::remote::RemoteStats;

/// Reads the pipeline at each scrape.
pub struct PipelineCollector {
    stats: Box<dyn Fn() -> Option<RemoteStats> + Send + Sync>,
    pending: IntGauge,
    keys: IntGaugeVec,
    leased: IntGauge,
}

/// The outcomes of corrections, as the label `result` names them.
const RESULTS: [&str; 4] = ["recorded", "flushed", "expired", "dropped"];

impl PipelineCollector {
    /// Reads what `stats` says; nothing is exposed where it says nothing.
    ///
    /// # Errors
    /// When a name is not one; a mistake in this program.
    pub fn new(stats: impl Fn() -> Option<RemoteStats> + Send + Sync + 'static) -> prometheus::Result<Self> {
        let gauge = |name, help| IntGauge::new(name, help);
        Ok(Self {
            stats: Box::new(stats),
            pending: gauge(
                "sluicegate_corrections_pending",
                "Changes that shared counters are owed: waiting, or in flight",
            )?,
            keys: IntGaugeVec::new(
                Opts::new(
                    "sluicegate_pipeline_keys",
                    "Counters that a stage of the pipeline knows",
                ),
                &["stage"],
            )?,
            leased: gauge(
                "sluicegate_leased_hits",
                "Hits counted ahead in the shared store and not used yet",
            )?,
        })
    }

    fn corrections() -> prometheus::Result<IntCounterVec> {
        let help = "Changes that shared counters were owed, by cause and by what became of them";
        IntCounterVec::new(Opts::new("sluicegate_corrections_total", help), &["cause", "result"])
    }
}

impl Collector for PipelineCollector {
    fn desc(&self) -> Vec<&Desc> {
        [self.pending.desc(), self.keys.desc(), self.leased.desc()].concat()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let (Some(stats), Ok(corrections)) = ((self.stats)(), Self::corrections()) else {
            return Vec::new();
        };
        let number = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        for cause in &stats.causes {
            let counts = [cause.recorded, cause.flushed, cause.expired, cause.dropped];
            for (result, count) in RESULTS.into_iter().zip(counts) {
                corrections
                    .with_label_values(&[cause.cause.name(), result])
                    .inc_by(count);
            }
        }
        self.pending.set(number(stats.corrections));
        self.leased.set(i64::try_from(stats.leased_hits).unwrap_or(i64::MAX));
        self.keys.with_label_values(&["lease"]).set(number(stats.lease_keys));
        self.keys.with_label_values(&["denial"]).set(number(stats.denials));
        let families = [
            self.pending.collect(),
            self.keys.collect(),
            self.leased.collect(),
            corrections.collect(),
        ];
        families.concat()
    }
}
