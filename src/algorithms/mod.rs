//! The arithmetic of limits: one folder each, pure, the same in Rust (`step.rs`) and in Lua (`script.lua`).
//!
//! | folder | promise | state |
//! |---|---|---|
//! | [`sliding_window`] | never more than L hits in any window | counts of slices, O(precision) |
//! | [`sliding_log`] | the same, with no denial too many | an entry for each request |
//! | [`token_bucket`] | never more than burst + rate × T hits in any T | one time and its pace |
//! | [`leaky_bucket`] | admitted requests leave evenly spaced | one time and its pace |
//! | [`fixed_window`] | at most L hits in an epoch-aligned window, or one of a calendar (2 L in the worst window) | one count |
//! | [`concurrency`] | at most L in flight | counts of slices |
//!
//! [`held`] keeps holds beside any of them but the leaky bucket. This module has the sum type over all of them, [`transaction`]
//! decides several checks as one, and [`limit`] builds limits.
//!
//! All times are microseconds since the epoch. When the clock goes back, hits are counted at the newest time in the state, and
//! waits are computed from the caller's own `now_us`.

pub mod concurrency;
pub mod fixed_window;
pub mod held;
pub mod leaky_bucket;
pub mod limit;
pub mod op;
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
    /// Any of them with its holds.
    Held(Box<held::State>),
}

impl State {
    /// The state of an unused counter.
    #[must_use]
    pub fn new(limit: &Limit) -> Self {
        if limit.hold_us > 0 {
            return Self::Held(Box::new(held::State::new(limit)));
        }
        match Params::new(limit) {
            Params::Slices(_) => Self::Slices(Box::default()),
            Params::Log(_) => Self::Log(Box::default()),
            Params::Bucket(_) => Self::Bucket(token_bucket::State::default()),
            Params::Fixed(_) => Self::Fixed(fixed_window::State::default()),
        }
    }

    /// Forgets what is used, and no holds.
    pub fn reset(&mut self) {
        match self {
            Self::Slices(state) => **state = sliding_window::State::default(),
            Self::Log(state) => **state = sliding_log::State::default(),
            Self::Bucket(state) => *state = token_bucket::State::default(),
            Self::Fixed(state) => *state = fixed_window::State::default(),
            Self::Held(state) => state.counter_mut().reset(),
        }
    }

    /// Prefetches the first part of the state on the heap. The returned number has no meaning; it only forces the read.
    #[must_use]
    pub fn touch(&self) -> u64 {
        match self {
            Self::Slices(state) => state.touch(),
            Self::Log(_) | Self::Held(_) | Self::Bucket(_) | Self::Fixed(_) => 0,
        }
    }

    /// Prefetches what the first part refers to.
    #[must_use]
    pub fn touch_more(&self) -> u32 {
        match self {
            Self::Slices(state) => state.touch_ring(),
            Self::Log(_) | Self::Held(_) | Self::Bucket(_) | Self::Fixed(_) => 0,
        }
    }

    /// Bytes that this value keeps on the heap.
    #[must_use]
    pub fn heap_bytes(&self) -> usize {
        match self {
            Self::Slices(state) => size_of_val(&**state) + state.heap_bytes(),
            Self::Log(state) => size_of_val(&**state) + state.heap_bytes(),
            Self::Held(state) => size_of_val(&**state) + state.heap_bytes(),
            Self::Bucket(_) | Self::Fixed(_) => 0,
        }
    }
}

/// A limit's parameters, in the form that its algorithm's step takes.
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
            } => Self::Bucket(token_bucket::Params::new(
                burst.saturating_mul(hit_units),
                hit_units,
                unit_rate,
                false,
            )),
            Algorithm::LeakyBucket {
                max_delay_us,
                hit_units,
                unit_rate,
            } => Self::Bucket(leaky_bucket::params(limit, max_delay_us, hit_units, unit_rate)),
            Algorithm::FixedWindow | Algorithm::CalendarWindow(_) => Self::Fixed(fixed_window::Params::new(limit)),
        }
    }
}

/// The hits that an unused counter has left.
#[must_use]
pub fn quota(limit: &Limit) -> u64 {
    match limit.algorithm {
        Algorithm::TokenBucket { burst, .. } => burst,
        Algorithm::LeakyBucket { .. } => decide(limit, &State::new(limit), 0, 0).remaining,
        _ => limit.hits,
    }
}

/// Converts a state that was written under other numbers of its limit to the present ones: the used hits stay used. Returns
/// whether the state has changed; it must then be saved even if the check counts nothing, since it may expire later.
pub fn adopt(limit: &Limit, state: &mut State, now_us: u64) -> bool {
    match (&Params::new(limit), state) {
        (Params::Slices(params), State::Slices(state)) => sliding_window::adopt(params, state, now_us),
        (Params::Bucket(params), State::Bucket(state)) => token_bucket::adopt(params, state, now_us),
        (Params::Fixed(params), State::Fixed(state)) => fixed_window::adopt(params, state, now_us),
        (_, State::Held(state)) => adopt(&held::plain(limit), state.counter_mut(), now_us),
        _ => false,
    }
}

/// Whether [`adopt`] would change the state.
#[must_use]
pub fn is_foreign(limit: &Limit, state: &State, now_us: u64) -> bool {
    match (&Params::new(limit), state) {
        (Params::Slices(params), State::Slices(state)) => sliding_window::is_foreign(params, state),
        (Params::Bucket(params), State::Bucket(state)) => token_bucket::is_foreign(params, state, now_us),
        (Params::Fixed(params), State::Fixed(state)) => fixed_window::is_foreign(params, state),
        (_, State::Held(state)) => is_foreign(&held::plain(limit), state.counter(), now_us),
        _ => false,
    }
}

/// Decides `hits` at this time, without counting them. `hits = 0` peeks: allowed if one more would be.
///
/// `remaining` and `reset_after_us` are those after the hits if they are allowed, else the present ones.
#[must_use]
pub fn decide(limit: &Limit, state: &State, now_us: u64, hits: u64) -> Outcome {
    match (&Params::new(limit), state) {
        (Params::Slices(params), State::Slices(state)) => sliding_window::decide(params, state, now_us, hits),
        (Params::Log(params), State::Log(state)) => sliding_log::decide(params, state, now_us, hits),
        (Params::Bucket(params), State::Bucket(state)) => token_bucket::decide(params, state, now_us, hits),
        (Params::Fixed(params), State::Fixed(state)) => fixed_window::decide(params, state, now_us, hits),
        (_, State::Held(state)) => held::decide(limit, state, now_us, hits),
        // The algorithm is part of the key, so a state of another algorithm cannot be this counter's: it counts as unused.
        _ => decide(limit, &State::new(limit), now_us, hits),
    }
}

/// Hits that would pass now: a peek's `remaining`.
#[must_use]
pub fn remaining(limit: &Limit, state: &State, now_us: u64) -> u64 {
    match (&Params::new(limit), state) {
        (Params::Slices(params), State::Slices(state)) => sliding_window::remaining(params, state, now_us),
        _ => decide(limit, state, now_us, 0).remaining,
    }
}

/// Hits of the quota that are not used: [`remaining`], with those that open holds keep.
#[must_use]
pub fn unused(limit: &Limit, state: &State, now_us: u64) -> u64 {
    match state {
        State::Held(state) => remaining(&held::plain(limit), state.counter(), now_us),
        _ => remaining(limit, state, now_us),
    }
}

/// Counts hits that [`decide`] allowed.
pub fn apply(limit: &Limit, state: &mut State, now_us: u64, hits: u64) {
    match (&Params::new(limit), &mut *state) {
        (Params::Slices(params), State::Slices(state)) => sliding_window::apply(params, state, now_us, hits),
        (Params::Log(params), State::Log(state)) => sliding_log::apply(params, state, now_us, hits),
        (Params::Bucket(params), State::Bucket(state)) => token_bucket::apply(params, state, now_us, hits),
        (Params::Fixed(params), State::Fixed(state)) => fixed_window::apply(params, state, now_us, hits),
        (_, State::Held(state)) => apply(&held::plain(limit), state.counter_mut(), now_us, hits),
        _ => {
            *state = State::new(limit);
            apply(limit, state, now_us, hits);
        }
    }
}

/// Counts hits that have happened, whether they fit or not, up to a bound that each algorithm sets: 2^32 - 1 hits in a
/// window, 2^24 - 1 in a log, and twice what a bucket holds.
pub fn debit(limit: &Limit, state: &mut State, now_us: u64, hits: u64) {
    match (&Params::new(limit), &mut *state) {
        (Params::Slices(params), State::Slices(state)) => sliding_window::debit(params, state, now_us, hits),
        (Params::Log(params), State::Log(state)) => sliding_log::debit(params, state, now_us, hits),
        (Params::Bucket(params), State::Bucket(state)) => token_bucket::debit(params, state, now_us, hits),
        // Its count saturates.
        (Params::Fixed(params), State::Fixed(state)) => fixed_window::apply(params, state, now_us, hits),
        (_, State::Held(state)) => debit(&held::plain(limit), state.counter_mut(), now_us, hits),
        _ => {
            *state = State::new(limit);
            debit(limit, state, now_us, hits);
        }
    }
}

/// Gives hits back, the oldest that still count first, so that the remaining hits are counted for their whole time; never below
/// zero use. A state without hits equals an unused one.
pub fn refund(limit: &Limit, state: &mut State, now_us: u64, hits: u64) {
    match (&Params::new(limit), &mut *state) {
        (Params::Slices(params), State::Slices(state)) => sliding_window::refund(params, state, now_us, hits),
        (Params::Log(params), State::Log(state)) => sliding_log::refund(params, state, now_us, hits),
        (Params::Bucket(params), State::Bucket(state)) => token_bucket::refund(params, state, now_us, hits),
        (Params::Fixed(params), State::Fixed(state)) => fixed_window::refund(params, state, now_us, hits),
        (_, State::Held(state)) => refund(&held::plain(limit), state.counter_mut(), now_us, hits),
        _ => *state = State::new(limit),
    }
}

/// Takes hits out of the slice, window, microsecond or bucket state that they were counted in ([`Outcome::slice`]), if it
/// still counts: never below zero use, and never other hits. A state without hits equals an unused one.
///
/// If a log has counted more than [`sliding_log::MOST_MOVED`] requests since, the hits stay until they leave its window.
pub fn return_to(limit: &Limit, state: &mut State, now_us: u64, slice: u64, hits: u64) {
    match (&Params::new(limit), &mut *state) {
        (Params::Slices(params), State::Slices(state)) => sliding_window::return_to(params, state, now_us, slice, hits),
        (Params::Log(params), State::Log(state)) => sliding_log::return_to(params, state, now_us, slice, hits),
        (Params::Bucket(params), State::Bucket(state)) => token_bucket::return_to(params, state, now_us, slice, hits),
        (Params::Fixed(params), State::Fixed(state)) => fixed_window::return_to(params, state, now_us, slice, hits),
        (_, State::Held(state)) => return_to(&held::plain(limit), state.counter_mut(), now_us, slice, hits),
        _ => *state = State::new(limit),
    }
}

/// The slice ([`Outcome::slice`]) of the newest hits of a counter whose quota is full again at `full_at_us`.
#[must_use]
pub const fn slice_full_at(limit: &Limit, full_at_us: u64) -> u64 {
    match Params::new(limit) {
        Params::Slices(params) => (full_at_us / params.slice_us).saturating_sub(params.slices + 1),
        Params::Log(params) => full_at_us.saturating_sub(params.window_us),
        Params::Bucket(_) => full_at_us,
        Params::Fixed(params) => (full_at_us / params.number_us()).saturating_sub(1),
    }
}

/// Microseconds from `now_us` until hits leased in `slice` must have been admitted; `None` if the algorithm leases
/// nothing. See [`Grant`](op::Grant).
#[must_use]
pub const fn lease_left_us(limit: &Limit, slice: u64, now_us: u64) -> Option<u64> {
    if limit.hold_us > 0 {
        return None;
    }
    let length_us = match (limit.algorithm, Params::new(limit)) {
        (Algorithm::SlidingWindow { .. }, Params::Slices(params)) => params.slice_us,
        (_, Params::Fixed(params)) => params.number_us(),
        (Algorithm::TokenBucket { .. }, _) => return Some(u64::MAX),
        _ => return None,
    };
    let end_us = slice.saturating_add(1).saturating_mul(length_us);
    Some(end_us.saturating_sub(now_us))
}

/// The time from which the state equals an unused one. For garbage collection only.
#[must_use]
pub fn expires_us(limit: &Limit, state: &State) -> u64 {
    match (&Params::new(limit), state) {
        (Params::Slices(_), State::Slices(state)) => sliding_window::expires_us(state),
        (Params::Log(params), State::Log(state)) => sliding_log::expires_us(params, state),
        (Params::Bucket(_), State::Bucket(state)) => token_bucket::expires_us(state),
        (Params::Fixed(_), State::Fixed(state)) => fixed_window::expires_us(state),
        (_, State::Held(state)) => held::expires_us(limit, state),
        _ => 0,
    }
}
