//! Corrections: changes that a counter must get later, because of hits that were counted before, there or elsewhere.

use std::time::Duration;

use smallvec::SmallVec;

use crate::algorithms::limit::horizon_us;
use crate::algorithms::op::Op;
use crate::model::{Check, CounterKey, HoldId, Limit, Outcome};

/// A pending change of a counter. It is certain: hits that may or may not have been counted are never given back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Correction {
    /// Which counter.
    pub counter: CounterKey,
    /// The limit that it is counted by.
    pub limit: Limit,
    /// The slice that the hits were counted in ([`Outcome::slice`]); the correction applies only while that slice
    /// counts. `None` where no slice is known: the change then applies to what counts when it arrives.
    pub slice: Option<u64>,
    /// The hold that it is about.
    pub hold: Option<HoldChange>,
    /// Hits: negative ones are given back (never below zero use), positive ones are charged, over the limit if need be.
    pub delta: i64,
    /// After this time the hits count no longer, and the correction expires.
    pub lasts: Duration,
    /// Why it is necessary.
    pub cause: Cause,
}

/// What becomes of a hold, and what [`Correction::delta`] then is. The store does each of these once, however often it hears it (a
/// settlement of a limit that [settles once](Limit::settles_once) each time).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HoldChange {
    /// It is made, for `delta` hits: fallback counters have granted it.
    Make(HoldId),
    /// It is ended, and `delta` hits are charged in its place.
    Settle(HoldId),
    /// It is ended as if it had never been made; `delta` is the negative of what it keeps.
    Release(HoldId),
}

impl HoldChange {
    /// Whose.
    #[must_use]
    pub const fn id(self) -> HoldId {
        match self {
            Self::Make(id) | Self::Settle(id) | Self::Release(id) => id,
        }
    }

    /// Whether it may be done twice without harm.
    #[must_use]
    pub fn is_idempotent(self) -> bool {
        !self.id().is_oldest()
    }
}

/// Why a correction is necessary; the label of the metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cause {
    /// The server counted a call whose caller had stopped waiting and decided otherwise: a compensation.
    Late,
    /// Another server denied the request that these hits were counted for.
    Split,
    /// The caller disconnected before the answer that granted it a permit of a `concurrency` limit.
    Permit,
    /// A leaky bucket's answer could not be held back until its turn, so the request was denied.
    Wait,
    /// A refund that a request brought could not be sent.
    Refund,
    /// Decided by fallback counters while the store could not.
    Fallback,
    /// A lease ended before it was used up.
    Lease,
    /// The caller disconnected before the answer with the id of its hold, or never hears of it.
    Hold,
    /// A cost that the store did not charge in time, where no fallback counters decide.
    Settlement,
}

impl Cause {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::Late,
        Self::Split,
        Self::Permit,
        Self::Wait,
        Self::Refund,
        Self::Fallback,
        Self::Lease,
        Self::Hold,
        Self::Settlement,
    ];

    /// The label in metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Late => "late",
            Self::Split => "split",
            Self::Permit => "permit",
            Self::Wait => "wait",
            Self::Refund => "refund",
            Self::Fallback => "fallback",
            Self::Lease => "lease",
            Self::Hold => "hold",
            Self::Settlement => "settlement",
        }
    }
}

impl Correction {
    /// Gives back `hits` that `outcome` says were counted for `check`.
    #[must_use]
    pub fn give_back<H>(check: &Check<H>, outcome: &Outcome, hits: u64, cause: Cause) -> Self {
        Self {
            counter: check.key.clone(),
            limit: check.limit,
            slice: (outcome.slice > 0).then_some(outcome.slice),
            hold: None,
            delta: -signed(hits),
            lasts: Duration::from_micros(horizon_us(&check.limit)),
            cause,
        }
    }

    /// Ends a hold of `hits` that `check` made.
    #[must_use]
    pub fn release<H>(check: &Check<H>, id: HoldId, hits: u64, cause: Cause) -> Self {
        Self {
            hold: Some(HoldChange::Release(id)),
            // The hold's slice has ended by then.
            lasts: Duration::from_micros(check.limit.hold_us.saturating_mul(2)),
            ..Self::unplaced(check, -signed(hits), cause)
        }
    }

    /// Ends the holds of a request that its call may have made, and that were not granted after all: they would stay for their
    /// whole ttl. Each check comes with whether its hold was granted; `is_final`: no other can be any more.
    pub fn end_unknown<'c, H: Copy + Into<Op> + 'c>(
        checks: impl Iterator<Item = (&'c Check<H>, bool)> + Clone,
        is_final: bool,
    ) -> SmallVec<[Self; 1]> {
        let is_told = checks.clone().any(|(_, is_granted)| is_granted);
        let end = |(check, _): (&Check<H>, bool)| {
            let Op::Hold { hits, id } = check.hits.into() else {
                return None;
            };
            let mut same = checks.clone().filter(|(other, _)| other.key == check.key);
            if same.any(|(_, is_granted)| is_granted) {
                return None;
            }
            // A settlement lasts, since the call may come later still. But what fallback counters may yet grant takes the place of a
            // release alone; and what a caller settles that has another hold of this id is to be charged here, too.
            Some(if is_final && !is_told {
                Self::settle(check, id, 0, Cause::Hold)
            } else {
                Self::release(check, id, hits, Cause::Hold)
            })
        };
        checks.clone().filter_map(end).collect()
    }

    /// Makes a hold that fallback counters have granted.
    #[must_use]
    pub fn hold<H>(check: &Check<H>, id: HoldId, hits: u64) -> Self {
        Self {
            hold: Some(HoldChange::Make(id)),
            lasts: Duration::from_micros(check.limit.hold_us),
            ..Self::unplaced(check, signed(hits), Cause::Fallback)
        }
    }

    /// Settles a hold that the store did not settle in time, or may not have.
    #[must_use]
    pub fn settle<H>(check: &Check<H>, id: HoldId, hits: u64, cause: Cause) -> Self {
        let lasts_us = horizon_us(&check.limit).max(check.limit.hold_us.saturating_mul(2));
        Self {
            hold: Some(HoldChange::Settle(id)),
            lasts: Duration::from_micros(lasts_us),
            ..Self::unplaced(check, signed(hits), cause)
        }
    }

    /// Ends the oldest of the holds without ids, because `check` made such a hold of `hits`.
    #[must_use]
    pub fn release_oldest<H>(check: &Check<H>, hits: u64, cause: Cause) -> Self {
        Self {
            // After this time the check's own hold has expired, and the oldest one belongs to another request.
            lasts: Duration::from_micros(check.limit.hold_us),
            ..Self::release(check, HoldId::new(0, rand::random()), hits, cause)
        }
    }

    /// Undoes an admitted check whose request was denied in the end: gives its hits back, or ends its hold. `None` if it took
    /// neither: peeks did not, and debits, refunds and settlements stand.
    #[must_use]
    pub fn undo<H: Copy + Into<Op>>(check: &Check<H>, outcome: &Outcome, cause: Cause) -> Option<Self> {
        let own = outcome.holds.own;
        match check.hits.into() {
            Op::Acquire(hits) => Some(Self::give_back(check, outcome, hits, cause)),
            Op::Hold { id, .. } if own > 0 => Some(Self::release(check, id, own, cause)),
            Op::HoldMean(_) if own > 0 => Some(Self::release_oldest(check, own, cause)),
            _ => None,
        }
    }

    /// A change of hits whose slice is not known.
    #[must_use]
    pub fn unplaced<H>(check: &Check<H>, delta: i64, cause: Cause) -> Self {
        Self {
            counter: check.key.clone(),
            limit: check.limit,
            slice: None,
            hold: None,
            delta,
            lasts: Duration::from_micros(horizon_us(&check.limit)),
            cause,
        }
    }

    /// The operation that applies a correction of these fields.
    #[must_use]
    pub const fn op(slice: Option<u64>, hold: Option<HoldChange>, delta: i64) -> Op {
        let hits = delta.unsigned_abs();
        match (hold, slice) {
            (Some(HoldChange::Make(id)), _) => Op::ForceHold { hits, id },
            (Some(HoldChange::Settle(id)), _) => Op::Settle { hits, id },
            (Some(HoldChange::Release(id)), _) => Op::Release(id),
            _ if delta > 0 => Op::Debit(hits),
            (_, Some(slice)) => Op::Return { slice, hits },
            (_, None) => Op::Refund(hits),
        }
    }
}

/// Hits as a signed number, at most `i64::MAX`.
#[must_use]
pub fn signed(hits: u64) -> i64 {
    i64::try_from(hits).unwrap_or(i64::MAX)
}
