//! A layer that answers denials that are certain to stand: a denial carries `retry_after`, and until then the same
//! request is denied here, exactly as the store would. A request of more hits is certain to be denied too, but only the
//! store knows for how long, so it is asked once for each number of hits (up to [`MAX_SIZES`] numbers).
//!
//! Where leases may be outstanding, unused hits can come back at any time, so a denial then holds only to the end of
//! its slice and at most as long as a lease lives. Hits that this process gives back end a denial at once. Algorithms
//! whose slots other processes release (`concurrency`) and hits that count even when denied are never answered from here.
//!
//! Bounded in keys; an entry that falls out costs one call to the store.

use std::sync::Arc;

use async_trait::async_trait;
use quick_cache::sync::Cache;
use smallvec::SmallVec;

use crate::model::{Algorithm, Check, Clock, CounterKey, Hits, Limit, Outcome, RetryAfter, Transaction};

use super::lease::MAX_LIFE_US;
use super::{Outcomes, Store, StoreError};

/// Different numbers of hits that are kept for a key.
const MAX_SIZES: usize = 4;

/// The layer.
pub struct DenyCache<S> {
    inner: S,
    denials: Cache<CounterKey, SmallVec<[Denial; 1]>>,
    clock: Arc<dyn Clock>,
    /// Whether anybody may hold leases on these counters.
    leases: bool,
}

/// What is known of a key at its limit.
#[derive(Debug, Clone, Copy)]
struct Denial {
    /// The hits that were denied.
    hits: u64,
    /// The limit that denied them: a key outlives a change of the number, and a reload may have raised it.
    limit: Limit,
    /// Local time to which that is certain.
    until_us: u64,
    /// Local time at which the store said the same hits would pass.
    retry_at_us: u64,
    /// Local time at which the full quota is back.
    reset_at_us: u64,
    /// What was left.
    remaining: u64,
}

impl<S: Store> DenyCache<S> {
    /// A cache of up to `max_keys` keys over `inner`; `leases` says whether any replica may hold leases.
    pub fn new(inner: S, max_keys: usize, leases: bool, clock: Arc<dyn Clock>) -> Self {
        Self {
            inner,
            denials: Cache::new(max_keys.max(1)),
            clock,
            leases,
        }
    }

    /// Keys that are denied here at the moment (some perhaps no longer).
    #[must_use]
    pub fn len(&self) -> usize {
        self.denials.len()
    }

    /// Whether no key is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.denials.is_empty()
    }

    /// The denials of all checks, or `None` if one might pass.
    fn answer(&self, transaction: &Transaction) -> Option<Outcomes> {
        if self.denials.is_empty() {
            return None;
        }
        let now = self.clock.now_us();
        transaction.checks.iter().map(|check| self.denied(check, now)).collect()
    }

    fn denied(&self, check: &Check, now: u64) -> Option<Outcome> {
        let hits = asked(check)?;
        let known = self.denials.get(&check.key)?;
        let denial = known
            .iter()
            .find(|denial| denial.hits == hits && denial.limit == check.limit && now < denial.until_us)?;
        let retry_after = RetryAfter::Micros(denial.retry_at_us.saturating_sub(now).max(1));
        let reset_after_us = denial.reset_at_us.saturating_sub(now);
        Some(Outcome {
            cached: true,
            ..Outcome::refused(denial.remaining, retry_after, reset_after_us)
        })
    }

    /// Keeps what a call has shown. The store looked at its clock some time between `sent` and `received`: a denial is
    /// certain from the first on, a wait is over from the second on.
    fn learn(&self, transaction: &Transaction, outcomes: &Outcomes, sent: u64, received: u64) {
        let passed = transaction.passes(outcomes.iter().map(|outcome| outcome.allowed));
        for (check, outcome) in transaction.checks.iter().zip(outcomes) {
            match (asked(check), outcome.retry_after) {
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
                }
                _ if passed || matches!(check.hits, Hits::Debit(_)) => self.forget(check),
                _ => {}
            }
        }
    }

    fn keep(&self, check: &Check, denial: Denial, now: u64) {
        let mut known = self.denials.get(&check.key).unwrap_or_default();
        known.retain(|other| other.hits != denial.hits && other.limit == denial.limit && now < other.until_us);
        if known.len() == MAX_SIZES {
            known.remove(0);
        }
        known.push(denial);
        self.denials.insert(check.key.clone(), known);
    }

    /// Hits that come back end a denial; hits that pass make what is known of other sizes wrong.
    fn forget(&self, check: &Check) {
        if check.hits != Hits::Peek && self.denials.peek(&check.key).is_some() {
            self.denials.remove(&check.key);
        }
    }

    fn certain_us(&self, check: &Check, wait: u64) -> u64 {
        if !self.leases {
            return wait;
        }
        let slice_left = match check.limit.algorithm {
            // `retry_after` ends on a slice's edge, so what is left of the present slice is its remainder.
            Algorithm::SlidingWindow { precision } => {
                let slice = check.limit.window_us.div_ceil(u64::from(precision.max(1))).max(1);
                (wait - 1) % slice + 1
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
        Hits::Acquire(hits) => Some(hits),
        Hits::Peek => Some(1),
        Hits::Debit(_) | Hits::Refund(_) | Hits::Lease(_) | Hits::Return { .. } => None,
    }
}

#[async_trait]
impl<S: Store> Store for DenyCache<S> {
    async fn check(&self, transaction: &Transaction) -> Result<Outcomes, StoreError> {
        if let Some(outcomes) = self.answer(transaction) {
            return Ok(outcomes);
        }
        let sent = self.clock.now_us();
        let outcomes = self.inner.check(transaction).await?;
        self.learn(transaction, &outcomes, sent, self.clock.now_us());
        Ok(outcomes)
    }
}
