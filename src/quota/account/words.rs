//! What an account asks, hears and tells.

use crate::model::HoldId;
use crate::quota::size::LeaseSize;
use crate::rules::OnStoreError;

/// Hits that a report has proved unused: they go back to the slice that they were settled in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UnusedHits {
    /// [`crate::model::Outcome::slice`] of the settlement.
    pub slice: u64,
    /// How many.
    pub hits: u64,
}

/// What to ask the store for, as one transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QuotaStep {
    /// The hold that is settled.
    pub settles: Option<HoldId>,
    /// Hits that are counted in its place.
    pub used: u64,
    /// Hits that stay held, because they may still be used.
    pub keep: u64,
    /// Hits of the next lease; 0 = there is none.
    pub more: LeaseSize,
    /// What has ended: all of it is in `used`.
    pub ends: Ends,
}

/// Which lease has ended with a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ends {
    /// None: what is left of the one in force is kept.
    Nothing,
    /// The short one in force.
    Live,
    /// The short one before it, if there is one; the one in force keeps its hold, and is before the next.
    Previous,
}

/// What the store has made of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QuotaStand {
    /// The name of what is held now.
    pub id: HoldId,
    /// Of [`QuotaStep::keep`], what is held.
    pub kept: u64,
    /// Of [`QuotaStep::more`], what was granted.
    pub got: u64,
    /// The slice that hits were settled in; 0 = unknown.
    pub slice: u64,
    /// Hits that are neither used nor held.
    pub remaining: u64,
    /// When to ask again if nothing was granted, in microseconds from the call.
    pub retry_after_us: u64,
    /// The store did not answer, and this was done in its place. By [`OnStoreError::Local`] the counters of this process have
    /// decided, as the store would have, and what was leased before counts as used; by the others everything passes, or
    /// nothing, and what was leased and used is to be counted later.
    pub failure: Option<OnStoreError>,
}

/// What Envoy is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Assignment {
    /// Nothing: what it has stays in force.
    Nothing,
    /// So many requests, and what is left of earlier ones is void.
    Lease(LeaseSize),
    /// The lease in force, a rate, goes on: in time it is prolonged, else it begins anew.
    Extend(LeaseSize),
    /// None for so many seconds.
    Deny {
        /// Seconds.
        ttl_s: u64,
    },
    /// Any number for so many seconds.
    Allow {
        /// Seconds.
        ttl_s: u64,
    },
}
