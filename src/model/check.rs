//! What a store is asked and what it answers.

use std::time::Instant;

use smallvec::SmallVec;

use super::{CounterKey, HoldId, Holds, Limit};

/// The checks of one request: consumed together or not at all.
///
/// `H` is what its checks do to their counters: [`Hits`] in a request, `algorithms::op::Op` on the way to a store. `K` names
/// their counters; `()` where all checks have one counter, which is named beside them.
#[derive(Debug, Clone)]
pub struct Transaction<H = Hits, K = CounterKey> {
    /// In the order of the request's descriptors; the same key may stand in it more than once.
    pub checks: SmallVec<[Check<H, K>; 2]>,
    /// When the answer stops being of use to the caller (its `grpc-timeout`); `None` = the store's own timeout only.
    pub deadline: Option<Instant>,
    /// A rule of the request says `lease: false`: every hit is counted in the store before it is admitted, one by one.
    pub exact: bool,
}

impl<H, K> Default for Transaction<H, K> {
    fn default() -> Self {
        Self {
            checks: SmallVec::new(),
            deadline: None,
            exact: false,
        }
    }
}

/// One counter to be asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check<H = Hits, K = CounterKey> {
    /// Which counter.
    pub key: K,
    /// What it must not pass.
    pub limit: Limit,
    /// What it would cost.
    pub hits: H,
    /// What its denial means for the transaction.
    pub enforcement: Enforcement,
}

/// What a check does to its counter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hits {
    /// Counts this many (at least 1) if they are admitted.
    Acquire(u64),
    /// Counts this many (at least 1) whether they fit or not, and whether the transaction passes or not: they have
    /// happened already. Allowed if they fit. They count before everything else in the transaction. A counter keeps what
    /// is charged above its limit (see [`debit`](crate::algorithms::debit) for how much), so that it is over for
    /// longer.
    Debit(u64),
    /// Counts nothing; allowed if at least one more hit would be admitted.
    Peek,
    /// Gives this many back: never below zero use, never above the full quota. Always allowed, and done whatever else
    /// the transaction comes to; it helps later transactions only.
    Refund(u64),
    /// Keeps this many (at least 1) as a hold until it is settled or its ttl ends: admitted while what is used, all open
    /// holds and these stay within the limit. More than the limit could ever admit is admitted while there is no other
    /// hold, and keeps what is left.
    Hold {
        /// How many.
        hits: u64,
        /// Whose.
        id: HoldId,
    },
    /// Ends a hold and counts this many hits (0 = none) in its place, as [`Debit`](Self::Debit) does. Where no such hold is
    /// open they are counted all the same, unless it has been settled before.
    Settle {
        /// How many.
        hits: u64,
        /// Whose.
        id: HoldId,
    },
    /// Keeps what requests have cost on average (at least 1), or all that is left if that is less, until any request of the
    /// counter settles it or its ttl ends: for callers that cannot carry an id. Such holds are counted, and each keeps the
    /// mean that the check brings.
    HoldMean(u64),
    /// Ends the counter's oldest hold of a mean cost and counts this many hits in its place, as [`Debit`](Self::Debit) does.
    SettleOldest {
        /// How many.
        hits: u64,
        /// What the other holds keep.
        mean: u64,
    },
}

/// What a check's denial means for the transaction that it is part of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Enforcement {
    /// A denial denies the transaction.
    #[default]
    Enforce,
    /// One of the quotas of a scope, such as a backend's model: a scope is denied if any of its quotas is, the transaction
    /// if all scopes are. Scopes are numbered within the transaction.
    Quota(u8),
    /// Counted and reported, never denies (shadow mode).
    Shadow,
}

/// A store's answer to one check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outcome {
    /// Whether this check alone would let the hits pass.
    pub allowed: bool,
    /// Hits that could still be taken now: after this check if the transaction was committed, as things stand if not.
    pub remaining: u64,
    /// When denied: how long until the same hits would be admitted if nobody else came.
    pub retry_after: RetryAfter,
    /// Microseconds until the full quota is back if nobody comes.
    pub reset_after_us: u64,
    /// Microseconds for which the answer must be held back (leaky bucket); 0 elsewhere.
    pub delay_us: u64,
    /// Of a denied [`Hits::Debit`]: how many of its hits would have been admitted when it came; 0 elsewhere, where
    /// `remaining` says so.
    pub room: u64,
    /// Of a check that counted hits: the slice (sliding_window, concurrency), window (fixed_window) or microsecond
    /// (sliding_log) that they were counted in; for a bucket the server's time in microseconds at which it is full again
    /// if nobody else comes. 0 where nothing was counted. `algorithms::return_to` takes hits back out of it.
    pub slice: u64,
    /// The counter's holds.
    pub holds: Holds,
    /// A denial that was certain without asking the store, from an earlier answer; says nothing about the counter.
    pub cached: bool,
}

const NO_HOLDS: Holds = Holds {
    open: 0,
    own: 0,
    expired: 0,
    repeated: false,
};

impl Outcome {
    /// An answer that lets the hits pass at once.
    #[must_use]
    pub const fn admitted(remaining: u64, reset_after_us: u64) -> Self {
        Self {
            allowed: true,
            remaining,
            retry_after: RetryAfter::Now,
            reset_after_us,
            delay_us: 0,
            room: 0,
            slice: 0,
            holds: NO_HOLDS,
            cached: false,
        }
    }

    /// An answer that does not.
    #[must_use]
    pub const fn refused(remaining: u64, retry_after: RetryAfter, reset_after_us: u64) -> Self {
        Self {
            allowed: false,
            retry_after,
            ..Self::admitted(remaining, reset_after_us)
        }
    }
}

/// How long to wait before the same request would pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RetryAfter {
    /// Not at all: it passed.
    Now,
    /// This many microseconds; at least 1.
    Micros(u64),
    /// No waiting helps: the request is larger than the limit can ever hold.
    Never,
}

impl<H> Transaction<H> {
    /// The same in a wider vocabulary.
    #[must_use]
    pub fn into_ops<T: From<H>>(self) -> Transaction<T> {
        let widen = |check: Check<H>| Check {
            key: check.key,
            limit: check.limit,
            hits: check.hits.into(),
            enforcement: check.enforcement,
        };
        Transaction {
            checks: self.checks.into_iter().map(widen).collect(),
            deadline: self.deadline,
            exact: self.exact,
        }
    }
}

impl<H, K> Transaction<H, K> {
    /// Whether the transaction as a whole passes, given each check's verdict in order.
    ///
    /// The one definition of all-or-nothing; the Lua driver (`store/redis/transaction.lua`) mirrors it.
    #[must_use]
    pub fn passes(&self, allowed: impl IntoIterator<Item = bool>) -> bool {
        passes(self.checks.iter().map(|check| check.enforcement).zip(allowed))
    }
}

/// Whether verdicts, each with what it means for the whole, let the whole pass.
pub fn passes(verdicts: impl IntoIterator<Item = (Enforcement, bool)>) -> bool {
    // One bit for each scope.
    let (mut scopes, mut denied) = ([0_u128; 2], [0_u128; 2]);
    for (enforcement, allowed) in verdicts {
        match enforcement {
            Enforcement::Enforce if !allowed => return false,
            Enforcement::Quota(scope) => {
                let (word, bit) = (usize::from(scope >> 7), 1_u128 << (scope & 127));
                scopes[word] |= bit;
                if !allowed {
                    denied[word] |= bit;
                }
            }
            Enforcement::Enforce | Enforcement::Shadow => {}
        }
    }
    scopes == [0; 2] || denied != scopes
}
