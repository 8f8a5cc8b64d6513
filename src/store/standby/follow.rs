//! The layer that keeps [`Standby`] in step with the shared store under it, and the shared store with it.

use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use futures::future::{join, join_all};

use super::Standby;
use crate::model::{Check, Transaction};
use crate::store::{Outcomes, Refusal, Store, StoreError};

/// Debts that are on their way at the same time.
const AT_ONCE: usize = 64;
/// Once this replica has told what it owes, others may still be about to: their probes find the store back at other
/// moments (see `breaker`). For so long nobody's decisions are asked of it, so that none is made without their debts.
const OTHERS: Duration = Duration::from_millis(200);
/// Between two looks for debts on counters that nobody asks for any more.
const EVERY: Duration = Duration::from_millis(250);

/// The layer. It stands under the circuit breaker, which settles before it lets requests through again.
pub struct Follow<S> {
    inner: S,
    standby: Arc<Standby>,
    /// Which checks the store under it decides.
    serves: fn(&Check) -> bool,
}

impl<S: Store> Follow<S> {
    /// A layer over `inner`, which decides the checks that `serves` picks.
    pub const fn new(inner: S, standby: Arc<Standby>, serves: fn(&Check) -> bool) -> Self {
        Self { inner, standby, serves }
    }

    /// Tells all that is owed.
    async fn tell(&self) -> Result<(), StoreError> {
        loop {
            let owed = self.standby.owed.take_any(AT_ONCE, self.serves);
            if owed.is_empty() {
                return Ok(());
            }
            self.tell_all(self.standby.due(owed.into_iter()), None).await?;
        }
    }

    /// Tells these debts, all at the same time.
    async fn tell_all(&self, owed: Vec<Check>, deadline: Option<Instant>) -> Result<(), StoreError> {
        let calls = owed.into_iter().map(|check| self.tell_one(check, deadline));
        join_all(calls).await.into_iter().collect()
    }

    async fn tell_one(&self, owed: Check, deadline: Option<Instant>) -> Result<(), StoreError> {
        let call = Transaction {
            checks: [owed.clone()].into_iter().collect(),
            deadline,
            ..Transaction::default()
        };
        let sending = Sending {
            standby: &self.standby,
            owed: Some(owed),
        };
        match self.inner.check(&call).await {
            Ok(_) => sending.arrived(),
            Err(StoreError::Refused {
                kind: Refusal::WrongType,
                ..
            }) => {
                // Somebody else's key: it never decides anything for us.
                sending.arrived();
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Asks the store, and tells it what is owed on the same counters before; in the same turn, so that both leave
    /// together.
    async fn with_owed<T>(
        &self,
        owed: Vec<Check>,
        deadline: Option<Instant>,
        ask: impl Future<Output = Result<T, StoreError>> + Send,
    ) -> Result<T, StoreError> {
        if owed.is_empty() {
            return ask.await;
        }
        let (told, answer) = join(self.tell_all(owed, deadline), ask).await;
        // An answer that was given without knowing of the debt may let too many pass.
        told.and(answer)
    }
}

#[async_trait]
impl<S: Store> Store for Follow<S> {
    async fn check(&self, transaction: &Transaction) -> Result<Outcomes, StoreError> {
        let owed = self.standby.take_owed(transaction.checks.iter());
        let ask = self.inner.check(transaction);
        let outcomes = self.with_owed(owed, transaction.deadline, ask).await?;
        self.standby.follow(transaction, &outcomes);
        Ok(outcomes)
    }

    async fn check_many(&self, transactions: &[Transaction]) -> Result<Vec<Outcomes>, StoreError> {
        let checks = transactions.iter().flat_map(|transaction| &transaction.checks);
        let owed = self.standby.take_owed(checks);
        let deadline = transactions.iter().filter_map(|transaction| transaction.deadline).min();
        let ask = self.inner.check_many(transactions);
        let answers = self.with_owed(owed, deadline, ask).await?;
        for (transaction, outcomes) in transactions.iter().zip(&answers) {
            self.standby.follow(transaction, outcomes);
        }
        Ok(answers)
    }

    async fn settle(&self) -> Result<(), StoreError> {
        if self.standby.owed.is_empty() {
            return Ok(());
        }
        self.tell().await?;
        tokio::time::sleep(OTHERS).await;
        self.tell().await
    }
}

/// A debt on its way: noted again unless it arrives, also when the call is dropped.
struct Sending<'s> {
    standby: &'s Standby,
    owed: Option<Check>,
}

impl Sending<'_> {
    fn arrived(mut self) {
        self.owed = None;
    }
}

impl Drop for Sending<'_> {
    fn drop(&mut self) {
        if let Some(owed) = &self.owed {
            self.standby.put_back(owed);
        }
    }
}

/// Tells what is owed on counters that nobody asks for any more, until the layer is gone. The composition root spawns
/// it. `layer` stands under a circuit breaker that is open when `is_away` says so: then it is not asked.
pub async fn settle_forever<S: Store>(layer: Weak<Follow<S>>, is_away: impl Fn() -> bool + Send) {
    let mut ticks = tokio::time::interval(EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let Some(layer) = layer.upgrade() else {
            return;
        };
        if is_away() || layer.standby.owed.is_empty() {
            continue;
        }
        if let Err(error) = layer.tell().await {
            tracing::debug!(%error, "what was admitted meanwhile could not be told yet");
        }
    }
}
