//! Plans from outside of the rules: what was read of each source, and who had no entry.

use prometheus::{IntCounterVec, IntGaugeVec};

use super::registrar::Registrar;
use crate::rules::plans::{PlanRows, PlanSource};

const LABELS: [&str; 2] = ["domain", "source"];

/// See the module's docs. Labels are names in rules files.
#[derive(Debug)]
pub struct PlanMetrics {
    entries: IntGaugeVec,
    bytes: IntGaugeVec,
    stale: IntGaugeVec,
    reads: IntCounterVec,
    defaults: IntCounterVec,
}

impl PlanMetrics {
    pub(super) fn new(r: Registrar<'_>) -> prometheus::Result<Self> {
        Ok(Self {
            entries: r.gauges(
                "sluicegate_plan_source_entries",
                "Values to which a source of plans gives one",
                &LABELS,
            )?,
            bytes: r.gauges(
                "sluicegate_plan_source_bytes",
                "Memory that the entries of a source of plans take",
                &LABELS,
            )?,
            stale: r.gauges(
                "sluicegate_plan_source_stale",
                "1 while a source of plans cannot be used: its last good entries stay in force",
                &LABELS,
            )?,
            reads: r.counters(
                "sluicegate_plan_source_reads_total",
                "Readings of a source of plans",
                &["domain", "source", "result"],
            )?,
            defaults: r.counters(
                "sluicegate_plan_defaults_total",
                "Descriptors counted by the default plan, because the source has none for the value",
                &LABELS,
            )?,
        })
    }

    /// A source was read, or asked and found unchanged; `rows` are in force.
    pub fn loaded(&self, source: &PlanSource, rows: Option<&PlanRows>) {
        let labels = labels(source);
        let number = |number: usize| i64::try_from(number).unwrap_or(i64::MAX);
        let (entries, bytes) = rows.map_or((0, 0), |rows| (rows.len(), rows.bytes()));
        self.entries.with_label_values(&labels).set(number(entries));
        self.bytes.with_label_values(&labels).set(number(bytes));
        self.stale.with_label_values(&labels).set(0);
        self.read(source, "success");
    }

    /// A source cannot be used.
    pub fn failed(&self, source: &PlanSource) {
        self.stale.with_label_values(&labels(source)).set(1);
        self.read(source, "error");
    }

    fn read(&self, source: &PlanSource, result: &str) {
        let [domain, name] = labels(source);
        self.reads.with_label_values(&[domain, name, result]).inc();
    }

    /// A descriptor was counted by the default.
    pub fn by_default(&self, source: &PlanSource) {
        self.defaults.with_label_values(&labels(source)).inc();
    }

    /// No rules have the source any more.
    pub fn forget(&self, source: &PlanSource) {
        let labels = labels(source);
        for gauges in [&self.entries, &self.bytes, &self.stale] {
            // What was never set cannot be removed.
            let _ = gauges.remove_label_values(&labels);
        }
        let [domain, name] = labels;
        for result in ["success", "error"] {
            let _ = self.reads.remove_label_values(&[domain, name, result]);
        }
        let _ = self.defaults.remove_label_values(&labels);
    }
}

fn labels(source: &PlanSource) -> [&str; 2] {
    [&source.domain, &source.name]
}
