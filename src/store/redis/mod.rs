//! Redis through fred: a [`Transport`].
//!
//! A call is one `EVALSHA` for all its transactions ([`script`]), pipelined on a connection of the caller's thread or on one
//! of a few for all others (`link`). It decides by Redis' own clock. While there is no connection it fails at once, as not
//! sent. In a cluster a shard is a hash slot, and the slots of one master are a lane, where its
//! scripts may use several slots.

mod budget;
mod call;
mod client;
mod cluster;
mod evaluate;
mod events;
mod hash;
mod link;
mod resets;
pub mod script;
mod sentinel;
mod source;

use std::sync::Arc;
use std::time::Duration;

use fred::prelude::Client;
use tokio_util::sync::{CancellationToken, DropGuard};

use self::budget::Budget;
use self::call::{Failure, Mode};
use self::client::Tls;
use self::cluster::Cluster;
pub use self::events::{RedisChange, RedisEvent, RedisObserver};
pub use self::hash::HashPage;
use self::link::Server;
use self::script::CallTime;
use super::StoreError;
use super::remote::transport::{BreakerScope, Delivery, Transport};
use super::reset::{Cursor, NamePage};
use crate::algorithms::op::Op;
use crate::config::settings::{RedisSettings, Topology};
use crate::model::{Clock, CounterKey, MonotonicClock, Transaction};
use crate::tls::TlsError;

/// Counters in Redis, shared by all replicas.
pub struct RedisTransport {
    servers: Servers,
    timeout: Duration,
    /// Virtual time, for tests.
    clock: Option<Arc<dyn Clock>>,
    /// Approximates Redis' own clock.
    own_clock: MonotonicClock,
    /// Ends the supervisors, and with them the connections.
    _stop: DropGuard,
}

enum Servers {
    One(Box<Server>),
    Cluster(Arc<Cluster>),
}

impl RedisTransport {
    /// Starts to connect and returns at once, whether Redis is reachable or not. A connection whose calls take longer than
    /// `timeout`, one after the other, counts as stalled; `observer` gets the events of the connections. Must be called inside a
    /// tokio runtime.
    ///
    /// # Errors
    /// [`TlsError`] when the certificates cannot be used.
    pub fn connect(settings: &RedisSettings, timeout: Duration, observer: RedisObserver) -> Result<Self, TlsError> {
        Self::with_clock(settings, timeout, observer, None)
    }

    /// [`connect`](Self::connect), but the scripts decide by the caller's clock instead of Redis' own: for tests and simulations
    /// only, since replicas with different clocks would not agree.
    ///
    /// # Errors
    /// As [`Self::connect`].
    pub fn with_clock(
        settings: &RedisSettings,
        timeout: Duration,
        observer: RedisObserver,
        clock: Option<Arc<dyn Clock>>,
    ) -> Result<Self, TlsError> {
        let tls = Tls::new(settings)?;
        let stop = CancellationToken::new();
        let servers = match &settings.topology {
            Topology::Cluster(seeds) => {
                let shared = Arc::new(settings.clone());
                Servers::Cluster(Cluster::spawn(&shared, seeds, timeout, observer, tls, stop.clone()))
            }
            Topology::Single(_) | Topology::Unix(_) | Topology::Sentinel { .. } => Servers::One(Box::new(
                Server::spawn(settings.clone(), timeout, observer, &tls, &stop),
            )),
        };
        Ok(Self {
            servers,
            timeout,
            clock,
            own_clock: MonotonicClock::new(),
            _stop: stop.drop_guard(),
        })
    }

    /// A client of the server that has this shard.
    fn client(&self, shard: u16) -> Result<Arc<Client>, StoreError> {
        match &self.servers {
            Servers::One(server) => server.links().next()?.client(),
            Servers::Cluster(cluster) => cluster.client(shard),
        }
    }

    /// Connections that are up, and how many there should be.
    #[must_use]
    pub fn connections(&self) -> (usize, usize) {
        match &self.servers {
            Servers::One(server) => server.connections(),
            Servers::Cluster(cluster) => cluster.connections(),
        }
    }

    /// Whether all connections are up.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        let (up, all) = self.connections();
        all > 0 && up == all
    }
}

impl Transport for RedisTransport {
    fn shard(&self, key: &CounterKey) -> u16 {
        match self.servers {
            Servers::One(_) => 0,
            Servers::Cluster(_) => cluster::slot_of(key),
        }
    }

    fn lane(&self, shard: u16) -> u16 {
        match &self.servers {
            Servers::One(_) => shard,
            Servers::Cluster(cluster) => cluster.lane(shard),
        }
    }

    fn scope(&self) -> BreakerScope {
        match self.servers {
            Servers::One(_) => BreakerScope::OneServer,
            Servers::Cluster(_) => BreakerScope::Cluster,
        }
    }

    async fn send(&self, shard: u16, calls: &[Transaction<Op>]) -> Delivery {
        let time = match &self.clock {
            Some(clock) => CallTime::of_virtual(clock.now_us()),
            None => CallTime {
                decides_us: 0,
                near_us: self.own_clock.now_us(),
            },
        };
        let budget = Budget::new(self.timeout);
        match &self.servers {
            Servers::Cluster(cluster) => cluster.send(shard, calls, &budget, time).await,
            Servers::One(server) => {
                let links = server.links();
                let link = match links.next() {
                    Ok(link) => link,
                    Err(error) => return Delivery::NotSent(error),
                };
                match call::decide(link, calls, &budget, time, Mode::Plain).await {
                    Ok(answers) => Delivery::Answered(Ok(answers)),
                    Err(failure) => failure.into(),
                }
            }
        }
    }

    async fn announce(&self, log: &CounterKey, counters: &[CounterKey]) -> Result<(), StoreError> {
        let client = self.client(self.shard(log))?;
        resets::announce(&client, log, counters).await
    }

    async fn resets(&self, log: &CounterKey, since: u64, most: usize) -> Result<Vec<(CounterKey, u64)>, StoreError> {
        let client = self.client(self.shard(log))?;
        resets::resets(&client, log, since, most).await
    }

    async fn scan(&self, prefix: &str, from: Cursor) -> Result<NamePage, StoreError> {
        let Servers::Cluster(cluster) = &self.servers else {
            return resets::scan(&*self.client(0)?, prefix, from).await;
        };
        let (client, nodes) = cluster.master(from.node)?;
        let mut page = resets::scan(&client, prefix, from).await?;
        let next = Cursor {
            node: from.node + 1,
            at: 0,
        };
        page.next = page.next.or_else(|| (next.node < nodes).then_some(next));
        Ok(page)
    }
}

impl From<Failure> for Delivery {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Redirected(details) => Self::Answered(Err(StoreError::refused(&details))),
            Failure::NotSent(error) => Self::NotSent(error),
            Failure::Sent(error) if error.is_indeterminate() => Self::Indeterminate(error),
            Failure::Sent(error @ StoreError::Refused { .. }) => Self::Answered(Err(error)),
            Failure::Sent(error) => Self::NotSent(error),
        }
    }
}
