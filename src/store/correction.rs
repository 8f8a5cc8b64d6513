//! Corrections: what a counter must be changed by later, because of something that was counted before.

use std::time::Duration;

use crate::algorithms::limit::horizon_us;
use crate::algorithms::op::Op;
use crate::model::{Check, CounterKey, HoldId, Limit, Outcome};

/// A change that a counter is owed. It is certain: what may or may not have been counted is never corrected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Correction {
    /// Which counter.
    pub counter: CounterKey,
    /// The limit that it is counted by.
    pub limit: Limit,
    /// The slice that the hits were counted in ([`Outcome::slice`]); the correction applies only while that slice
    /// counts. `None` where no slice is known: the change then applies to what counts when it arrives.
    pub slice: Option<u64>,
    /// The hold that is to be ended; `delta` then says what it keeps.
    pub hold: Option<HoldId>,
    /// Hits: negative ones are given back (never below zero use), positive ones are charged, over the limit if need be.
    pub delta: i64,
    /// After this time the hits count no longer, and the correction with them.
    pub lasts: Duration,
    /// Why it is owed.
    pub cause: Cause,
}

/// Why a counter is owed a change; the label of the metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cause {
    /// The server counted a call whose caller had stopped waiting and decided otherwise: a compensation.
    Late,
    /// Another server denied the request that these hits were counted for.
    Split,
    /// The answer that granted a permit of a `concurrency` limit reached nobody.
    Permit,
    /// A leaky bucket's answer could not be held back until its turn, so the request was denied.
    Wait,
    /// A refund that a request brought could not be sent.
    Refund,
    /// Decided by fallback counters while the store could not.
    Fallback,
    /// A lease ended before it was used up.
    Lease,
    /// The answer that told of a hold reached nobody.
    Hold,
}

impl Cause {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Late,
        Self::Split,
        Self::Permit,
        Self::Wait,
        Self::Refund,
        Self::Fallback,
        Self::Lease,
        Self::Hold,
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
            hold: Some(id),
            // Its slice has ended by then.
            lasts: Duration::from_micros(check.limit.hold_us.saturating_mul(2)),
            ..Self::unplaced(check, -signed(hits), cause)
        }
    }

    /// Ends one of the holds that have no names, the oldest: `check` made one of `hits`.
    #[must_use]
    pub fn release_oldest<H>(check: &Check<H>, hits: u64, cause: Cause) -> Self {
        Self {
            // After that its own has ended, and it would be another's.
            lasts: Duration::from_micros(check.limit.hold_us),
            ..Self::release(check, HoldId::new(0, rand::random()), hits, cause)
        }
    }

    /// A change that belongs to no known slice.
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

    /// What a store does to the counter.
    #[must_use]
    pub const fn op(slice: Option<u64>, hold: Option<HoldId>, delta: i64) -> Op {
        let hits = delta.unsigned_abs();
        match (hold, slice) {
            (Some(id), _) => Op::Release(id),
            _ if delta > 0 => Op::Debit(hits),
            (_, Some(slice)) => Op::Return { slice, hits },
            (_, None) => Op::Refund(hits),
        }
    }
}

/// Hits as a signed number; more than it holds counts as the most that it does.
#[must_use]
pub fn signed(hits: u64) -> i64 {
    i64::try_from(hits).unwrap_or(i64::MAX)
}
