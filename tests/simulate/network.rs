//! The transport of a simulated replica: what it sends leaves through an outbox, which the world empties.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use sluicegate::algorithms::op::Op;
use sluicegate::model::{CounterKey, Transaction};
use sluicegate::store::StoreError;
use sluicegate::store::remote::transport::{BreakerScope, Delivery, Transport};
use tokio::sync::{Notify, oneshot};

/// A call on its way.
pub struct Message {
    pub server: usize,
    pub calls: Vec<Transaction<Op>>,
    pub reply: oneshot::Sender<Delivery>,
    /// Whether the replica has taken the answer.
    pub heard: Arc<AtomicBool>,
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

/// To one server, or to the shards of a cluster.
pub struct SimTransport {
    pub outbox: Arc<Outbox>,
    pub first: usize,
    pub servers: usize,
    /// Servers that are known to be away: nothing is sent to them.
    pub away: Arc<Vec<AtomicBool>>,
}

/// The shard of a key among so many.
pub fn shard_of(key: &CounterKey, shards: usize) -> usize {
    let hash = key.as_str().bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    usize::try_from((hash >> 20) % shards as u64).unwrap_or(0)
}

impl Transport for SimTransport {
    fn shard(&self, key: &CounterKey) -> u16 {
        u16::try_from(shard_of(key, self.servers)).unwrap_or(0)
    }

    fn scope(&self) -> BreakerScope {
        if self.servers > 1 {
            BreakerScope::Cluster
        } else {
            BreakerScope::OneServer
        }
    }

    async fn send(&self, shard: u16, calls: &[Transaction<Op>]) -> Delivery {
        let server = self.first + usize::from(shard);
        if self.away[server].load(Ordering::Relaxed) {
            return Delivery::NotSent(StoreError::Unavailable("no connection".into()));
        }
        let (reply, answer) = oneshot::channel();
        let heard = Arc::new(AtomicBool::new(false));
        self.outbox.messages.lock().push(Message {
            server,
            calls: calls.to_vec(),
            reply,
            heard: Arc::clone(&heard),
        });
        self.outbox.filled.notify_one();
        let delivery = answer.await;
        heard.store(true, Ordering::Relaxed);
        delivery.unwrap_or_else(|_| Delivery::Indeterminate(StoreError::Broken("the connection is gone".into())))
    }
}
