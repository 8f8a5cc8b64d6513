//! Resets of counters, by this process and by others.
//!
//! A reset is an operation on the counter like any other ([`Op::Reset`]), so it is batched, waits for corrections that are
//! in flight, and fails at once while the circuit is open. What processes keep of a counter beside the store must go, too:
//! whoever resets adds the counter's name to a log in the store, and every process reads there what is new, twice a second.
//! So no connection is kept for it, and a process that was cut off catches up.

use std::sync::{Arc, Weak};
use std::time::Duration;

use futures::future::join_all;
use smallvec::smallvec;
use tokio::time::timeout;

use super::bounds::Bound;
use super::transport::Transport;
use super::{Location, Remote, no_answer};
use crate::algorithms::op::Op;
use crate::algorithms::quota;
use crate::model::{Check, CounterKey, Enforcement, Limit, Transaction};
use crate::store::StoreError;
use crate::store::reset::{Cursor, NamePage, Named, Reset};
use crate::store::ticker::Ticker;

/// Between two looks at the log.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Longest that a look at the log, an entry or a page of names may take. Nobody's decision waits for them.
const PATIENCE: Duration = Duration::from_millis(500);

/// Where this process is in a server's log.
#[derive(Debug, Default)]
struct LogReader {
    /// The newest entry that has been read.
    newest: u64,
    /// The last look failed, and the log has said so.
    is_warned: bool,
}

impl<T: Transport> Remote<T> {
    /// Makes counters as new, and tells other processes. Stops at the first that fails.
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
                    Err(error) => done.failed = done.failed.or(Some(error)),
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

    /// The hits that it had in use.
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
        let (answers, _) = self.call(self.place(key, limit), smallvec![transaction]).await?;
        let before = answers
            .first()
            .and_then(|answers| answers.first())
            .ok_or_else(no_answer)?;
        let unused = before.outcome.remaining.saturating_add(before.outcome.holds.open);
        Ok(quota(limit).saturating_sub(unused))
    }

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
                tracing::warn!(%error, "other replicas do not hear of a reset: they keep cached denials until these end");
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

    /// Forgets what others have reset since the last look.
    async fn look_at_log(&self, server: usize, reader: &mut LogReader) {
        let (Some(log), Some(server)) = (&self.reset_log, self.servers.get(server)) else {
            return;
        };
        let most = self.bounds.log_entries;
        // While the server is away nobody resets.
        while server.context.circuit.admit().is_ok() {
            let entries = match in_time(server.context.transport.resets(log, reader.newest, most)).await {
                Ok(entries) => entries,
                Err(error) => {
                    // Whatever else is wrong with a server is told by its circuit.
                    if matches!(error, StoreError::Refused { .. }) && !std::mem::replace(&mut reader.is_warned, true) {
                        tracing::warn!(
                            %error, %log,
                            "resets by other replicas are not heard of: allow ZRANGEBYSCORE on this key (docs/redis.md)"
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

/// Follows a server's log until the pipeline is gone.
pub(super) async fn follow_forever<T: Transport>(remote: Weak<Remote<T>>, server: usize) {
    let mut ticker = Ticker::new(remote, LOOK_EVERY);
    let mut reader = LogReader::default();
    while let Some(remote) = ticker.next().await {
        Arc::as_ref(&remote).look_at_log(server, &mut reader).await;
    }
}
