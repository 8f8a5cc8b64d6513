//! Redis through fred.
//!
//! A call is one `EVALSHA` for all checks of a transaction ([`script`]), pipelined on one of a few connections
//! (`link`). It decides by Redis' own clock and ends within the store's timeout or the caller's deadline, whichever
//! comes first; while there is no connection it fails at once. In a cluster, where a call cannot span slots, a
//! transaction over several is decided in two steps ([`super::groups`]).

mod call;
mod client;
mod cluster;
mod link;
pub mod script;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use fred::util::redis_keyslot;
use smallvec::SmallVec;
use tokio_util::sync::{CancellationToken, DropGuard};

use self::call::{Budget, Mode};
use self::cluster::Cluster;
use self::link::Links;
pub use self::link::{RedisEvent, RedisObserver};
use super::{Outcomes, Store, StoreError, groups};
use crate::config::settings::{RedisSettings, Topology};
use crate::model::{Check, Clock, Transaction};
use crate::tls::TlsError;

/// Counters in Redis, shared by all replicas.
pub struct RedisStore {
    servers: Arc<Servers>,
    /// Virtual time, for tests.
    clock: Option<Arc<dyn Clock>>,
    /// Ends the supervisors, and with them the connections.
    _stop: DropGuard,
}

enum Servers {
    One { links: Links, timeout: Duration },
    Cluster(Arc<Cluster>),
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
        let shared = settings.clone();
        let servers = match &settings.topology {
            Topology::Cluster(seeds) => {
                let shared = Arc::new(shared);
                Servers::Cluster(Cluster::spawn(&shared, seeds, timeout, observer, stop.clone()))
            }
            Topology::Single(_) | Topology::Unix(_) | Topology::Sentinel { .. } => Servers::One {
                links: Links::spawn(shared, timeout, observer, &stop),
                timeout,
            },
        };
        Ok(Self {
            servers: Arc::new(servers),
            clock,
            _stop: stop.drop_guard(),
        })
    }

    /// Connections that are up, and how many there should be.
    #[must_use]
    pub fn connections(&self) -> (usize, usize) {
        match &*self.servers {
            Servers::One { links, .. } => (links.up(), links.len()),
            Servers::Cluster(cluster) => cluster.connections(),
        }
    }

    fn now_us(&self) -> u64 {
        self.clock.as_ref().map_or(0, |clock| clock.now_us())
    }

    /// Whether these checks cannot go in one call.
    fn spans_slots<'a>(&self, mut checks: impl Iterator<Item = &'a Check>) -> bool {
        if matches!(*self.servers, Servers::One { .. }) {
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

impl Servers {
    /// Decides transactions that may stand in one call.
    async fn decide(&self, transactions: &[&Transaction], now_us: u64) -> Result<Vec<Outcomes>, StoreError> {
        match self {
            Self::One { links, timeout } => {
                let budget = Budget::new(*timeout, transactions)?;
                let decided = call::decide(links.next()?, transactions, &budget, now_us, Mode::Plain).await;
                decided.map_err(StoreError::from)
            }
            Self::Cluster(cluster) => {
                let first = transactions.iter().flat_map(|transaction| &transaction.checks).next();
                let slot = first.map_or(0, |check| redis_keyslot(check.key.as_str().as_bytes()));
                cluster.decide(slot, transactions, now_us).await
            }
        }
    }

    async fn decide_one(&self, transaction: &Transaction, now_us: u64) -> Result<Outcomes, StoreError> {
        let mut all = self.decide(&[transaction], now_us).await?;
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
            return self.servers.decide_one(transaction, self.now_us()).await;
        }
        let (servers, now_us) = (self.servers.clone(), self.now_us());
        let one_slot = move |_, part: Transaction| {
            let servers = servers.clone();
            async move { servers.decide_one(&part, now_us).await }
        };
        groups::check(transaction, slot, one_slot).await
    }

    async fn check_many(&self, transactions: &[Transaction]) -> Result<Vec<Outcomes>, StoreError> {
        if transactions.iter().all(|transaction| transaction.checks.is_empty()) {
            return Ok(vec![Outcomes::new(); transactions.len()]);
        }
        if !self.spans_slots(transactions.iter().flat_map(|transaction| &transaction.checks)) {
            let all: SmallVec<[&Transaction; 8]> = transactions.iter().collect();
            return self.servers.decide(&all, self.now_us()).await;
        }
        let mut all = Vec::with_capacity(transactions.len());
        for transaction in transactions {
            all.push(self.check(transaction).await?);
        }
        Ok(all)
    }
}
