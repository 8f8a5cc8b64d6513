//! The layer that keeps [`Standby`] in step with the shared store under it, and the shared store with it.

use std::sync::{Arc, Weak};
use std::time::Duration;

use async_trait::async_trait;

use super::Standby;
use crate::model::{Check, Transaction};
use crate::store::{Outcomes, Store, StoreError};

/// Counters whose debts travel in one call.
const IN_A_CALL: usize = 64;
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
        while let Some(owed) = self.standby.take_any_owed(IN_A_CALL, self.serves) {
            let owed = Sending::new(&self.standby, owed);
            self.inner.check(&owed.transaction).await?;
            owed.told();
        }
        Ok(())
    }

    async fn with_owed(&self, owed: Transaction, transactions: &[Transaction]) -> Result<Vec<Outcomes>, StoreError> {
        let owed = Sending::new(&self.standby, owed);
        let mut all = Vec::with_capacity(transactions.len() + 1);
        all.push(owed.transaction.clone());
        all.extend_from_slice(transactions);
        let mut answers = self.inner.check_many(&all).await?;
        owed.told();
        if answers.len() != all.len() {
            return Err(StoreError::Protocol("an answer is missing".to_owned()));
        }
        answers.remove(0);
        Ok(answers)
    }
}

#[async_trait]
impl<S: Store> Store for Follow<S> {
    async fn check(&self, transaction: &Transaction) -> Result<Outcomes, StoreError> {
        let outcomes = match self.standby.take_owed(transaction.checks.iter()) {
            None => self.inner.check(transaction).await?,
            Some(owed) => {
                let mut answers = self.with_owed(owed, std::slice::from_ref(transaction)).await?;
                answers.pop().unwrap_or_default()
            }
        };
        self.standby.follow(transaction, &outcomes);
        Ok(outcomes)
    }

    async fn check_many(&self, transactions: &[Transaction]) -> Result<Vec<Outcomes>, StoreError> {
        let checks = transactions.iter().flat_map(|transaction| &transaction.checks);
        let answers = match self.standby.take_owed(checks) {
            None => self.inner.check_many(transactions).await?,
            Some(owed) => self.with_owed(owed, transactions).await?,
        };
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

/// Debts on their way: put back unless they arrive, also when the call is dropped.
struct Sending<'s> {
    standby: &'s Standby,
    transaction: Transaction,
    told: bool,
}

impl<'s> Sending<'s> {
    const fn new(standby: &'s Standby, transaction: Transaction) -> Self {
        Self {
            standby,
            transaction,
            told: false,
        }
    }

    fn told(mut self) {
        self.told = true;
    }
}

impl Drop for Sending<'_> {
    fn drop(&mut self) {
        if !self.told {
            self.standby.put_back(&self.transaction);
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
