//! The state that all calls to one server (or cluster) share.

use std::sync::Arc;
use std::time::Duration;

use super::bounds::{BoundCounts, Bounds};
use super::cache::Denials;
use super::circuit::Circuit;
use super::fallback::Fallback;
use super::ledger::Ledger;
use crate::algorithms::op::Op;
use crate::model::Transaction;
use crate::store::correction::{Cause, Correction, signed};

/// See the module's docs.
pub(super) struct Context<T> {
    pub transport: T,
    pub circuit: Circuit,
    pub ledger: Arc<Ledger>,
    pub denials: Option<Arc<Denials>>,
    pub fallback: Option<Arc<Fallback>>,
    /// Longest that a caller waits.
    pub timeout: Duration,
    /// Whether checks of one key wait for the call that is in flight.
    pub join: bool,
    pub bounds: Bounds,
    pub reached: Arc<BoundCounts>,
}

impl<T> Context<T> {
    /// Records the refunds in calls that were certainly not sent: their hits are still counted in the store.
    pub(super) fn record_refunds(&self, calls: &[Transaction<Op>]) {
        for check in calls.iter().flat_map(|call| &call.checks) {
            if let Op::Refund(hits) = check.hits {
                self.ledger
                    .record(Correction::unplaced(check, -signed(hits), Cause::Refund));
            }
        }
    }
}
