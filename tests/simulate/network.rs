//! The transport of a simulated replica: what it sends leaves through an outbox, which the world empties.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::Mutex;
use sluicegate::algorithms::op::Op;
use sluicegate::model::{CounterKey, Transaction};
use sluicegate::store::StoreError;
use sluicegate::store::remote::transport::{BreakerScope, Delivery, Transport};
use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;

/// What a message asks for.
pub enum Errand {
    Decide(Vec<Transaction<Op>>),
    /// Add counters to the log of resets.
    Announce(Vec<CounterKey>),
    ReadLog {
        since: u64,
        most: usize,
    },
}

/// What comes back.
pub enum Parcel {
    Delivery(Delivery),
    /// What the log of resets has.
    Log(Vec<(CounterKey, u64)>),
}

/// A message on its way.
pub struct Message {
    pub server: usize,
    /// Whether its counters are in several slots.
    pub is_mixed: bool,
    pub errand: Errand,
    pub reply: oneshot::Sender<Parcel>,
    pub heard: Arc<Heard>,
}

/// When a replica took the answer to a message, in simulated milliseconds.
pub struct Heard(AtomicU64);

impl Default for Heard {
    fn default() -> Self {
        Self(AtomicU64::new(u64::MAX))
    }
}

impl Heard {
    /// `None`: it has not.
    pub fn at_ms(&self) -> Option<u64> {
        Some(self.0.load(Ordering::Relaxed)).filter(|at_ms| *at_ms < u64::MAX)
    }
}

/// What a replica has sent and the network has not taken yet.
#[derive(Default)]
pub struct Outbox {
    messages: Mutex<Vec<Message>>,
    pub filled: Notify,
}

impl Outbox {
    pub fn take(&self) -> Vec<Message> {
        std::mem::take(&mut *self.messages.lock())
    }
}

/// Simulated time as a process sees it; read inside its runtime.
#[derive(Debug, Clone, Copy)]
pub struct SimTime {
    /// When its runtime began.
    pub start: Instant,
    /// The simulated time then.
    pub began_ms: u64,
}

impl SimTime {
    pub fn now_ms(&self) -> u64 {
        self.began_ms + u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

/// To one server, or to the shards of a cluster.
pub struct SimTransport {
    pub time: SimTime,
    pub outbox: Arc<Outbox>,
    pub first: usize,
    pub servers: usize,
    /// Slots of each server of a cluster.
    pub slots: usize,
    /// Servers that are known to be away: nothing is sent to them.
    pub away: Arc<Vec<AtomicBool>>,
}

/// The server of a key among so many.
pub fn server_of(key: &CounterKey, servers: usize) -> usize {
    usize::try_from((hash(key) >> 20) % servers as u64).unwrap_or(0)
}

fn hash(key: &CounterKey) -> u64 {
    key.as_str().bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

impl Transport for SimTransport {
    /// The slot.
    fn shard(&self, key: &CounterKey) -> u16 {
        let slot = usize::try_from((hash(key) >> 40) % self.slots as u64).unwrap_or(0);
        u16::try_from(server_of(key, self.servers) + slot * self.servers).unwrap_or(0)
    }

    /// The server.
    fn lane(&self, shard: u16) -> u16 {
        shard % u16::try_from(self.servers).unwrap_or(1)
    }

    fn scope(&self) -> BreakerScope {
        if self.servers > 1 {
            BreakerScope::Cluster
        } else {
            BreakerScope::OneServer
        }
    }

    async fn send(&self, shard: u16, calls: &[Transaction<Op>]) -> Delivery {
        let mut checks = calls.iter().flat_map(|call| &call.checks);
        let is_mixed = checks.any(|check| self.shard(&check.key) != shard);
        let server = usize::from(self.lane(shard));
        match self.ask(server, is_mixed, Errand::Decide(calls.to_vec())).await {
            Ok(Parcel::Delivery(delivery)) => delivery,
            Ok(Parcel::Log(_)) => Delivery::Indeterminate(StoreError::Protocol("a log".into())),
            Err(NotAnswered::Away(error)) => Delivery::NotSent(error),
            Err(NotAnswered::Broken(error)) => Delivery::Indeterminate(error),
        }
    }

    async fn announce(&self, log: &CounterKey, counters: &[CounterKey]) -> Result<(), StoreError> {
        self.read(log, Errand::Announce(counters.to_vec())).await.map(drop)
    }

    async fn resets(&self, log: &CounterKey, since: u64, most: usize) -> Result<Vec<(CounterKey, u64)>, StoreError> {
        self.read(log, Errand::ReadLog { since, most }).await
    }
}

/// Why there is no answer.
enum NotAnswered {
    Away(StoreError),
    Broken(StoreError),
}

impl SimTransport {
    async fn ask(&self, server: usize, is_mixed: bool, errand: Errand) -> Result<Parcel, NotAnswered> {
        let server = self.first + server;
        if self.away[server].load(Ordering::Relaxed) {
            return Err(NotAnswered::Away(StoreError::Unavailable("no connection".into())));
        }
        let (reply, answer) = oneshot::channel();
        let heard = Arc::new(Heard::default());
        self.outbox.messages.lock().push(Message {
            server,
            is_mixed,
            errand,
            reply,
            heard: Arc::clone(&heard),
        });
        self.outbox.filled.notify_one();
        let parcel = answer.await;
        heard.0.store(self.time.now_ms(), Ordering::Relaxed);
        parcel.map_err(|_| NotAnswered::Broken(StoreError::Broken("the connection is gone".into())))
    }

    /// A question about the log of resets; its answer is empty where it only adds to it.
    async fn read(&self, log: &CounterKey, errand: Errand) -> Result<Vec<(CounterKey, u64)>, StoreError> {
        match self.ask(server_of(log, self.servers), false, errand).await {
            Ok(Parcel::Log(entries)) => Ok(entries),
            Ok(Parcel::Delivery(Delivery::Answered(Ok(_)))) => Ok(Vec::new()),
            Ok(Parcel::Delivery(
                Delivery::Answered(Err(error)) | Delivery::NotSent(error) | Delivery::Indeterminate(error),
            ))
            | Err(NotAnswered::Away(error) | NotAnswered::Broken(error)) => Err(error),
        }
    }
}
