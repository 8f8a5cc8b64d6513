//! Resets of counters, by this process and by others.
//!
//! A reset is an operation on the counter like any other ([`Op::Reset`]), so it is batched, waits for corrections that are
//! in flight, and fails at once while the circuit is open. Its answer may take longer than a decision's: a call stays in flight
//! for the grace period anyway, and nothing but an operator waits for it. Processes must also forget what they keep of the counter beside the
//! store: the process that resets it adds its key to a log in the store, and every process reads the log's new entries twice a
//! second. A log needs no connection of its own (as publish-subscribe would), and a process that was cut off catches up.

use std::sync::{Arc, Weak};
use std::time::Duration;

use futures::future::join_all;
use smallvec::smallvec;
use tokio::time::timeout;

use super::bounds::Bound;
use super::transport::Transport;
use super::{Location, Remote, no_answer, outcomes_of};
use crate::algorithms::op::Op;
use crate::algorithms::quota;
use crate::model::{Check, CounterKey, Enforcement, Limit, Transaction};
use crate::store::reset::{Cursor, NamePage, Named, Reset};
use crate::store::ticker::Ticker;
use crate::store::{Outcomes, Store, StoreError};

/// Time between two reads of the log.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Timeout of a reset, an operator's look at a counter, a read of the log, an entry or a page of names. No decision waits for them.
const PATIENCE: Duration = Duration::from_millis(500);

/// This process' position in a server's log.
#[derive(Debug, Default)]
struct LogReader {
    /// The time of the newest entry that has been read.
    newest: u64,
    /// The last read failed, and a log line has reported it.
    is_warned: bool,
}

impl<T: Transport> Remote<T> {
    /// Resets counters and announces it to other processes, chunk by chunk, up to the first chunk with a failure.
    pub(super) async fn reset_all(&self, counters: &[Named]) -> Reset {
        let mut done = Reset::default();
        for chunk in counters.chunks(self.bounds.reset.max(1)) {
            if chunk.len() < counters.len() {
                self.reached.reached(Bound::Reset);
            }
            let replies = chunk.iter().map(|(key, limit)| self.reset_one(key, limit));
            let replies = join_all(replies).await;
            let mut fresh: Vec<Vec<CounterKey>> = vec![Vec::new(); self.servers.len()];
            for ((key, limit), reply) in chunk.iter().zip(replies) {
                match reply {
                    Ok(used) => {
                        done.counters += 1;
                        done.hits = done.hits.saturating_add(used);
                        self.forget(key);
                        if let Some(list) = fresh.get_mut(self.place(key, limit).0) {
                            list.push(key.clone());
                        }
                    }
                    Err(error) => {
                        if error.is_indeterminate() {
                            done.unknown += 1;
                            // A denial is asked for anew. Pending corrections stay: if the counter was not reset, they are still due.
                            if let Some(denials) = &self.denials {
                                denials.reset(key, self.clock.now_us());
                            }
                        }
                        done.failed = done.failed.or(Some(error));
                    }
                }
            }
            for (server, keys) in fresh.iter().enumerate() {
                done.announced &= self.announce(server, keys).await;
            }
            if done.failed.is_some() {
                break;
            }
        }
        done
    }

    /// Resets a counter; returns the hits that it had in use.
    async fn reset_one(&self, key: &CounterKey, limit: &Limit) -> Result<u64, StoreError> {
        let check = |hits| Check {
            key: key.clone(),
            limit: *limit,
            hits,
            enforcement: Enforcement::Shadow,
        };
        let transaction = Transaction {
            checks: [check(Op::Peek), check(Op::Reset)].into_iter().collect(),
            exact: true,
            ..Transaction::default()
        };
        let (answers, _) = self
            .call_patiently(self.place(key, limit), smallvec![transaction], PATIENCE)
            .await?;
        let before = answers
            .first()
            .and_then(|answers| answers.first())
            .ok_or_else(no_answer)?;
        let unused = before.outcome.remaining.saturating_add(before.outcome.holds.open);
        Ok(quota(limit).saturating_sub(unused))
    }

    /// Answers a transaction of one place that counts nothing, however long that takes up to a reset's patience.
    pub(super) async fn look_patiently(&self, transaction: &Transaction) -> Result<Outcomes, StoreError> {
        let Some(place) = self.one_place(&transaction.checks) else {
            return self.check(transaction).await;
        };
        let call = smallvec![transaction.clone().into_ops()];
        let (mut answers, _) = self.call_patiently(place, call, PATIENCE).await?;
        answers.pop().as_ref().map(outcomes_of).ok_or_else(no_answer)
    }

    /// Forgets what this process keeps of a counter whose state has been reset: its lease, its denials, its corrections, and
    /// its fallback counter.
    pub fn forget(&self, counter: &CounterKey) {
        self.ledger.forget(counter);
        if let Some(denials) = &self.denials {
            denials.reset(counter, self.clock.now_us());
        }
        if let Some(leases) = &self.leases {
            leases.forget(counter);
        }
        if let Some(fallback) = &self.fallback {
            fallback.forget(counter);
        }
    }

    /// Adds reset counters to a server's log; returns whether other processes can read them there.
    async fn announce(&self, server: usize, keys: &[CounterKey]) -> bool {
        let (Some(log), Some(server)) = (&self.reset_log, self.servers.get(server)) else {
            return true;
        };
        if keys.is_empty() {
            return true;
        }
        let announced = server.context.transport.announce(log, keys);
        match in_time(announced).await {
            Ok(()) => true,
            Err(error) => {
                tracing::warn!(%error, "a reset could not be logged in the store: other replicas keep cached denials until these end");
                false
            }
        }
    }

    /// A page of the names of counters that begin with `prefix`, of the server that has this limit's.
    pub(super) async fn names_of(&self, limit: &Limit, prefix: &str, from: Cursor) -> Result<NamePage, StoreError> {
        let (server, _): Location = self.place(&CounterKey::from_raw(prefix), limit);
        let Some(server) = self.servers.get(server) else {
            return Err(no_answer());
        };
        server.context.circuit.admit()?;
        in_time(server.context.transport.scan(prefix, from)).await
    }

    /// Forgets the counters that other processes have reset since the last read.
    async fn read_log(&self, server: usize, reader: &mut LogReader) {
        let (Some(log), Some(server)) = (&self.reset_log, self.servers.get(server)) else {
            return;
        };
        let most = self.bounds.log_entries;
        // While the server is away, no reset can succeed.
        while server.context.circuit.admit().is_ok() {
            let entries = match in_time(server.context.transport.resets(log, reader.newest, most)).await {
                Ok(entries) => entries,
                Err(error) => {
                    // Other errors open the circuit, which is logged.
                    if matches!(error, StoreError::Refused { .. }) && !std::mem::replace(&mut reader.is_warned, true) {
                        tracing::warn!(
                            %error, %log,
                            "the log of resets may not be read: cached denials of counters that other replicas reset stand \
                             until they end; give this user the permissions in docs/redis.md"
                        );
                    }
                    return;
                }
            };
            reader.is_warned = false;
            for (counter, at) in &entries {
                self.forget(counter);
                reader.newest = reader.newest.max(*at);
            }
            if entries.len() < most {
                return;
            }
            self.reached.reached(Bound::LogEntries);
        }
    }
}

async fn in_time<V>(call: impl Future<Output = Result<V, StoreError>>) -> Result<V, StoreError> {
    timeout(PATIENCE, call)
        .await
        .unwrap_or(Err(StoreError::Timeout(PATIENCE)))
}

/// Reads a server's log periodically until the pipeline is dropped.
pub(super) async fn follow_forever<T: Transport>(remote: Weak<Remote<T>>, server: usize) {
    let mut ticker = Ticker::new(remote, LOOK_EVERY);
    let mut reader = LogReader::default();
    while let Some(remote) = ticker.next().await {
        Arc::as_ref(&remote).read_log(server, &mut reader).await;
    }
}
