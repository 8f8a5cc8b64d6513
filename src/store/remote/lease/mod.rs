//! Leases: several hits are counted in one call for keys in demand, and admitted without a call.
//!
//! Strict by construction: leased hits are counted in the store when they are leased, and a lease ends with the slice
//! (sliding_window) or window (fixed_window) that it was counted in. The store says how much of the slice is left, and
//! this stage starts that clock *before* it sends the call, so a lease ends early, never late. A lost answer, a lost
//! give-back or a crash only admits less.
//!
//! Only sliding_window and fixed_window are leased: their state does not care when within a slice a hit came. A token
//! bucket does: hits leased at `t` and admitted at `t' > t` have been refilled meanwhile, so others may take up to
//! `rate * (t' - t)` more, and `burst + rate * T` would be passed by that many.
//!
//! - A lease lives at most [`MAX_LIFE_US`], so that unused hits come back soon: they are recorded in the ledger, for the
//!   slice that they were counted in.
//! - Its size follows the key's demand in the last moments and shrinks with what remains, down to nothing: the last
//!   hits of a quota are asked for one call at a time, exactly.
//! - A request with several counters takes from the leases that it finds and asks the store for the rest; when the
//!   rest is denied, the leases get their hits back.

mod demand;
mod held;
mod plan;

pub use self::held::Leases;
pub(super) use self::plan::LeasePlan;

/// Longest life of a lease, in microseconds.
pub const MAX_LIFE_US: u64 = crate::model::time::SECOND_US;
