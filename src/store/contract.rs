//! The contract of every store.

use async_trait::async_trait;
use smallvec::SmallVec;

use super::correction::Correction;
use super::error::StoreError;
use super::reset::{Cursor, NamePage, Named, Reset};
use crate::model::{CounterKey, Hits, Limit, Outcome, Transaction};

/// One outcome for each check of the transaction, in order.
pub type Outcomes = SmallVec<[Outcome; 2]>;

/// The contract of every store.
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
    /// [`StoreError`] when no decision could be made; the counters may have counted the hits or not. If a late answer shows that
    /// they did, the store gives the hits back.
    async fn check(&self, transaction: &Transaction) -> Result<Outcomes, StoreError>;

    /// The same for an operator's question, which counts nothing: it may wait for longer than a decision.
    ///
    /// # Errors
    /// As [`Store::check`].
    async fn look(&self, transaction: &Transaction) -> Result<Outcomes, StoreError> {
        self.check(transaction).await
    }

    /// Decides several transactions in order, in as few round trips as the store can; the answers are the same as of single
    /// calls. Where their counters are on several servers, each transaction is a round trip of its own.
    ///
    /// # Errors
    /// [`StoreError`] when any could not be decided; any of them may have been counted then.
    async fn check_many(&self, transactions: &[Transaction]) -> Result<Vec<Outcomes>, StoreError> {
        let mut all = Vec::with_capacity(transactions.len());
        for transaction in transactions {
            all.push(self.check(transaction).await?);
        }
        Ok(all)
    }

    /// Decides checks of one counter on the caller's thread, where nothing has to be waited for; `None` where it has to be. For
    /// callers with so many transactions that futures would cost more than the decisions.
    fn check_at_once(&self, _key: &CounterKey, _transaction: &Transaction<Hits, ()>) -> Option<Outcomes> {
        None
    }

    /// Changes a counter as soon as the store can. Never waits and never fails; the number of pending changes is bounded.
    fn correct(&self, correction: Correction);

    /// Resets counters to their unused state, in order, and stops after a failure. All processes that share the store forget
    /// what they keep of these counters within a second.
    async fn reset(&self, counters: &[Named]) -> Reset;

    /// A page of the names of counters that begin with `prefix` and are kept where this limit's are; `None` where the
    /// store keeps no names.
    ///
    /// # Errors
    /// [`StoreError`] when the store does not answer.
    async fn names(&self, limit: &Limit, prefix: &str, from: Cursor) -> Result<Option<NamePage>, StoreError>;
}

#[async_trait]
impl<S: Store + ?Sized> Store for std::sync::Arc<S> {
    async fn check(&self, transaction: &Transaction) -> Result<Outcomes, StoreError> {
        (**self).check(transaction).await
    }

    async fn look(&self, transaction: &Transaction) -> Result<Outcomes, StoreError> {
        (**self).look(transaction).await
    }

    async fn check_many(&self, transactions: &[Transaction]) -> Result<Vec<Outcomes>, StoreError> {
        (**self).check_many(transactions).await
    }

    fn check_at_once(&self, key: &CounterKey, transaction: &Transaction<Hits, ()>) -> Option<Outcomes> {
        (**self).check_at_once(key, transaction)
    }

    fn correct(&self, correction: Correction) {
        (**self).correct(correction);
    }

    async fn reset(&self, counters: &[Named]) -> Reset {
        (**self).reset(counters).await
    }

    async fn names(&self, limit: &Limit, prefix: &str, from: Cursor) -> Result<Option<NamePage>, StoreError> {
        (**self).names(limit, prefix, from).await
    }
}
