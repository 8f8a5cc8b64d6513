//! What the pipeline to a shared store holds: corrections, leases, cached denials.

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{IntCounterVec, IntGauge, IntGaugeVec, Opts};

use crate::store::remote::{Bound, DenialStats, RemoteStats};

/// Reads the pipeline at each scrape.
pub struct PipelineCollector {
    stats: Box<dyn Fn() -> Option<RemoteStats> + Send + Sync>,
    pending: IntGauge,
    keys: IntGaugeVec,
    leased: IntGauge,
    /// The denial cache, under the names that envoyproxy/ratelimit gives its local cache.
    local_cache: [IntGauge; 7],
}

/// envoyproxy/ratelimit's gauges of its local cache, in the order of [`local_cache`].
const LOCAL_CACHE: [(&str, &str); 7] = [
    (
        "ratelimit_localcache_hitCount",
        "Checks that were denied from the denial cache",
    ),
    (
        "ratelimit_localcache_missCount",
        "Checks that the denial cache did not decide",
    ),
    (
        "ratelimit_localcache_lookupCount",
        "Checks that the denial cache was asked for",
    ),
    (
        "ratelimit_localcache_expiredCount",
        "Checks whose cached denial had ended",
    ),
    ("ratelimit_localcache_entryCount", "Counters in the denial cache"),
    (
        "ratelimit_localcache_evacuateCount",
        "Entries that fell out of the full denial cache",
    ),
    (
        "ratelimit_localcache_overwriteCount",
        "Entries that newer denials of their counter replaced",
    ),
];

fn local_cache(stats: &DenialStats) -> [u64; 7] {
    [
        stats.hits,
        stats.misses,
        stats.hits.saturating_add(stats.misses),
        stats.expired,
        stats.entries as u64,
        stats.evicted,
        stats.overwritten,
    ]
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
        let [hit, miss, lookup, expired, entry, evacuate, overwrite] =
            LOCAL_CACHE.map(|(name, help)| IntGauge::new(name, help));
        Ok(Self {
            local_cache: [hit?, miss?, lookup?, expired?, entry?, evacuate?, overwrite?],
            stats: Box::new(stats),
            pending: gauge(
                "sluicegate_corrections_pending",
                "Corrections of shared counters that are pending or in flight",
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
        let help = "Corrections of shared counters, by cause and by result: recorded, flushed, expired, dropped";
        IntCounterVec::new(Opts::new("sluicegate_corrections_total", help), &["cause", "result"])
    }

    fn bounds() -> prometheus::Result<IntCounterVec> {
        let help = "How often a bound of the pipeline to a shared store was reached, by bound";
        IntCounterVec::new(Opts::new("sluicegate_pipeline_bounds_total", help), &["bound"])
    }
}

impl Collector for PipelineCollector {
    fn desc(&self) -> Vec<&Desc> {
        let local_cache = self.local_cache.iter().flat_map(Collector::desc);
        [self.pending.desc(), self.keys.desc(), self.leased.desc()]
            .concat()
            .into_iter()
            .chain(local_cache)
            .collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let (Some(stats), Ok(corrections), Ok(bounds)) = ((self.stats)(), Self::corrections(), Self::bounds()) else {
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
        for (bound, count) in Bound::ALL.into_iter().zip(stats.bounds) {
            bounds.with_label_values(&[bound.name()]).inc_by(count);
        }
        self.pending.set(number(stats.corrections));
        self.leased.set(i64::try_from(stats.leased_hits).unwrap_or(i64::MAX));
        self.keys.with_label_values(&["lease"]).set(number(stats.lease_keys));
        self.keys
            .with_label_values(&["denial"])
            .set(number(stats.denials.entries));
        for (gauge, count) in self.local_cache.iter().zip(local_cache(&stats.denials)) {
            gauge.set(i64::try_from(count).unwrap_or(i64::MAX));
        }
        let local_cache = self.local_cache.iter().flat_map(Collector::collect).collect();
        let families = [
            local_cache,
            self.pending.collect(),
            self.keys.collect(),
            self.leased.collect(),
            corrections.collect(),
            bounds.collect(),
        ];
        families.concat()
    }
}
