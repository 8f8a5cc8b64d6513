//! Operations of a store on a counter: those of requests ([`Hits`]), and those that only replicas make for themselves (leases
//! and their return, resets, releases of holds).

use crate::model::{Hits, HoldId, Outcome};

/// What a check does to its counter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Op {
    /// See [`Hits::Acquire`].
    Acquire(u64),
    /// See [`Hits::Debit`].
    Debit(u64),
    /// See [`Hits::Peek`].
    Peek,
    /// See [`Hits::Refund`].
    Refund(u64),
    /// Counts as many hits as are left, up to this many, for the caller to admit by itself until the slice ends (see
    /// [`Grant`]). Allowed if at least one was granted. sliding_window, fixed_window and token_bucket only; the other
    /// algorithms grant nothing.
    Lease(u64),
    /// Takes hits out of the slice that they were counted in, if that slice still counts: never below zero use. Always
    /// allowed, and done whether the transaction passes or not.
    Return {
        /// [`Outcome::slice`] of the check that counted them.
        slice: u64,
        /// How many.
        hits: u64,
    },
    /// Resets the counter to its unused state, for an operator; open holds stay, since their requests are still in progress.
    /// Always allowed, and done whether the transaction passes or not.
    Reset,
    /// See [`Hits::Hold`].
    Hold {
        /// How many.
        hits: u64,
        /// Whose.
        id: HoldId,
    },
    /// See [`Hits::Settle`].
    Settle {
        /// How many.
        hits: u64,
        /// Whose.
        id: HoldId,
    },
    /// See [`Hits::HoldMean`].
    HoldMean(u64),
    /// See [`Hits::SettleOldest`].
    SettleOldest {
        /// How many.
        hits: u64,
        /// The hits that each of the other holds keeps.
        mean: u64,
    },
    /// Makes a hold that was granted elsewhere while the store did not answer: over the limit, if need be, and nothing if the store
    /// knows the id. Always allowed, and done whether the transaction passes or not.
    ForceHold {
        /// How many.
        hits: u64,
        /// Whose.
        id: HoldId,
    },
    /// Ends a hold whose caller has not received its id, as if it had never been made: a later settlement is charged in full.
    /// With an id that [`is_oldest`](HoldId::is_oldest), ends the oldest of the holds without ids. Always allowed, and done whether
    /// the transaction passes or not.
    Release(HoldId),
}

impl From<Hits> for Op {
    fn from(hits: Hits) -> Self {
        match hits {
            Hits::Acquire(hits) => Self::Acquire(hits),
            Hits::Debit(hits) => Self::Debit(hits),
            Hits::Peek => Self::Peek,
            Hits::Refund(hits) => Self::Refund(hits),
            Hits::Hold { hits, id } => Self::Hold { hits, id },
            Hits::Settle { hits, id } => Self::Settle { hits, id },
            Hits::HoldMean(mean) => Self::HoldMean(mean),
            Hits::SettleOldest { hits, mean } => Self::SettleOldest { hits, mean },
        }
    }
}

impl Op {
    /// Whether it has happened already: it is counted or held first, whether the transaction passes or not.
    #[must_use]
    pub const fn has_happened(self) -> bool {
        matches!(
            self,
            Self::Debit(_) | Self::Settle { .. } | Self::SettleOldest { .. } | Self::ForceHold { .. }
        )
    }

    /// Whose hold it asks for.
    #[must_use]
    pub const fn holds(self) -> Option<HoldId> {
        match self {
            Self::Hold { id, .. } => Some(id),
            _ => None,
        }
    }

    /// The hits that each of the counter's holds keeps, where holds have no ids and are only counted.
    #[must_use]
    pub const fn mean(self) -> Option<u64> {
        match self {
            Self::HoldMean(mean) | Self::SettleOldest { mean, .. } => Some(mean),
            _ => None,
        }
    }

    /// Whether it takes hits out of the counter.
    #[must_use]
    pub const fn frees(self) -> bool {
        matches!(
            self,
            Self::Refund(_) | Self::Return { .. } | Self::Release(_) | Self::Reset
        )
    }
}

/// Hits that were counted ahead for one caller, in [`Outcome::slice`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Grant {
    /// How many; at least 1.
    pub hits: u64,
    /// Microseconds until their slice ends: the caller must have admitted them by then, on a clock that it started
    /// before it asked. `u64::MAX` for a token bucket, whose hits stay counted whenever they are admitted.
    pub left_us: u64,
}

/// A store's answer to one check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answer {
    /// The check's outcome.
    pub outcome: Outcome,
    /// What an [`Op::Lease`] was granted; `None` for every other check.
    pub grant: Option<Grant>,
}

impl From<Outcome> for Answer {
    fn from(outcome: Outcome) -> Self {
        Self { outcome, grant: None }
    }
}
