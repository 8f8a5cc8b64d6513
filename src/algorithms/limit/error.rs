//! What can be wrong with a limit.

use thiserror::Error;

use super::{DEFAULT_PRECISION, MAX_HITS, MAX_LOG_HITS, MAX_MAX_DELAY_US, MAX_PRECISION};
use crate::model::time::SECOND_US;
use crate::model::{AlgorithmKind, Window};

/// Why a limit cannot be counted, and how to fix it.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum LimitError {
    /// More hits than a counter holds.
    #[error("{0} hits in a window are too many: the most is {MAX_HITS}; use `unlimited: true` to count nothing")]
    Hits(u64),
    /// No window at all.
    #[error("the window is empty: give it at least 1 second")]
    WindowEmpty,
    /// Longer than can be counted.
    #[error("a window of {0} is too long: the longest is 10 years (3650 days)")]
    WindowTooLong(Window),
    /// Windows of a calendar are counted one by one.
    #[error(
        "a window of a calendar starts over at its end, which {0} does not: remove `algorithm`, or set `algorithm: fixed_window`"
    )]
    Calendar(AlgorithmKind),
    /// A setting of another algorithm.
    #[error("`{setting}` has no meaning for {algorithm}: remove it, or set `algorithm: {owner}`")]
    NotForThis {
        /// The setting's name in rules files.
        setting: &'static str,
        /// The algorithm that was asked for.
        algorithm: AlgorithmKind,
        /// The algorithm that knows the setting.
        owner: AlgorithmKind,
    },
    /// Outside 1..=[`MAX_PRECISION`].
    #[error("a precision of {0} is out of range: give 1 to {MAX_PRECISION} slices (default {DEFAULT_PRECISION})")]
    Precision(u32),
    /// Denied hits cannot count: a slot is free again, and a delay is over, all the same.
    #[error("`count_denied` has no meaning for {0}: remove it, or choose another algorithm")]
    CountDenied(AlgorithmKind),
    /// Hits of this algorithm cannot be held: they wait for their turn.
    #[error("`hold` has no meaning for {0}: remove it, or set `algorithm: token_bucket`")]
    Hold(AlgorithmKind),
    /// A hold that lasts no time.
    #[error(
        "a hold's ttl must not be 0: give the longest time that a request may take, such as `hold: {{ ttl: 10m }}`"
    )]
    HoldEmpty,
    /// The log would grow too large.
    #[error(
        "sliding_log keeps an entry for each request and stops at {MAX_LOG_HITS} hits in a window, not {0}: \
         use `algorithm: sliding_window`, whose state does not grow with the limit"
    )]
    LogHits(u64),
    /// A bucket that can hold nothing.
    #[error("a burst of 0 would deny everything: give at least 1, or ban with `requests_per_unit: 0` and no burst")]
    BurstEmpty,
    /// A ban with a burst.
    #[error("`requests_per_unit: 0` bans, so a burst of {0} could never refill: remove `burst`, or raise the limit")]
    BurstOfBan(u64),
    /// Too much for the arithmetic.
    #[error(
        "a burst of {burst} at {hits} hits per {window} cannot be counted exactly (it would take more than a \
         century to refill): lower `burst` or shorten the window"
    )]
    BurstTooLarge {
        /// What was asked for.
        burst: u64,
        /// L.
        hits: u64,
        /// W.
        window: Window,
    },
    /// A delay beyond [`MAX_MAX_DELAY_US`].
    #[error("a max_delay of {} ms is too long: the longest is {} s", .0 / 1000, MAX_MAX_DELAY_US / SECOND_US)]
    MaxDelay(u64),
    /// The rate cannot be expressed within the arithmetic's bounds.
    #[error("{hits} hits per {window} cannot be spaced exactly: use a rounder number, or a shorter window")]
    Rate {
        /// L.
        hits: u64,
        /// W.
        window: Window,
    },
}
