//! A layer that counts and times the calls that really leave for a store.

use std::time::Instant;

use async_trait::async_trait;
use prometheus::{Histogram, IntCounter, IntCounterVec};

use crate::model::Transaction;
use crate::store::{Outcomes, Store, StoreError};

use super::Metrics;

/// The layer.
pub struct StoreMeter<S> {
    inner: S,
    name: &'static str,
    calls: IntCounter,
    duration: Histogram,
    errors: IntCounterVec,
}

impl<S: Store> StoreMeter<S> {
    /// Counts calls of `inner` under the label `name`.
    pub fn new(inner: S, name: &'static str, metrics: &Metrics) -> Self {
        Self {
            inner,
            name,
            calls: metrics.store_calls.with_label_values(&[name]),
            duration: metrics.store_duration.with_label_values(&[name]),
            errors: metrics.store_errors.clone(),
        }
    }

    fn count<T>(&self, start: Instant, result: &Result<T, StoreError>) {
        self.calls.inc();
        self.duration.observe(start.elapsed().as_secs_f64());
        if let Err(error) = result {
            self.errors.with_label_values(&[self.name, error.kind()]).inc();
        }
    }
}

#[async_trait]
impl<S: Store> Store for StoreMeter<S> {
    async fn check(&self, transaction: &Transaction) -> Result<Outcomes, StoreError> {
        let start = Instant::now();
        let result = self.inner.check(transaction).await;
        self.count(start, &result);
        result
    }

    async fn check_many(&self, transactions: &[Transaction]) -> Result<Vec<Outcomes>, StoreError> {
        let start = Instant::now();
        let result = self.inner.check_many(transactions).await;
        self.count(start, &result);
        result
    }
}
