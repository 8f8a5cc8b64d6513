//! A layer that takes several hits in one call for keys in demand, and admits from them without a call.
//!
//! Strict by construction: leased hits are counted in the store when they are leased, and a lease ends with the slice
//! (sliding_window) or window (fixed_window) that it was counted in. The store says how much of the slice is left, and
//! this layer starts that clock *before* it sends the call, so a lease ends early, never late. A lost answer, a lost
//! give-back or a crash only admits less.
//!
//! Only sliding_window and fixed_window are leased: their state does not care when within a slice a hit came. A token
//! bucket does: hits leased at `t` and admitted at `t' > t` have been refilled meanwhile, so others may take up to
//! `rate * (t' - t)` more, and `burst + rate * T` would be passed by that many.
//!
//! - A lease lives at most [`MAX_LIFE_US`], so that unused hits come back soon: with the key's next call, or by
//!   [`sweep_forever`] when there is none.
//! - Its size follows the key's demand in the last moments and shrinks with what remains, down to nothing: the last
//!   hits of a quota are asked for one call at a time, exactly.
//! - A request with several counters takes from the leases that it finds and asks the store for the rest; when the
//!   rest is denied, the leases get their hits back.

mod demand;
mod held;
mod plan;
mod sweep;

use std::sync::Arc;

use async_trait::async_trait;
use smallvec::SmallVec;

use crate::model::{Clock, Transaction};

use self::held::Leases;
use self::plan::Plan;
use super::{Outcomes, Store, StoreError};

pub use self::sweep::sweep_forever;

/// Longest life of a lease, in microseconds.
pub const MAX_LIFE_US: u64 = crate::model::time::SECOND_US;

/// The layer.
pub struct Lease<S> {
    inner: S,
    leases: Leases,
    clock: Arc<dyn Clock>,
}

impl<S: Store> Lease<S> {
    /// Leases on up to `max_keys` keys over `inner`.
    pub fn new(inner: S, max_keys: usize, clock: Arc<dyn Clock>) -> Self {
        Self {
            inner,
            leases: Leases::new(max_keys),
            clock,
        }
    }

    /// Keys that are known here at the moment.
    #[must_use]
    pub fn len(&self) -> usize {
        self.leases.len()
    }

    /// Whether no key is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Hits that this process holds ahead at the moment, or still has to give back.
    #[must_use]
    pub fn reserved(&self) -> u64 {
        self.leases.reserved()
    }

    /// Gives back what has ended unused, on all keys that nobody asks for any more.
    ///
    /// # Errors
    /// When the store did not take it; the hits then stay counted until their slice ends.
    pub async fn sweep(&self) -> Result<(), StoreError> {
        for transaction in self.leases.expired(self.clock.now_us()) {
            self.inner.check(&transaction).await?;
        }
        Ok(())
    }
}

#[async_trait]
impl<S: Store> Store for Lease<S> {
    async fn check(&self, transaction: &Transaction) -> Result<Outcomes, StoreError> {
        if transaction.exact {
            return self.inner.check(transaction).await;
        }
        let sent = self.clock.now_us();
        let mut plan = Plan::new(&self.leases, transaction, sent);
        if let Some(outcomes) = plan.all_local() {
            return Ok(outcomes);
        }
        let calls: SmallVec<[Transaction; 3]> = plan.calls();
        // A plan that is dropped (an error, a caller that left) gives back what it had reserved.
        let answers = match calls.as_slice() {
            [only] => vec![self.inner.check(only).await?],
            several => self.inner.check_many(several).await?,
        };
        plan.finish(answers, self.clock.now_us())
    }
}
