//! Redis through fred.
//!
//! A call is one `EVALSHA` for all checks of a transaction ([`script`]) and for all transactions of the same moment
//! (`batch`), pipelined on a connection of the caller's thread or on one of a few for everybody (`server`, `link`). It decides by Redis' own clock and ends within the store's timeout or the caller's deadline, whichever
//! comes first; while there is no connection it fails at once. In a cluster, where a call cannot span slots, a
//! transaction over several is decided in two steps ([`super::groups`]).

mod batch;
mod call;
mod client;
mod cluster;
mod events;
mod link;
pub mod script;
mod sentinel;
mod server;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use fred::util::redis_keyslot;
use smallvec::{SmallVec, smallvec};
use tokio_util::sync::{CancellationToken, DropGuard};

use self::cluster::Cluster;
pub use self::events::{RedisChange, RedisEvent, RedisObserver};
use self::server::Server;
use super::{Outcomes, Store, StoreError, groups};
use crate::config::settings::{RedisSettings, Topology};
use crate::model::{Check, Clock, Transaction};
use crate::tls::TlsError;

/// Counters in Redis, shared by all replicas.
pub struct RedisStore {
    servers: Arc<Servers>,
    /// Ends the supervisors, and with them the connections.
    _stop: DropGuard,
}

enum Servers {
    One(Box<Server>),
    Cluster {
        cluster: Arc<Cluster>,
        /// Virtual time, for tests.
        clock: Option<Arc<dyn Clock>>,
    },
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
                let cluster = Cluster::spawn(&shared, seeds, timeout, observer, stop.clone());
                Servers::Cluster { cluster, clock }
            }
            Topology::Single(_) | Topology::Unix(_) | Topology::Sentinel { .. } => {
                Servers::One(Box::new(Server::spawn(shared, timeout, observer, clock, stop.clone())))
            }
        };
        Ok(Self {
            servers: Arc::new(servers),
            _stop: stop.drop_guard(),
        })
    }

    /// Connections that are up, and how many there should be.
    #[must_use]
    pub fn connections(&self) -> (usize, usize) {
        match &*self.servers {
            Servers::One(server) => server.connections(),
            Servers::Cluster { cluster, .. } => cluster.connections(),
        }
    }

    /// Whether these checks cannot go in one call.
    fn spans_slots<'a>(&self, mut checks: impl Iterator<Item = &'a Check>) -> bool {
        if matches!(*self.servers, Servers::One(_)) {
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
    async fn decide(&self, transactions: SmallVec<[Transaction; 1]>) -> Result<Vec<Outcomes>, StoreError> {
        match self {
            Self::One(server) => server.decide(transactions).await,
            Self::Cluster { cluster, clock } => {
                let first = transactions.iter().flat_map(|transaction| &transaction.checks).next();
                let slot = first.map_or(0, |check| redis_keyslot(check.key.as_str().as_bytes()));
                let now_us = clock.as_ref().map_or(0, |clock| clock.now_us());
                cluster.decide(slot, transactions, now_us).await
            }
        }
    }

    async fn decide_one(&self, transaction: Transaction) -> Result<Outcomes, StoreError> {
        let mut all = self.decide(smallvec![transaction]).await?;
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
            return self.servers.decide_one(transaction.clone()).await;
        }
        let servers = self.servers.clone();
        let one_slot = move |_, part: Transaction| {
            let servers = servers.clone();
            async move { servers.decide_one(part).await }
        };
        groups::check(transaction, slot, one_slot).await
    }

    async fn check_many(&self, transactions: &[Transaction]) -> Result<Vec<Outcomes>, StoreError> {
        if transactions.iter().all(|transaction| transaction.checks.is_empty()) {
            return Ok(vec![Outcomes::new(); transactions.len()]);
        }
        if !self.spans_slots(transactions.iter().flat_map(|transaction| &transaction.checks)) {
            return self.servers.decide(transactions.into()).await;
        }
        let mut all = Vec::with_capacity(transactions.len());
        for transaction in transactions {
            all.push(self.check(transaction).await?);
        }
        Ok(all)
    }
}
