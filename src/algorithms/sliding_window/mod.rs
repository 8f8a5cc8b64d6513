//! Sliding window, the default: **in no window of length W, wherever it starts, are more than L hits admitted.**
//!
//! Time is cut into slices of `s = ceil(W / S)` microseconds, S being the rule's `precision`. At time `t`, in slice
//! `i = floor(t / s)`, the counted slices are `i - S ..= i`. Hits pass if the counted sum stays within L, and are
//! added to slice `i`.
//!
//! Proof of the bound: a slice holding a hit of `(t - W, t]` ends after `t - W`. Slice `i - S - 1` ends at
//! `(i - S) s <= t - S s <= t - W`, so it holds none, and all later ones are counted. The last hit admitted in any
//! window was admitted with all the others in the sum.
//!
//! What the bound costs: a request may be denied up to one slice (W / S) longer than an exact log would deny it, and
//! under endless demand S / (S + 1) of what a log admits is admitted. More precision buys more. The state is O(S),
//! whatever the limit and the hits. This is not the weighted sum of two counters, which admits up to 2 L in the worst
//! window.
//!
//! A rule's window and precision may change while its counters hold hits. A state says how it is sliced; met by other
//! parameters, its slices are cut anew, and each hit that still counts goes into the last slice in which it can have been
//! counted: so the promise holds for the new window from then on, and nobody waits longer than one old slice too long.
//! (While replicas with different parameters share a counter, each cuts what the other has written, and its hits may
//! count until a window after the last such change.)
//!
//! A refund is taken from the oldest slices that are counted: without knowing which hits they were, this is
//! the choice that can never free quota early.

mod step;

use crate::model::Limit;

pub use step::{
    State, adopt, apply, debit, decide, expires_us, is_foreign, newest, refund, remaining, return_to, used,
};

/// Bits of [`Params::slicing`] that hold the number of slices.
pub(super) const SLICES_BITS: u32 = 10;

/// A limit as this algorithm counts it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Params {
    /// L.
    pub hits: u64,
    /// s, the length of a slice in microseconds; at least 1.
    pub slice_us: u64,
    /// S, slices in a window; at least 1.
    pub slices: u64,
}

impl Params {
    /// `precision` is at least 1 (see `algorithms::limit`); 0 counts as 1.
    #[must_use]
    pub const fn new(limit: &Limit, precision: u32) -> Self {
        let slices = if precision == 0 { 1 } else { precision as u64 };
        let slice_us = limit.window_us.div_ceil(slices);
        Self {
            hits: limit.hits,
            slice_us: if slice_us == 0 { 1 } else { slice_us },
            slices,
        }
    }

    /// How time is cut: the length of a slice, and how many are a window.
    const fn slicing(&self) -> u64 {
        self.slice_us << SLICES_BITS | self.slices
    }

    /// The parameters of counters that are sliced so, but for the number of hits.
    const fn sliced(slicing: u64) -> Self {
        Self {
            hits: 0,
            slice_us: slicing >> SLICES_BITS,
            slices: slicing & ((1 << SLICES_BITS) - 1),
        }
    }
}
