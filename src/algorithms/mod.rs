//! The arithmetic of limits: one folder each, pure, the same in Rust (`step.rs`) and in Lua (`script.lua`).
//!
//! | folder | promise | state |
//! |---|---|---|
//! | [`sliding_window`] | never more than L hits in any window | counts of slices, O(precision) |
//! | [`sliding_log`] | the same, with no denial too many | an entry for each request |
//! | [`token_bucket`] | never more than burst + rate × T hits in any T | one time |
//! | [`leaky_bucket`] | admitted requests leave evenly spaced | one time |
//! | [`fixed_window`] | at most L hits in an epoch-aligned window (2 L in the worst window) | one count |
//! | [`concurrency`] | at most L in flight | counts of slices |
//!
//! Here is the sum over all of them; [`transaction`] decides several checks as one, [`limit`] builds limits.
//! All times are microseconds since the epoch. When the clock goes back, hits are counted at the newest time that the
//! state knows of, and waits are told from the caller's own `now_us`.

pub mod concurrency;
pub mod fixed_window;
pub mod leaky_bucket;
pub mod limit;
pub mod sliding_log;
pub mod sliding_window;
pub mod token_bucket;
pub mod transaction;

use crate::model::{Algorithm, Limit, Outcome};

/// A check of more hits is taken for one of this many, on both sides: no limit holds as many, and sums of them stay
/// exact doubles.
pub const MAX_CHECK_HITS: u64 = 1 << 40;

/// What a counter remembers. Sixteen bytes, so that a bucket costs a map entry and nothing on the heap.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// Sliding window, concurrency.
    Slices(Box<sliding_window::State>),
    /// Sliding log.
    Log(Box<sliding_log::State>),
    /// Token bucket, leaky bucket.
    Bucket(token_bucket::State),
    /// Fixed window.
    Fixed(fixed_window::State),
}

impl State {
    /// The state of a counter that nobody has used.
    #[must_use]
    pub fn new(limit: &Limit) -> Self {
        match Params::new(limit) {
            Params::Slices(_) => Self::Slices(Box::default()),
            Params::Log(_) => Self::Log(Box::default()),
            Params::Bucket(_) => Self::Bucket(token_bucket::State::default()),
            Params::Fixed(_) => Self::Fixed(fixed_window::State::default()),
        }
    }

    /// Bytes that this value keeps on the heap.
    #[must_use]
    pub fn heap_bytes(&self) -> usize {
        match self {
            Self::Slices(state) => size_of_val(&**state) + state.heap_bytes(),
            Self::Log(state) => size_of_val(&**state) + state.heap_bytes(),
            Self::Bucket(_) | Self::Fixed(_) => 0,
        }
    }
}

/// A limit's parameters as its step wants them.
pub(crate) enum Params {
    /// Sliding window, concurrency.
    Slices(sliding_window::Params),
    /// Sliding log.
    Log(sliding_log::Params),
    /// Token bucket, leaky bucket.
    Bucket(token_bucket::Params),
    /// Fixed window.
    Fixed(fixed_window::Params),
}

impl Params {
    pub(crate) const fn new(limit: &Limit) -> Self {
        match limit.algorithm {
            Algorithm::SlidingWindow { precision } => Self::Slices(sliding_window::Params::new(limit, precision)),
            Algorithm::Concurrency => Self::Slices(concurrency::params(limit)),
            Algorithm::SlidingLog => Self::Log(sliding_log::Params::new(limit)),
            Algorithm::TokenBucket {
                burst,
                hit_units,
                unit_rate,
            } => Self::Bucket(token_bucket::Params::new(burst, hit_units, unit_rate)),
            Algorithm::LeakyBucket {
                max_delay_us,
                hit_units,
                unit_rate,
            } => Self::Bucket(leaky_bucket::params(limit, max_delay_us, hit_units, unit_rate)),
            Algorithm::FixedWindow => Self::Fixed(fixed_window::Params::new(limit)),
        }
    }
}

/// What an unused counter has left.
#[must_use]
pub fn quota(limit: &Limit) -> u64 {
    match limit.algorithm {
        Algorithm::TokenBucket { burst, .. } => burst,
        Algorithm::LeakyBucket { .. } => decide(limit, &State::new(limit), 0, 0).remaining,
        _ => limit.hits,
    }
}

/// What would become of `hits` now; reads only. `hits = 0` peeks: allowed if one more would be.
///
/// `remaining` and `reset_after_us` are as they are after the hits if they are allowed, else as things stand.
#[must_use]
pub fn decide(limit: &Limit, state: &State, now_us: u64, hits: u64) -> Outcome {
    match (&Params::new(limit), state) {
        (Params::Slices(params), State::Slices(state)) => sliding_window::decide(params, state, now_us, hits),
        (Params::Log(params), State::Log(state)) => sliding_log::decide(params, state, now_us, hits),
        (Params::Bucket(params), State::Bucket(state)) => token_bucket::decide(params, state, now_us, hits),
        (Params::Fixed(params), State::Fixed(state)) => fixed_window::decide(params, state, now_us, hits),
        // The algorithm is part of the key, so this is nobody's state: it counts as unused.
        _ => decide(limit, &State::new(limit), now_us, hits),
    }
}

/// Hits that would pass now: what a peek says, without its times.
#[must_use]
pub fn remaining(limit: &Limit, state: &State, now_us: u64) -> u64 {
    match (&Params::new(limit), state) {
        (Params::Slices(params), State::Slices(state)) => sliding_window::remaining(params, state, now_us),
        _ => decide(limit, state, now_us, 0).remaining,
    }
}

/// Counts hits that [`decide`] allowed.
pub fn apply(limit: &Limit, state: &mut State, now_us: u64, hits: u64) {
    match (&Params::new(limit), &mut *state) {
        (Params::Slices(params), State::Slices(state)) => sliding_window::apply(params, state, now_us, hits),
        (Params::Log(params), State::Log(state)) => sliding_log::apply(params, state, now_us, hits),
        (Params::Bucket(params), State::Bucket(state)) => token_bucket::apply(params, state, now_us, hits),
        (Params::Fixed(params), State::Fixed(state)) => fixed_window::apply(params, state, now_us, hits),
        _ => {
            *state = State::new(limit);
            apply(limit, state, now_us, hits);
        }
    }
}

/// Counts hits that have happened, whether they fit or not, up to a bound that each algorithm sets: 2^32 - 1 hits in a
/// window, 2^24 - 1 in a log, and twice what a bucket holds.
pub fn charge(limit: &Limit, state: &mut State, now_us: u64, hits: u64) {
    match (&Params::new(limit), &mut *state) {
        (Params::Slices(params), State::Slices(state)) => sliding_window::charge(params, state, now_us, hits),
        (Params::Log(params), State::Log(state)) => sliding_log::charge(params, state, now_us, hits),
        (Params::Bucket(params), State::Bucket(state)) => token_bucket::charge(params, state, now_us, hits),
        // Its count stops by itself.
        (Params::Fixed(params), State::Fixed(state)) => fixed_window::apply(params, state, now_us, hits),
        _ => {
            *state = State::new(limit);
            charge(limit, state, now_us, hits);
        }
    }
}

/// Gives hits back: the oldest that still count go first, so that what stays is counted no shorter than it was taken
/// for; never below zero use. With nothing left the state is an unused one again.
pub fn give(limit: &Limit, state: &mut State, now_us: u64, hits: u64) {
    match (&Params::new(limit), &mut *state) {
        (Params::Slices(params), State::Slices(state)) => sliding_window::give(params, state, now_us, hits),
        (Params::Log(params), State::Log(state)) => sliding_log::give(params, state, now_us, hits),
        (Params::Bucket(params), State::Bucket(state)) => token_bucket::give(params, state, now_us, hits),
        (Params::Fixed(params), State::Fixed(state)) => fixed_window::give(params, state, now_us, hits),
        _ => *state = State::new(limit),
    }
}

/// Gives hits back to the slice or window that a lease counted them in, if that still counts: never below zero use.
pub fn give_to(limit: &Limit, state: &mut State, now_us: u64, slice: u64, hits: u64) {
    if lease(limit, state, now_us).is_none() {
        return;
    }
    match (&Params::new(limit), &mut *state) {
        (Params::Slices(params), State::Slices(state)) => {
            sliding_window::give_to(params, state, now_us, slice, hits);
        }
        (Params::Bucket(params), State::Bucket(state)) => {
            token_bucket::give(params, state, now_us, hits);
        }
        (Params::Fixed(params), State::Fixed(state)) => {
            fixed_window::give_to(params, state, now_us, slice, hits);
        }
        _ => {}
    }
}

/// In which slice or window hits would be counted now, and how long until it ends; `None` if the algorithm leases
/// nothing. See [`Grant`](crate::model::Grant).
#[must_use]
pub fn lease(limit: &Limit, state: &State, now_us: u64) -> Option<(u64, u64)> {
    match (limit.algorithm, Params::new(limit), state) {
        (Algorithm::SlidingWindow { .. }, Params::Slices(params), State::Slices(state)) => {
            Some(sliding_window::lease(&params, state, now_us))
        }
        (Algorithm::TokenBucket { .. }, ..) => Some((0, u64::MAX)),
        (Algorithm::FixedWindow, Params::Fixed(params), State::Fixed(state)) => {
            Some(fixed_window::lease(&params, state, now_us))
        }
        _ => None,
    }
}

/// The time from which the state means the same as an unused one. For garbage collection only.
#[must_use]
pub fn expires_us(limit: &Limit, state: &State) -> u64 {
    match (&Params::new(limit), state) {
        (Params::Slices(params), State::Slices(state)) => sliding_window::expires_us(params, state),
        (Params::Log(params), State::Log(state)) => sliding_log::expires_us(params, state),
        (Params::Bucket(_), State::Bucket(state)) => token_bucket::expires_us(state),
        (Params::Fixed(params), State::Fixed(state)) => fixed_window::expires_us(params, state),
        _ => 0,
    }
}
