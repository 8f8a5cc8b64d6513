//! Where counters live, behind one contract.

pub mod breaker;
mod change;
pub mod coalesce;
pub mod deny_cache;
pub mod error;
pub mod groups;
mod late;
pub mod lease;
pub mod memory;
pub mod per_second;
pub mod redis;
pub mod standby;
mod turns;

use async_trait::async_trait;
use smallvec::SmallVec;

pub use self::error::{Refusal, StoreError};
pub use self::memory::MemoryStore;
pub use self::redis::RedisStore;
use crate::algorithms::transaction::Answers;
use crate::model::{Grant, Outcome, Transaction};

/// One outcome for each check of the transaction, in order.
pub type Outcomes = SmallVec<[Outcome; 2]>;

/// Answers as the layers between the engine and a store pass them on: with the grant in the outcome.
fn outcomes(answers: Answers) -> Outcomes {
    let outcome = |answer: crate::algorithms::op::Answer| Outcome {
        grant: answer.grant.map(|grant| Grant {
            hits: grant.hits,
            slice: answer.outcome.slice,
            left_us: grant.left_us,
        }),
        ..answer.outcome
    };
    answers.into_iter().map(outcome).collect()
}

/// The contract of every store and of every layer over one.
///
/// - A transaction is atomic: [`Transaction::passes`] decides, and then each *allowed* check's hits are counted, or
///   nothing at all is (except by a rule that counts denied hits).
/// - `Outcome::remaining` of an allowed check in a denied transaction is what is left as things stand.
/// - The future may be dropped at any point; the hits are then counted once or not at all.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// Decides and counts one transaction.
    ///
    /// # Errors
    /// [`StoreError`] when no decision could be made; nothing is known of the counters then. A store that was only slow
    /// gives back what it counted, as soon as that is known.
    async fn check(&self, transaction: &Transaction) -> Result<Outcomes, StoreError>;

    /// Decides several transactions one after the other, in order, in as few trips as the store can; the answers are
    /// the same as if they had come one by one. All their keys are of one counter, or of one server at least.
    ///
    /// # Errors
    /// [`StoreError`] when any could not be decided; nothing is known of any then.
    async fn check_many(&self, transactions: &[Transaction]) -> Result<Vec<Outcomes>, StoreError> {
        let mut all = Vec::with_capacity(transactions.len());
        for transaction in transactions {
            all.push(self.check(transaction).await?);
        }
        Ok(all)
    }

    /// Called once a store that was away is back, before it is asked for decisions again: tells it what it must know
    /// of the time between.
    ///
    /// # Errors
    /// [`StoreError`] when it could not be told: then it is not back yet.
    async fn settle(&self) -> Result<(), StoreError> {
        Ok(())
    }
}

#[async_trait]
impl<S: Store + ?Sized> Store for std::sync::Arc<S> {
    async fn check(&self, transaction: &Transaction) -> Result<Outcomes, StoreError> {
        (**self).check(transaction).await
    }

    async fn check_many(&self, transactions: &[Transaction]) -> Result<Vec<Outcomes>, StoreError> {
        (**self).check_many(transactions).await
    }

    async fn settle(&self) -> Result<(), StoreError> {
        (**self).settle().await
    }
}
