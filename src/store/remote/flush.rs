//! The periodic tasks of the pipeline: the ledger's flusher, and the probe that closes an open circuit.

use std::collections::BTreeSet;
use std::sync::{Arc, Weak};
use std::time::Duration;

use futures::future::join_all;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use super::circuit::CircuitState;
use super::reset::follow_forever;
use super::send::Batch;
use super::transport::{BreakerScope, Delivery, Transport};
use super::{Remote, Upstream};
use crate::algorithms::op::Op;
use crate::model::{CounterKey, Transaction};
use crate::store::StoreError;
use crate::store::ticker::Ticker;

/// Time between the beginnings of two rounds of the flusher.
const EVERY: Duration = Duration::from_millis(250);
/// Longest round of the flusher.
const ROUND: Duration = Duration::from_secs(1);
/// Time between two probes while the circuit is open.
const PROBE_EVERY: Duration = Duration::from_millis(100);
/// Time between two probes while the circuit is closed, so that the loss of the server is noticed without requests, too.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// When the server is back, corrections are sent for this long at most before users' calls are. The rest, if there are many or
/// more are recorded as fast, is sent with each counter's next call, or by the flusher.
const FIRST: Duration = Duration::from_millis(300);
/// Then users' calls wait for this much longer. Other replicas' probes notice the server later, and it should have their
/// corrections before it decides.
const OTHERS: Duration = Duration::from_millis(200);
/// And corrections that were recorded in the meantime are sent for this long at most.
const LAST: Duration = Duration::from_millis(100);

impl<T: Transport> Remote<T> {
    /// Starts what must run while the pipeline is used; it ends with the pipeline. `probe` must write, so that a server that
    /// only reads (a demoted master, a full one) does not pass for a healthy one.
    pub fn spawn(self: &Arc<Self>, tasks: &mut JoinSet<()>, probe: &Transaction) {
        tasks.spawn(flush_forever(Arc::downgrade(self)));
        for server in 0..self.servers.len() {
            tasks.spawn(recover_forever(Arc::downgrade(self), server, probe.clone().into_ops()));
            tasks.spawn(follow_forever(Arc::downgrade(self), server));
        }
    }

    /// Sends a probe to a server; returns whether it answered. A failure counts for its circuit as one of a request does.
    pub async fn probe(&self, server: usize, probe: &Transaction<Op>) -> bool {
        let (Some(server), Some(check)) = (self.servers.get(server), probe.checks.first()) else {
            return false;
        };
        let context = &server.context;
        let shard = context.transport.shard(&check.key);
        match context.deliver(shard, std::slice::from_ref(probe)).await {
            Delivery::Answered(Ok(_)) => {
                context.circuit.succeeded();
                true
            }
            Delivery::Answered(Err(error)) | Delivery::NotSent(error) | Delivery::Indeterminate(error) => {
                context.circuit.failed(&error);
                false
            }
        }
    }

    /// One round of the flusher: ends expired leases, and sends corrections for `patience` at most.
    pub async fn flush(&self, patience: Duration) {
        if let Some(leases) = &self.leases {
            leases.sweep(self.clock.now_us());
        }
        if self.ledger.is_empty() {
            return;
        }
        self.ledger.sweep();
        for (number, server) in self.servers.iter().enumerate() {
            if server.context.circuit.admit().is_ok()
                && let Err(error) = self.flush_server(number, server, patience).await
            {
                tracing::debug!(%error, "corrections could not be sent yet");
            }
        }
    }

    /// Sends the corrections of one server's counters. One that cannot be sent stays in the ledger and does not delay others.
    ///
    /// # Errors
    /// When the server cannot be reached.
    async fn flush_server(&self, number: usize, server: &Upstream<T>, patience: Duration) -> Result<(), StoreError> {
        let start = Instant::now();
        let mut later: BTreeSet<CounterKey> = BTreeSet::new();
        let mut away = None;
        while start.elapsed() < patience {
            let last = self.servers.len().saturating_sub(1);
            let mut carried = self
                .ledger
                .claim_any(self.bounds.flushed, self.bounds.checks, |key, limit| {
                    (self.server_of)(limit).min(last) == number && !later.contains(key)
                });
            if carried.is_empty() {
                break;
            }
            let mut batches = Vec::new();
            let transport = &server.context.transport;
            while let Some(key) = carried.first() {
                let first = transport.shard(&key);
                let lane = transport.lane(first);
                let of_lane = carried.split_off(|key| transport.lane(transport.shard(key)) == lane);
                let counters: Vec<CounterKey> = of_lane.counters().cloned().collect();
                batches.push((counters, Batch::new(first, of_lane)));
            }
            let sent = batches.len();
            let send = |(counters, batch)| async move { (counters, server.context.send(batch).await) };
            let mut failed = 0;
            for (counters, error) in join_all(batches.into_iter().map(send)).await {
                let Some(error) = error else { continue };
                failed += 1;
                later.extend(counters);
                if error.is_away() {
                    away = Some(error);
                }
            }
            if failed == sent {
                break;
            }
        }
        away.map_or(Ok(()), Err)
    }

    /// Tries once to close an open circuit.
    async fn recover(&self, number: usize, probe: &Transaction<Op>) {
        let Some(server) = self.servers.get(number) else { return };
        let circuit = &server.context.circuit;
        let is_back = match circuit.scope() {
            BreakerScope::OneServer => self.probe(number, probe).await,
            // A probe would reach only one of the servers.
            BreakerScope::Cluster => circuit.is_quiet(),
        };
        if !is_back || !circuit.reconcile() {
            return;
        }
        let reconciled = async {
            if !self.ledger.is_empty() {
                self.flush_server(number, server, FIRST).await?;
                sleep(OTHERS).await;
                self.flush_server(number, server, LAST).await?;
            }
            Ok(())
        };
        match reconciled.await {
            Ok(()) => {
                circuit.close();
            }
            Err(error) => circuit.failed(&error),
        }
    }
}

async fn flush_forever<T: Transport>(remote: Weak<Remote<T>>) {
    let mut ticker = Ticker::new(remote, EVERY);
    while let Some(remote) = ticker.next().await {
        remote.flush(ROUND).await;
    }
}

async fn recover_forever<T: Transport>(remote: Weak<Remote<T>>, server: usize, probe: Transaction<Op>) {
    let Some(mut state) = remote.upgrade().and_then(|remote| remote.circuit(server)) else {
        return;
    };
    loop {
        let is_open = |state: &CircuitState| !matches!(state, CircuitState::Closed { .. });
        let opened = timeout(LOOK_EVERY, async { state.wait_for(is_open).await.is_ok() });
        let opened = match opened.await {
            Ok(false) => return,
            Ok(true) => true,
            Err(_) => false,
        };
        if opened {
            sleep(PROBE_EVERY).await;
        }
        let Some(remote) = remote.upgrade() else { return };
        if opened {
            remote.recover(server, &probe).await;
        } else {
            remote.probe(server, &probe).await;
        }
    }
}
