//! A layer that stops asking a server that does not answer: after a few failures in a row every call fails at once,
//! so that the failure mode answers without waiting, and a probe of our own (no user's request) finds out when the
//! server is back.
//!
//! Over a cluster it stops nothing: there each node's links fail at once by themselves while it is away, and the
//! others must not be taken along. It only tells that something fails, until nothing has failed for a second.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use tokio::sync::watch;
use tokio::time::timeout;

use crate::model::Transaction;

use super::{Outcomes, Store, StoreError};

/// Failures in a row that open the circuit. A lost connection opens it at once.
const FAILURES: u32 = 5;
/// Time between two probes.
const PROBE_EVERY: Duration = Duration::from_millis(100);

/// While the circuit is closed: how often it is looked whether the server is there, so that its loss shows also when
/// nobody asks.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Without a failure for so long, a cluster counts as whole.
const QUIET: Duration = Duration::from_secs(1);

/// What is behind the layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Covers {
    /// One server: when it fails, no call is of use.
    OneServer,
    /// Several servers, each of which fails by itself.
    Cluster,
}

/// The layer.
pub struct Breaker<S> {
    inner: S,
    covers: Covers,
    start: Instant,
    /// Milliseconds since `start`.
    last_failure_ms: AtomicU64,
    open: AtomicBool,
    failures: AtomicU32,
    state: watch::Sender<Option<StoreError>>,
}

impl<S: Store> Breaker<S> {
    /// A closed circuit over `inner`.
    pub fn new(inner: S, covers: Covers) -> Arc<Self> {
        let state = watch::Sender::new(None);
        Arc::new(Self {
            inner,
            covers,
            start: Instant::now(),
            last_failure_ms: AtomicU64::new(0),
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
        if !self.open.load(Relaxed) || self.covers == Covers::Cluster {
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
                self.last_failure_ms.store(self.elapsed_ms(), Relaxed);
                let failures = self.failures.fetch_add(1, Relaxed) + 1;
                if failures >= FAILURES || error.is_away() {
                    self.trip(error);
                }
            }
        }
    }

    fn elapsed_ms(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn is_quiet(&self) -> bool {
        let since = self.elapsed_ms().saturating_sub(self.last_failure_ms.load(Relaxed));
        Duration::from_millis(since) >= QUIET
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

/// Probes while the circuit is open, and now and then while it is closed, until the layer is gone. `probe` must write, so
/// that a server that only reads (a demoted master, a full one) does not pass for a healthy one. The composition root
/// spawns it.
pub async fn probe_forever<S: Store>(breaker: Weak<Breaker<S>>, probe: Transaction) {
    let Some(mut state) = breaker.upgrade().map(|breaker| breaker.state()) else {
        return;
    };
    loop {
        let opened = timeout(LOOK_EVERY, state.wait_for(Option::is_some))
            .await
            .map(|state| state.map(drop));
        match opened {
            Ok(Err(_)) => return,
            Ok(Ok(())) => {}
            Err(_) => {
                let Some(breaker) = breaker.upgrade() else {
                    return;
                };
                // A failure opens the circuit, as that of a request does.
                let _ = breaker.check(&probe).await;
                continue;
            }
        }
        tokio::time::sleep(PROBE_EVERY).await;
        let Some(breaker) = breaker.upgrade() else {
            return;
        };
        let is_back = match breaker.covers {
            Covers::OneServer => breaker.inner.check(&probe).await.is_ok(),
            // A probe would ask one of the servers.
            Covers::Cluster => breaker.is_quiet(),
        };
        if is_back && breaker.inner.settle().await.is_ok() {
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Two servers: the one that is asked for with `exact` is dead.
    struct HalfDead;

    #[async_trait]
    impl Store for HalfDead {
        async fn check(&self, transaction: &Transaction) -> Result<Outcomes, StoreError> {
            if transaction.exact {
                return Err(StoreError::Unavailable("dead".to_owned()));
            }
            Ok(Outcomes::new())
        }
    }

    async fn the_living_after_a_failure(covers: Covers) -> Result<Outcomes, StoreError> {
        let breaker = Breaker::new(HalfDead, covers);
        let dead = Transaction {
            exact: true,
            ..Transaction::default()
        };
        assert!(breaker.check(&dead).await.is_err());
        assert!(breaker.state().borrow().is_some(), "it is told in either case");
        breaker.check(&Transaction::default()).await
    }

    #[tokio::test(start_paused = true)]
    async fn the_loss_of_a_server_shows_when_nobody_asks() {
        let breaker = Breaker::new(HalfDead, Covers::OneServer);
        let dead = Transaction {
            exact: true,
            ..Transaction::default()
        };
        tokio::spawn(probe_forever(Arc::downgrade(&breaker), dead));
        let mut state = breaker.state();
        let told = timeout(2 * LOOK_EVERY, state.wait_for(Option::is_some)).await;
        assert!(told.is_ok_and(|state| state.is_ok()));
    }

    #[tokio::test]
    async fn a_dead_node_of_a_cluster_does_not_take_the_others_along() {
        assert!(the_living_after_a_failure(Covers::OneServer).await.is_err());
        assert!(the_living_after_a_failure(Covers::Cluster).await.is_ok());
    }
}
