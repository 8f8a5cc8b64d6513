//! Redis through fred.
//!
//! A call is one `EVALSHA` for all checks of a transaction ([`script`]), pipelined on one of a few connections
//! (`link`). It decides by Redis' own clock and ends within the store's timeout or the caller's deadline, whichever
//! comes first; while there is no connection it fails at once. In a cluster, where a call cannot span slots, a
//! transaction over several is decided in two steps ([`super::groups`]).

mod call;
mod client;
mod link;
pub mod script;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use fred::util::redis_keyslot;
use smallvec::SmallVec;
use tokio_util::sync::{CancellationToken, DropGuard};

use self::link::Link;
pub use self::link::{RedisEvent, RedisObserver};
use super::{Outcomes, Store, StoreError, groups};
use crate::config::settings::{RedisSettings, Topology};
use crate::model::{Check, Clock, Transaction};
use crate::tls::TlsError;

/// Counters in Redis, shared by all replicas.
pub struct RedisStore {
    inner: Arc<Inner>,
    clustered: bool,
    /// Ends the supervisors, and with them the connections.
    _stop: DropGuard,
}

struct Inner {
    links: Vec<Arc<Link>>,
    next: AtomicUsize,
    timeout: Duration,
    /// Virtual time, for tests.
    clock: Option<Arc<dyn Clock>>,
}

impl RedisStore {
    /// Starts to connect and returns at once, whether Redis is there or not. `timeout` bounds every call; `observer`
    /// is told what becomes of the connections. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// [`TlsError`] when the certificates cannot be used: no waiting would mend that.
    pub fn connect(settings: &RedisSettings, timeout: Duration, observer: RedisObserver) -> Result<Self, TlsError> {
        Self::with_clock(settings, timeout, observer, None)
    }

    /// The same, deciding by a clock of the caller's instead of Redis' own: for tests and simulations, since replicas
    /// with clocks of their own would not agree.
    ///
    /// # Errors
    /// As [`Self::connect`].
    pub fn with_clock(
        settings: &RedisSettings,
        timeout: Duration,
        observer: RedisObserver,
        clock: Option<Arc<dyn Clock>>,
    ) -> Result<Self, TlsError> {
        // Reads the certificates once, to fail now rather than in a background task.
        client::new(settings, timeout)?;
        let stop = CancellationToken::new();
        let shared = Arc::new(settings.clone());
        let link = |_| Link::spawn(shared.clone(), timeout, observer.clone(), stop.clone());
        Ok(Self {
            inner: Arc::new(Inner {
                links: (0..settings.pool_size.max(1)).map(link).collect(),
                next: AtomicUsize::new(0),
                timeout,
                clock,
            }),
            clustered: matches!(settings.topology, Topology::Cluster(_)),
            _stop: stop.drop_guard(),
        })
    }

    /// Connections that are up, and how many there should be.
    #[must_use]
    pub fn connections(&self) -> (usize, usize) {
        let links = &self.inner.links;
        (links.iter().filter(|link| link.is_up()).count(), links.len())
    }

    /// Whether these checks cannot go in one call.
    fn spans_slots<'a>(&self, mut checks: impl Iterator<Item = &'a Check>) -> bool {
        if !self.clustered {
            return false;
        }
        let first = checks.next().map(slot);
        checks.any(|check| Some(slot(check)) != first)
    }
}

/// A check's hash slot in a cluster.
fn slot(check: &Check) -> u64 {
    u64::from(redis_keyslot(check.key.as_str().as_bytes()))
}

impl Inner {
    /// The next link that is up; when none is, any, to say why.
    fn link(&self) -> Result<&Link, StoreError> {
        let first = self.next.fetch_add(1, Ordering::Relaxed);
        let in_turn = |n: usize| self.links.get(first.wrapping_add(n) % self.links.len().max(1));
        (0..self.links.len())
            .filter_map(in_turn)
            .find(|link| link.is_up())
            .or_else(|| in_turn(0))
            .map(|link| &**link)
            .ok_or_else(|| StoreError::Unavailable("no connections".to_owned()))
    }

    async fn decide(&self, transactions: &[&Transaction]) -> Result<Vec<Outcomes>, StoreError> {
        let now_us = self.clock.as_ref().map_or(0, |clock| clock.now_us());
        call::decide(self.link()?, transactions, self.timeout, now_us).await
    }

    async fn decide_one(&self, transaction: &Transaction) -> Result<Outcomes, StoreError> {
        let mut all = self.decide(&[transaction]).await?;
        all.pop()
            .ok_or_else(|| StoreError::Protocol("an answer is missing".to_owned()))
    }
}

#[async_trait]
impl Store for RedisStore {
    async fn check(&self, transaction: &Transaction) -> Result<Outcomes, StoreError> {
        if transaction.checks.is_empty() {
            return Ok(Outcomes::new());
        }
        if !self.spans_slots(transaction.checks.iter()) {
            return self.inner.decide_one(transaction).await;
        }
        let inner = self.inner.clone();
        let one_slot = move |_, part: Transaction| {
            let inner = inner.clone();
            async move { inner.decide_one(&part).await }
        };
        groups::check(transaction, slot, one_slot).await
    }

    async fn check_many(&self, transactions: &[Transaction]) -> Result<Vec<Outcomes>, StoreError> {
        if transactions.iter().all(|transaction| transaction.checks.is_empty()) {
            return Ok(vec![Outcomes::new(); transactions.len()]);
        }
        if !self.spans_slots(transactions.iter().flat_map(|transaction| &transaction.checks)) {
            let all: SmallVec<[&Transaction; 8]> = transactions.iter().collect();
            return self.inner.decide(&all).await;
        }
        let mut all = Vec::with_capacity(transactions.len());
        for transaction in transactions {
            all.push(self.check(transaction).await?);
        }
        Ok(all)
    }
}
