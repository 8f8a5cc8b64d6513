//! What becomes of holds.

use prometheus::IntCounter;

use super::registrar::Registrar;
use crate::model::{Hits, Holds};

/// Counters of holds (by what became of them) and of their hits.
#[derive(Debug)]
pub struct HoldMetrics {
    made: IntCounter,
    settled: IntCounter,
    unknown: IntCounter,
    repeated: IntCounter,
    held_hits: IntCounter,
    settled_hits: IntCounter,
    charged_hits: IntCounter,
    expired_hits: IntCounter,
}

impl HoldMetrics {
    pub(super) fn new(registrar: Registrar<'_>) -> prometheus::Result<Self> {
        let holds = registrar.counters(
            "sluicegate_holds_total",
            "Holds on counters: made, settled, settled again (repeated), or charged in full as unknown or expired (unknown)",
            &["result"],
        )?;
        let hits = registrar.counters(
            "sluicegate_hold_hits_total",
            "Hits of holds: held, no longer held because they were settled, charged in their place, or expired unsettled",
            &["result"],
        )?;
        Ok(Self {
            made: holds.with_label_values(&["made"]),
            settled: holds.with_label_values(&["settled"]),
            unknown: holds.with_label_values(&["unknown"]),
            repeated: holds.with_label_values(&["repeated"]),
            held_hits: hits.with_label_values(&["held"]),
            settled_hits: hits.with_label_values(&["settled"]),
            charged_hits: hits.with_label_values(&["charged"]),
            expired_hits: hits.with_label_values(&["expired"]),
        })
    }

    pub(super) const fn expired_hits(&self) -> &IntCounter {
        &self.expired_hits
    }

    /// Counts what a check has done to its counter's holds.
    pub fn record(&self, asked: Hits, holds: &Holds) {
        if holds.expired > 0 {
            self.expired_hits.inc_by(holds.expired);
        }
        match asked {
            Hits::Hold { .. } | Hits::HoldMean(_) if holds.own > 0 => {
                self.made.inc();
                self.held_hits.inc_by(holds.own);
            }
            // Without hits it is the second descriptor of one settlement.
            Hits::Settle { hits, .. } if holds.repeated && hits > 0 => self.repeated.inc(),
            Hits::Settle { hits, .. } | Hits::SettleOldest { hits, .. } if !holds.repeated => {
                let count = if holds.own > 0 { &self.settled } else { &self.unknown };
                count.inc();
                self.settled_hits.inc_by(holds.own);
                self.charged_hits.inc_by(hits);
            }
            // A settlement without an id.
            Hits::Debit(hits @ 1..) => {
                self.unknown.inc();
                self.charged_hits.inc_by(hits);
            }
            _ => {}
        }
    }
}
