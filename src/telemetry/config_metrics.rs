//! The configuration in force, and attempts to load one.

use prometheus::{IntCounter, IntCounterVec, IntGauge, IntGaugeVec};

use super::registrar::Registrar;

/// See the module's docs.
#[derive(Debug)]
pub struct ConfigMetrics {
    generation: IntGauge,
    loads: IntCounterVec,
    last_load_success: IntGauge,
    rules: IntGauge,
    info: IntGaugeVec,
    compat_success: IntCounter,
    compat_error: IntCounter,
}

impl ConfigMetrics {
    pub(super) fn new(r: Registrar<'_>) -> prometheus::Result<Self> {
        Ok(Self {
            generation: r.gauge("sluicegate_config_generation", "Counts configurations in force")?,
            loads: r.counters("sluicegate_config_load_total", "Configuration loads", &["result"])?,
            last_load_success: r.gauge(
                "sluicegate_config_last_load_success",
                "Whether the newest configuration load succeeded",
            )?,
            rules: r.gauge("sluicegate_config_rules", "Rules in force")?,
            info: r.gauges(
                "sluicegate_config_info",
                "Hash of the configuration in force; differs between replicas while they disagree",
                &["hash"],
            )?,
            compat_success: r.counter(
                "ratelimit_service_config_load_success",
                "Configuration loads that succeeded",
            )?,
            compat_error: r.counter("ratelimit_service_config_load_error", "Configuration loads that failed")?,
        })
    }

    /// A configuration is in force.
    pub fn loaded(&self, generation: u64, rules: usize, hash: &str) {
        self.loads.with_label_values(&["success"]).inc();
        self.compat_success.inc();
        self.last_load_success.set(1);
        self.generation.set(i64::try_from(generation).unwrap_or(i64::MAX));
        self.rules.set(i64::try_from(rules).unwrap_or(i64::MAX));
        self.info.reset();
        self.info.with_label_values(&[hash]).set(1);
    }

    /// A configuration was refused.
    pub fn refused(&self) {
        self.loads.with_label_values(&["error"]).inc();
        self.compat_error.inc();
        self.last_load_success.set(0);
    }
}
