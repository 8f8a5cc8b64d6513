//! Leases: for keys in demand, several hits are counted by one call ahead of their requests, which are then admitted without a
//! call.
//!
//! Leases never pass a limit: leased hits are counted in the store when they are leased, and a lease ends with the slice
//! (sliding_window) or window (fixed_window) that it was counted in. The store says how much of the slice is left, and
//! this stage starts that clock *before* it sends the call, so a lease ends early, never late. After a lost answer, a lost
//! correction or a crash, unused hits stay counted, and fewer are admitted.
//!
//! Only sliding_window and fixed_window are leased: their state does not care when within a slice a hit came. A token
//! bucket does: hits leased at `t` and admitted at `t' > t` have been refilled meanwhile, so others may take up to
//! `rate * (t' - t)` more, and `burst + rate * T` would be passed by that many.
//!
//! - A lease lives at most [`MAX_LIFE_US`], so that unused hits come back soon: they are recorded in the ledger, for the
//!   slice that they were counted in.
//! - Its size follows the key's recent demand and shrinks with the remaining hits, down to none: the last hits of a quota are
//!   decided by the store, call by call.
//! - A request with several counters takes hits from the leases that there are and asks the store for the rest; if the rest is
//!   denied, the leases get their hits back.

mod demand;
mod held;
mod plan;

pub(super) use self::held::Leases;
pub(super) use self::plan::LeasePlan;

/// Longest life of a lease, in microseconds.
pub const MAX_LIFE_US: u64 = crate::model::time::SECOND_US;
