//! A layer that stops asking a server that does not answer: after a few failures in a row every call fails at once,
//! so that the failure mode answers without waiting, and a probe of our own (no user's request) finds out when the
//! server is back.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, Weak};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::watch;

use crate::model::Transaction;

use super::{Outcomes, Store, StoreError};

/// Failures in a row that open the circuit. A lost connection opens it at once.
const FAILURES: u32 = 5;
/// Time between two probes.
const PROBE_EVERY: Duration = Duration::from_millis(100);

/// The layer.
pub struct Breaker<S> {
    inner: S,
    open: AtomicBool,
    failures: AtomicU32,
    state: watch::Sender<Option<StoreError>>,
}

impl<S: Store> Breaker<S> {
    /// A closed circuit over `inner`.
    pub fn new(inner: S) -> Arc<Self> {
        let state = watch::Sender::new(None);
        Arc::new(Self {
            inner,
            open: AtomicBool::new(false),
            failures: AtomicU32::new(0),
            state,
        })
    }

    /// Why the circuit is open; `None` while it is closed.
    #[must_use]
    pub fn state(&self) -> watch::Receiver<Option<StoreError>> {
        self.state.subscribe()
    }

    fn guard(&self) -> Result<(), StoreError> {
        if !self.open.load(Relaxed) {
            return Ok(());
        }
        let reason = self.state.borrow().as_ref().map(ToString::to_string);
        Err(StoreError::Unavailable(format!(
            "given up for now: {}",
            reason.unwrap_or_default()
        )))
    }

    fn learn<T>(&self, result: &Result<T, StoreError>) {
        match result {
            Ok(_) => {
                // Mostly zero already: do not write to a shared line for nothing.
                if self.failures.load(Relaxed) > 0 {
                    self.failures.store(0, Relaxed);
                }
            }
            Err(error) if !error.is_about_the_server() => {}
            Err(error) => {
                let failures = self.failures.fetch_add(1, Relaxed) + 1;
                if failures >= FAILURES || matches!(error, StoreError::Unavailable(_)) {
                    self.trip(error);
                }
            }
        }
    }

    fn trip(&self, error: &StoreError) {
        if !self.open.swap(true, Relaxed) {
            self.state.send_replace(Some(error.clone()));
        }
    }

    fn close(&self) {
        self.failures.store(0, Relaxed);
        self.open.store(false, Relaxed);
        self.state.send_replace(None);
    }
}

/// Probes while the circuit is open, until the layer is gone. `probe` must write, so that a server that only reads
/// (a demoted master, a full one) does not pass for a healthy one. The composition root spawns it.
pub async fn probe_forever<S: Store>(breaker: Weak<Breaker<S>>, probe: Transaction) {
    let Some(mut state) = breaker.upgrade().map(|breaker| breaker.state()) else {
        return;
    };
    loop {
        if state.wait_for(Option::is_some).await.is_err() {
            return;
        }
        tokio::time::sleep(PROBE_EVERY).await;
        let Some(breaker) = breaker.upgrade() else {
            return;
        };
        if breaker.inner.check(&probe).await.is_ok() {
            breaker.close();
        }
    }
}

#[async_trait]
impl<S: Store> Store for Breaker<S> {
    async fn check(&self, transaction: &Transaction) -> Result<Outcomes, StoreError> {
        self.guard()?;
        let result = self.inner.check(transaction).await;
        self.learn(&result);
        result
    }

    async fn check_many(&self, transactions: &[Transaction]) -> Result<Vec<Outcomes>, StoreError> {
        self.guard()?;
        let result = self.inner.check_many(transactions).await;
        self.learn(&result);
        result
    }
}
