//! The pipeline between the engine and a shared store. It does not depend on Redis: servers are behind
//! [`transport::Transport`].
//!
//! A request passes these stages in this order; each stage either answers a request or passes it on:
//!
//! | stage | what it does | why in this place |
//! |---|---|---|
//! | [`cache`] | answers with denials that are certain to stand | the cheapest answer; and it needs the whole request, since a lease would spend hits on a request that another rule denies |
//! | [`lease`] | answers from hits that were counted ahead | before any stage that waits; above the ledger, to which it gives unused hits |
//! | [`split`] | asks each shard, and undoes what was counted where another shard denied | below it every call is atomic |
//! | [`circuit`] | answers "not sent" while a server fails | before a caller waits for anything |
//! | [`dispatch`] | joins calls for one key, batches calls of one moment, follows late answers | as close to the transport as possible, so that all calls share it, those for leases and resets too |
//! | [`ledger`] | puts corrections in front of the checks of their counters | in the call that decides, so that no check is decided without them |
//! | [`transport`] | sends the call to a server | |
//!
//! [`fallback`] mirrors the answers. While the store cannot answer, it decides in place of all stages for rules with
//! `on_store_error: local`. [`reset`] enters below [`split`]; [`flush`] runs beside requests: the ledger's flusher, and the
//! circuit's probe. docs/architecture.md follows a hit that is answered too late through these stages.

mod book;
mod bounds;
mod cache;
mod carried;
mod circuit;
mod context;
mod dispatch;
mod fallback;
mod flush;
mod hasher;
mod job;
mod lease;
mod ledger;
mod queued;
mod reset;
mod send;
mod split;
pub mod transport;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use smallvec::{SmallVec, smallvec};
use tokio::sync::watch;

use self::bounds::BoundCounts;
use self::cache::Denials;
use self::circuit::Circuit;
use self::context::Context;
use self::dispatch::Dispatch;
use self::hasher::KeyedHasher;
use self::job::Calls;
use self::lease::{LeasePlan, Leases};
use self::transport::{Answers, BreakerScope, Transport};
use super::correction::{Cause, Correction};
use super::per_thread::PerThread;
use super::reset::{Cursor, NamePage, Named, Reset};
use super::{MemoryStore, Outcomes, Store, StoreError};
use crate::algorithms::op::Op;
use crate::model::{Check, Clock, CounterKey, Limit, Transaction};

pub use self::bounds::{Bound, Bounds, MAX_CHECKS};
pub use self::cache::DenialStats;
pub use self::circuit::CircuitState;
pub use self::fallback::Fallback;
pub use self::ledger::{CauseStats, Ledger};
pub use self::send::GRACE;

/// Which stages there are, and their bounds.
#[derive(Debug, Clone)]
pub struct Options {
    /// Longest that a caller waits for a server.
    pub timeout: Duration,
    /// Whether the circuit of a server that fails opens, so that calls to it fail at once.
    pub circuit: bool,
    /// Whether checks of one key wait for the call that is in flight, to go together.
    pub join: bool,
    /// Counters that may have a lease; `None` = no leases.
    pub lease_keys: Option<usize>,
    /// Counters whose denials are kept; `None` = none are.
    pub denial_keys: Option<usize>,
    /// Corrections that are kept.
    pub max_corrections: usize,
    /// The key of the log in which other processes read resets of counters; `None` = there are no other processes.
    pub reset_log: Option<CounterKey>,
    /// The bounds that no setting changes.
    pub bounds: Bounds,
    /// Makes the order of all maps repeatable; for simulations only, since it lets a client aim keys at one bucket.
    pub hash_seed: Option<u64>,
}

impl Options {
    /// Corrections that are kept by default: some 25 MB.
    pub const MAX_CORRECTIONS: usize = 100_000;

    /// Dispatch and ledger, and no other stage.
    #[must_use]
    pub fn plain(timeout: Duration) -> Self {
        Self {
            timeout,
            circuit: false,
            join: false,
            lease_keys: None,
            denial_keys: None,
            max_corrections: Self::MAX_CORRECTIONS,
            reset_log: None,
            bounds: Bounds::default(),
            hash_seed: None,
        }
    }
}

/// Where fallback counters are kept.
#[derive(Debug)]
pub struct Local {
    /// Where they are kept.
    pub memory: Arc<MemoryStore>,
    /// How many replicas share a limit; each enforces its part.
    pub replicas: u32,
}

/// A shared store as the engine sees it.
pub struct Remote<T: Transport> {
    servers: SmallVec<[Upstream<T>; 2]>,
    /// Which of the servers has a limit's counters.
    server_of: fn(&Limit) -> usize,
    denials: Option<Arc<Denials>>,
    leases: Option<Leases>,
    fallback: Option<Arc<Fallback>>,
    ledger: Arc<Ledger>,
    reset_log: Option<CounterKey>,
    bounds: Bounds,
    reached: Arc<BoundCounts>,
    clock: Arc<dyn Clock>,
}

struct Upstream<T: Transport> {
    context: Arc<Context<T>>,
    dispatch: PerThread<Dispatch<T>>,
}

/// What the pipeline holds at the moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RemoteStats {
    /// Corrections that wait or are in flight.
    pub corrections: usize,
    /// What became of them.
    pub causes: [CauseStats; Cause::ALL.len()],
    /// Counters that are known to the lease stage.
    pub lease_keys: usize,
    /// Hits that are leased and not used yet.
    pub leased_hits: u64,
    /// The cached denials.
    pub denials: DenialStats,
    /// How often each of [`Bound::ALL`] was reached since the start.
    pub bounds: [u64; Bound::ALL.len()],
}

/// Where a check is decided: the server's number and the shard.
type Location = (usize, u16);

impl<T: Transport> Remote<T> {
    /// A pipeline to these servers; `server_of` says which of them has a limit's counters (the last one, if the number is
    /// too large).
    pub fn new(
        transports: impl IntoIterator<Item = T>,
        server_of: fn(&Limit) -> usize,
        options: &Options,
        local: Option<Local>,
        clock: Arc<dyn Clock>,
    ) -> Arc<Self> {
        let hasher = KeyedHasher::new(options.hash_seed);
        let reached = Arc::<BoundCounts>::default();
        let ledger = Ledger::new(options.max_corrections, Arc::clone(&reached));
        let leases = options
            .lease_keys
            .map(|keys| Leases::new(keys, hasher, Arc::clone(&ledger), Arc::clone(&reached)));
        let denials = options
            .denial_keys
            .map(|keys| Arc::new(Denials::new(keys, leases.is_some(), hasher, Arc::clone(&reached))));
        let fallback = local.map(|local| Arc::new(Fallback::new(local.memory, local.replicas, Arc::clone(&ledger))));
        let server = |transport: T| {
            // Over a cluster the circuit stops no calls, and only reports failures.
            let scope = if options.circuit {
                transport.scope()
            } else {
                BreakerScope::Cluster
            };
            let context = Arc::new(Context {
                circuit: Circuit::new(scope),
                transport,
                ledger: Arc::clone(&ledger),
                denials: denials.clone(),
                fallback: fallback.clone(),
                timeout: options.timeout,
                join: options.join,
                bounds: options.bounds,
                reached: Arc::clone(&reached),
            });
            let of_thread = Arc::clone(&context);
            Upstream {
                dispatch: PerThread::new(Dispatch::new(Arc::clone(&context)), move || {
                    Dispatch::new(Arc::clone(&of_thread))
                }),
                context,
            }
        };
        Arc::new(Self {
            servers: transports.into_iter().map(server).collect(),
            server_of,
            denials,
            leases,
            fallback,
            ledger,
            reset_log: options.reset_log.clone(),
            bounds: options.bounds,
            reached,
            clock,
        })
    }

    /// A pipeline to one server, with dispatch and ledger and no other stage.
    pub fn plain(transport: T, timeout: Duration, clock: Arc<dyn Clock>) -> Arc<Self> {
        Self::new([transport], |_| 0, &Options::plain(timeout), None, clock)
    }

    /// The fallback counters.
    #[must_use]
    pub const fn fallback(&self) -> Option<&Arc<Fallback>> {
        self.fallback.as_ref()
    }

    /// Watches the circuit of a server.
    #[must_use]
    pub fn circuit(&self, server: usize) -> Option<watch::Receiver<CircuitState>> {
        Some(self.servers.get(server)?.context.circuit.watch())
    }

    /// The transport to a server.
    #[must_use]
    pub fn transport(&self, server: usize) -> Option<&T> {
        Some(&self.servers.get(server)?.context.transport)
    }

    /// What the pipeline holds at the moment.
    #[must_use]
    pub fn stats(&self) -> RemoteStats {
        RemoteStats {
            corrections: self.ledger.len(),
            causes: self.ledger.stats(),
            lease_keys: self.leases.as_ref().map_or(0, Leases::counters),
            leased_hits: self.leases.as_ref().map_or(0, Leases::hits),
            denials: self
                .denials
                .as_ref()
                .map_or_else(DenialStats::default, |denials| denials.stats()),
            bounds: self.reached.read(),
        }
    }

    fn place(&self, key: &CounterKey, limit: &Limit) -> Location {
        let server = (self.server_of)(limit).min(self.servers.len().saturating_sub(1));
        let shard = self.servers.get(server).map_or(0, |at| at.context.transport.shard(key));
        (server, shard)
    }

    /// The location that all of these checks have; `None` if they have several.
    fn one_place<'c>(&self, checks: impl IntoIterator<Item = &'c Check>) -> Option<Location> {
        let mut places = checks.into_iter().map(|check| self.place(&check.key, &check.limit));
        let first = places.next().unwrap_or_default();
        places.all(|place| place == first).then_some(first)
    }

    /// Denials that are still certain, of a transaction that these decide.
    fn cached(&self, transaction: &Transaction, now_us: u64) -> Option<Outcomes> {
        self.denials.as_ref()?.answer(transaction, now_us)
    }

    /// Sends a call that a decision waits for.
    async fn call(&self, location: Location, calls: Calls) -> job::Reply {
        self.call_patiently(location, calls, Duration::ZERO).await
    }

    /// Sends a call and waits for the answer for `patience`, or for the store's timeout if that is longer.
    async fn call_patiently(&self, (server, shard): Location, calls: Calls, patience: Duration) -> job::Reply {
        let Some(server) = self.servers.get(server) else {
            return Err(StoreError::Unavailable("there is no server".into()));
        };
        let patience = patience.max(server.context.timeout);
        server.dispatch.get().call(shard, calls, patience).await
    }

    /// Takes what it can from leases and asks the servers for the rest.
    async fn ask_leased(&self, leases: &Leases, transaction: &Transaction) -> Result<Outcomes, StoreError> {
        let mut plan = LeasePlan::new(leases, transaction, self.clock.now_us());
        if let Some(outcomes) = plan.all_local() {
            return Ok(outcomes);
        }
        // A plan that is dropped (an error, a caller that disconnects) puts back what it had taken from leases.
        let (outcomes, granted) = self.ask(plan.rest(), plan.asks()).await?;
        plan.finish(&outcomes, &granted, self.clock.now_us())
    }

    /// Asks the servers; `leases` are requested in a second transaction of the same call.
    async fn ask(
        &self,
        transaction: Transaction,
        leases: Option<Transaction<Op>>,
    ) -> Result<(Outcomes, Answers), StoreError> {
        let Some(place) = self.one_place(&transaction.checks) else {
            return self.ask_split(&transaction, leases).await;
        };
        let mut calls: Calls = smallvec![transaction.into_ops()];
        calls.extend(leases);
        let (mut answers, mut permits) = self.call(place, calls).await?;
        permits.disarm();
        let granted = if answers.len() > 1 { answers.pop() } else { None };
        let outcomes = answers.pop().ok_or_else(no_answer)?;
        Ok((outcomes_of(&outcomes), granted.unwrap_or_default()))
    }
}

fn outcomes_of(answers: &Answers) -> Outcomes {
    answers.iter().map(|answer| answer.outcome).collect()
}

fn no_answer() -> StoreError {
    StoreError::Protocol("no answer to a transaction".into())
}

#[async_trait]
impl<T: Transport> Store for Remote<T> {
    async fn check(&self, transaction: &Transaction) -> Result<Outcomes, StoreError> {
        if transaction.checks.is_empty() {
            return Ok(Outcomes::new());
        }
        let sent = self.clock.now_us();
        if let Some(outcomes) = self.cached(transaction, sent) {
            return Ok(outcomes);
        }
        let outcomes = match &self.leases {
            Some(leases) if !transaction.exact => self.ask_leased(leases, transaction).await?,
            _ => self.ask(transaction.clone(), None).await?.0,
        };
        if let Some(denials) = &self.denials {
            denials.record(transaction, &outcomes, sent, self.clock.now_us());
        }
        Ok(outcomes)
    }

    async fn check_many(&self, transactions: &[Transaction]) -> Result<Vec<Outcomes>, StoreError> {
        let checks = || transactions.iter().flat_map(|transaction| &transaction.checks);
        match self.one_place(checks()) {
            Some(place) if checks().next().is_some() => {
                let calls = transactions
                    .iter()
                    .map(|transaction| transaction.clone().into_ops())
                    .collect();
                let (answers, mut permits) = self.call(place, calls).await?;
                permits.disarm();
                Ok(answers.iter().map(outcomes_of).collect())
            }
            _ => {
                let mut all = Vec::with_capacity(transactions.len());
                for transaction in transactions {
                    all.push(self.check(transaction).await?);
                }
                Ok(all)
            }
        }
    }

    fn correct(&self, correction: Correction) {
        if let Some(fallback) = &self.fallback {
            fallback.mirror_correction(&correction);
        }
        self.ledger.record(correction);
    }

    async fn look(&self, transaction: &Transaction) -> Result<Outcomes, StoreError> {
        match self.cached(transaction, self.clock.now_us()) {
            Some(outcomes) => Ok(outcomes),
            None => self.look_patiently(transaction).await,
        }
    }

    async fn reset(&self, counters: &[Named]) -> Reset {
        self.reset_all(counters).await
    }

    async fn names(&self, limit: &Limit, prefix: &str, from: Cursor) -> Result<Option<NamePage>, StoreError> {
        self.names_of(limit, prefix, from).await.map(Some)
    }
}
