//! The denial cache: denials that are certain to stand. A denial has a `retry_after`, and until then the cache denies the same
//! request exactly as the store would. A request for more hits is certain to be denied too, but only the store knows for how
//! long, so it is asked once for each number of hits (up to [`MAX_SIZES`] numbers).
//!
//! Where leases are in use, unused hits can come back at any time: a denial is then kept only to the end of its slice, and at
//! most for the life of a lease. Hits that this process gives back, by a request or by the ledger, end a denial at once. The
//! cache does not learn of hits that another process gives back (those of a late answer, for instance), so it keeps no denial
//! for longer than [`MAX_KEPT_US`]. It never answers for `concurrency`, whose permits other processes release, nor for hits
//! that count even when denied.
//!
//! The number of keys is bounded; an evicted entry costs one call to the store.

use std::sync::Arc;
use std::sync::atomic::{
    AtomicU64,
    Ordering::{Relaxed, SeqCst},
};

use quick_cache::UnitWeighter;
use quick_cache::sync::{Cache, DefaultLifecycle};
use smallvec::SmallVec;

use super::bounds::{Bound, BoundCounts};
use super::hasher::KeyedHasher;
use super::lease::MAX_LIFE_US;
use crate::algorithms::sliding_window::Params;
use crate::model::time::SECOND_US;
use crate::model::{Algorithm, Check, CounterKey, Hits, Limit, Outcome, RetryAfter, Transaction};
use crate::store::Outcomes;

/// Denials of different numbers of hits that are kept for a key.
const MAX_SIZES: usize = 4;

/// Longest time for which a denial is kept, in microseconds; after it the store is asked again.
const MAX_KEPT_US: u64 = 10 * SECOND_US;

/// The denials of up to a fixed number of counters.
pub(super) struct Denials {
    known: Cache<CounterKey, SmallVec<[Denial; 1]>, UnitWeighter, KeyedHasher>,
    /// Whether any replica may hold leases on these counters.
    leases: bool,
    /// Local time of the last reset of any counter. An answer to a call that was sent before may be older than the reset.
    reset_us: AtomicU64,
    counts: Counts,
    reached: Arc<BoundCounts>,
}

/// Events since the start.
#[derive(Debug, Default)]
struct Counts {
    hits: AtomicU64,
    misses: AtomicU64,
    expired: AtomicU64,
    inserted: AtomicU64,
    overwritten: AtomicU64,
    forgotten: AtomicU64,
}

/// The denial cache at one moment; counts are since the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DenialStats {
    /// Counters with a cached denial (which may have ended).
    pub entries: usize,
    /// Checks that were denied from the cache.
    pub hits: u64,
    /// Checks that were not.
    pub misses: u64,
    /// Misses whose cached denial had ended.
    pub expired: u64,
    /// Entries that were replaced by newer ones of their counter.
    pub overwritten: u64,
    /// Entries that were evicted because the cache was full.
    pub evicted: u64,
}

/// One denial of a counter.
#[derive(Debug, Clone, Copy)]
struct Denial {
    /// The hits that were denied.
    hits: u64,
    /// The limit that denied them: the key stays the same when a reload changes the limit's number, and it may be higher now.
    limit: Limit,
    /// Local time until which the denial is certain.
    until_us: u64,
    /// Local time at which the store said the same hits would pass.
    retry_at_us: u64,
    /// Local time at which the full quota is back.
    reset_at_us: u64,
    /// Hits that were left.
    remaining: u64,
}

impl Denials {
    /// Denials of up to `max_keys` counters; `leases` says whether any replica may hold leases.
    pub(super) fn new(max_keys: usize, leases: bool, hasher: KeyedHasher, reached: Arc<BoundCounts>) -> Self {
        let keys = max_keys.max(1);
        Self {
            known: Cache::with(keys, keys as u64, UnitWeighter, hasher, DefaultLifecycle::default()),
            leases,
            reset_us: AtomicU64::new(0),
            counts: Counts::default(),
            reached,
        }
    }

    /// The number of entries, and the events since the start.
    pub(super) fn stats(&self) -> DenialStats {
        let count = |count: &AtomicU64| count.load(Relaxed);
        let entries = self.known.len();
        let counts = &self.counts;
        let gone = count(&counts.forgotten).saturating_add(entries as u64);
        DenialStats {
            entries,
            hits: count(&counts.hits),
            misses: count(&counts.misses),
            expired: count(&counts.expired),
            overwritten: count(&counts.overwritten),
            evicted: count(&counts.inserted).saturating_sub(gone),
        }
    }

    /// The denials of all checks; `None` if one of them might pass.
    pub(super) fn answer(&self, transaction: &Transaction, now: u64) -> Option<Outcomes> {
        if self.known.is_empty() {
            self.counts.misses.fetch_add(transaction.checks.len() as u64, Relaxed);
            return None;
        }
        transaction.checks.iter().map(|check| self.denied(check, now)).collect()
    }

    fn denied(&self, check: &Check, now: u64) -> Option<Outcome> {
        let denial = self.standing(check, now);
        let count = if denial.is_some() {
            &self.counts.hits
        } else {
            &self.counts.misses
        };
        count.fetch_add(1, Relaxed);
        let denial = denial?;
        let retry_after = RetryAfter::Micros(denial.retry_at_us.saturating_sub(now).max(1));
        let reset_after_us = denial.reset_at_us.saturating_sub(now);
        Some(Outcome {
            cached: true,
            ..Outcome::refused(denial.remaining, retry_after, reset_after_us)
        })
    }

    /// The cached denial of a check, if it is certain to stand.
    fn standing(&self, check: &Check, now: u64) -> Option<Denial> {
        let hits = asked(check)?;
        let known = self.known.get(&check.key)?;
        let denial = known
            .iter()
            .find(|denial| denial.hits == hits && denial.limit == check.limit)?;
        if now >= denial.until_us {
            self.counts.expired.fetch_add(1, Relaxed);
            return None;
        }
        Some(*denial)
    }

    /// Updates the cache from the answer to a call. The store read its clock between `sent` and `received`: the time for which
    /// a denial is certain is counted from the first, and `retry_after` from the second.
    pub(super) fn record(&self, transaction: &Transaction, outcomes: &Outcomes, sent: u64, received: u64) {
        let passed = transaction.passes(outcomes.iter().map(|outcome| outcome.allowed));
        for (check, outcome) in transaction.checks.iter().zip(outcomes) {
            match (asked(check), outcome.retry_after) {
                // Holds can be settled at any time.
                (Some(_), _) if outcome.holds.open > 0 && !outcome.allowed => {}
                (Some(hits), RetryAfter::Micros(wait)) if !outcome.allowed => {
                    let denial = Denial {
                        hits,
                        limit: check.limit,
                        until_us: sent.saturating_add(self.certain_us(check, wait)),
                        retry_at_us: received.saturating_add(wait),
                        reset_at_us: received.saturating_add(outcome.reset_after_us),
                        remaining: outcome.remaining,
                    };
                    self.keep(check, denial, sent);
                    // Compared after the denial is kept: a reset between the two removes it.
                    if sent <= self.reset_us.load(SeqCst) {
                        self.forget(&check.key);
                    }
                }
                // Hits that come back end a denial; after hits that pass, cached denials of other sizes are wrong.
                _ if check.hits == Hits::Peek => {}
                _ if passed || !matches!(check.hits, Hits::Acquire(_) | Hits::Hold { .. } | Hits::HoldMean(_)) => {
                    self.forget(&check.key)
                }
                _ => {}
            }
        }
    }

    fn keep(&self, check: &Check, denial: Denial, now: u64) {
        let known = self.known.get(&check.key);
        let count = if known.is_some() {
            &self.counts.overwritten
        } else {
            &self.counts.inserted
        };
        count.fetch_add(1, Relaxed);
        let mut known = known.unwrap_or_default();
        known.retain(|other| other.hits != denial.hits && other.limit == denial.limit && now < other.until_us);
        if known.len() == MAX_SIZES {
            self.reached.reached(Bound::DenialSizes);
            known.remove(0);
        }
        known.push(denial);
        self.known.insert(check.key.clone(), known);
    }

    /// Forgets the denials of a counter whose state has been reset. Denials in the answers to calls that were sent before, of
    /// any counter, are not kept either.
    pub(super) fn reset(&self, counter: &CounterKey, now: u64) {
        self.reset_us.fetch_max(now, SeqCst);
        self.forget(counter);
    }

    /// Forgets the denials of a counter.
    pub(super) fn forget(&self, counter: &CounterKey) {
        if self.known.peek(counter).is_some() && self.known.remove(counter).is_some() {
            self.counts.forgotten.fetch_add(1, Relaxed);
        }
    }

    /// For how long a denial is certain, in microseconds.
    fn certain_us(&self, check: &Check, wait: u64) -> u64 {
        if !self.leases {
            return wait.min(MAX_KEPT_US);
        }
        let slice_left = match check.limit.algorithm {
            // `retry_after` ends on a slice's edge, so the rest of the present slice is its remainder.
            Algorithm::SlidingWindow { precision } => {
                wait.saturating_sub(1) % Params::new(&check.limit, precision).slice_us + 1
            }
            _ => wait,
        };
        slice_left.min(MAX_LIFE_US)
    }
}

/// The hits that a check asks for, if its denial can be kept.
fn asked(check: &Check) -> Option<u64> {
    if check.limit.algorithm == Algorithm::Concurrency {
        return None;
    }
    match check.hits {
        Hits::Acquire(hits) | Hits::Hold { hits, .. } => Some(hits),
        Hits::Peek => Some(1),
        // It is denied only where nothing is left, as one hit is (`record` keeps no denial while holds are open).
        Hits::HoldMean(_) => Some(1),
        Hits::Debit(_) | Hits::Refund(_) | Hits::Settle { .. } | Hits::SettleOldest { .. } => None,
    }
}
