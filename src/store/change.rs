//! What a decision has changed in the counters.

use crate::algorithms::op::{Grant, Op};
use crate::model::{Check, HoldId, Outcome};

/// What a check has changed in its counter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change {
    /// Nothing.
    None,
    /// This many hits were counted.
    Counted(u64),
    /// This many hits were given back.
    Given(u64),
    /// This many hits are held under this id.
    Held(HoldId, u64),
    /// This many hits are held without an id.
    HeldMean(u64),
    /// This hold was settled, and so many hits were counted (0 = none).
    Settled(HoldId, u64),
    /// This hold was ended.
    Released(HoldId),
}

/// Calls `each` for every check of a decided transaction, with what it has changed; `passes`: whether the transaction passed.
pub(super) fn for_each_change<'c, H: Copy + Into<Op> + 'c>(
    checks: impl Iterator<Item = (&'c Check<H>, &'c Outcome, Option<Grant>)>,
    passes: bool,
    mut each: impl FnMut(&Check<H>, &Outcome, Change),
) {
    for (check, outcome, grant) in checks {
        let change = match check.hits.into() {
            Op::Acquire(hits) if passes && outcome.allowed => Change::Counted(hits),
            Op::Debit(hits) | Op::SettleOldest { hits, .. } if hits > 0 => Change::Counted(hits),
            Op::Lease(_) if passes => grant.map_or(Change::None, |grant| Change::Counted(grant.hits)),
            Op::Refund(hits) | Op::Return { hits, .. } => Change::Given(hits),
            Op::Hold { id, .. } if passes && outcome.holds.own > 0 => Change::Held(id, outcome.holds.own),
            Op::HoldMean(_) if passes && outcome.holds.own > 0 => Change::HeldMean(outcome.holds.own),
            Op::Settle { hits, id } if !outcome.holds.repeated => Change::Settled(id, hits),
            Op::Release(id) => Change::Released(id),
            _ => Change::None,
        };
        each(check, outcome, change);
    }
}
