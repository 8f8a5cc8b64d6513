//! Two stores as one: limits with a window of one second live in a store of their own (`REDIS_PERSECOND`), because
//! they are asked most and lost with the least harm. A transaction over both is still all or nothing.

use std::sync::Arc;

use async_trait::async_trait;

use super::{Outcomes, Store, StoreError, groups};
use crate::model::time::SECOND_US;
use crate::model::{Check, Limit, Transaction};

/// Where most limits live, in [`groups`]' numbering.
const MAIN: u64 = 0;
/// Where those of one second live.
const SECONDS: u64 = 1;

/// Two stores as one.
pub struct PerSecond {
    main: Arc<dyn Store>,
    seconds: Arc<dyn Store>,
}

impl PerSecond {
    /// `seconds` for limits with a window of one second, `main` for all others.
    #[must_use]
    pub const fn new(main: Arc<dyn Store>, seconds: Arc<dyn Store>) -> Self {
        Self { main, seconds }
    }

    const fn at(&self, place: u64) -> &Arc<dyn Store> {
        if place == SECONDS { &self.seconds } else { &self.main }
    }
}

/// Whether a limit's counters are in the store for limits of one second.
#[must_use]
pub const fn is_per_second(limit: &Limit) -> bool {
    limit.window_us == SECOND_US
}

const fn place(check: &Check) -> u64 {
    if is_per_second(&check.limit) { SECONDS } else { MAIN }
}

/// The place of all these checks; `None` if they have more than one.
fn only_place<'c>(checks: impl IntoIterator<Item = &'c Check>) -> Option<u64> {
    let mut places = checks.into_iter().map(place);
    let first = places.next().unwrap_or(MAIN);
    places.all(|place| place == first).then_some(first)
}

#[async_trait]
impl Store for PerSecond {
    async fn check(&self, transaction: &Transaction) -> Result<Outcomes, StoreError> {
        if let Some(place) = only_place(&transaction.checks) {
            return self.at(place).check(transaction).await;
        }
        let stores = [Arc::clone(&self.main), Arc::clone(&self.seconds)];
        groups::check(transaction, place, move |place, part| {
            let [main, seconds] = stores.clone();
            async move { if place == SECONDS { seconds } else { main }.check(&part).await }
        })
        .await
    }

    async fn check_many(&self, transactions: &[Transaction]) -> Result<Vec<Outcomes>, StoreError> {
        if let Some(place) = only_place(transactions.iter().flat_map(|transaction| &transaction.checks)) {
            return self.at(place).check_many(transactions).await;
        }
        let mut all = Vec::with_capacity(transactions.len());
        for transaction in transactions {
            all.push(self.check(transaction).await?);
        }
        Ok(all)
    }
}
