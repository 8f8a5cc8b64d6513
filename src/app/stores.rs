//! Puts the store together, layer over layer: deny cache → leases → coalescing (→ one Redis for seconds, one for the
//! rest) → circuit breaker → step with the standby counters → meter → Redis.

use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use prometheus::IntGauge;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::admin::Health;
use crate::algorithms::limit::{self, LimitSpec, MAX_HITS};
use crate::config::settings::{RedisSettings, Settings, StoreKind, StoreSettings, Topology};
use crate::model::key::{Owner, Part, counter_key};
use crate::model::{AlgorithmKind, Check, Clock, Enforcement, Hits, Limit, Transaction, Unit, Window};
use crate::store::breaker::{Breaker, Covers, probe_forever};
use crate::store::coalesce::Coalesce;
use crate::store::deny_cache::DenyCache;
use crate::store::lease::{self, Lease};
use crate::store::memory::{self, MemoryStore};
use crate::store::per_second::{PerSecond, is_per_second};
use crate::store::redis::RedisStore;
use crate::store::standby::{Follow, Standby, settle_forever};
use crate::store::{Store, StoreError};
use crate::telemetry::Metrics;
use crate::telemetry::store_meter::StoreMeter;

use super::{AppError, link_log};

/// How often the memory store's numbers are copied into the metrics.
const STATS_INTERVAL: Duration = Duration::from_secs(1);
/// Between two attempts to get the first answer of a server that health needs.
const FIRST_ANSWER_EVERY: Duration = Duration::from_millis(100);
/// Label of the shared store in the metrics.
const REDIS: &str = "redis";
/// Label of the one for limits per second.
const REDIS_PER_SECOND: &str = "redis_per_second";

/// A store whose layers are a matter of settings.
type AnyStore = Arc<dyn Store>;

/// What the engine gets.
pub(super) struct Stack {
    pub store: AnyStore,
    pub standby: Option<Arc<Standby>>,
    pub background: Background,
}

/// What runs beside it.
pub(super) struct Background {
    memory: Arc<MemoryStore>,
    redis: Option<RedisParts>,
}

struct RedisParts {
    servers: Vec<Server>,
    probe: Transaction,
    lease: Option<Arc<Lease<AnyStore>>>,
}

/// A Redis with its circuit breaker.
struct Server {
    /// Label in the metrics.
    name: &'static str,
    breaker: Arc<Breaker<Arc<Followed>>>,
    follow: Weak<Followed>,
}

/// A Redis that the standby counters are kept in step with.
type Followed = Follow<StoreMeter<RedisStore>>;

impl Server {
    fn connect(
        name: &'static str,
        redis: &RedisSettings,
        timeout: Duration,
        standby: &Arc<Standby>,
        serves: fn(&Limit) -> bool,
        metrics: &Arc<Metrics>,
    ) -> Result<Self, AppError> {
        let store = RedisStore::connect(redis, timeout, link_log::observer())
            .map_err(|error| AppError::Store(format!("TLS to Redis: {error}")))?;
        let covers = match redis.topology {
            Topology::Cluster(_) => Covers::Cluster,
            Topology::Single(_) | Topology::Unix(_) | Topology::Sentinel { .. } => Covers::OneServer,
        };
        let metered = StoreMeter::new(store, name, metrics);
        let follow = Arc::new(Follow::new(metered, Arc::clone(standby), serves, timeout));
        Ok(Self {
            name,
            follow: Arc::downgrade(&follow),
            breaker: Breaker::new(follow, covers),
        })
    }
}

/// Opens the store. A Redis that is away is no error: the failure mode answers until it comes.
pub(super) fn open(settings: &Settings, metrics: &Arc<Metrics>, clock: &Arc<dyn Clock>) -> Result<Stack, AppError> {
    let store = &settings.store;
    let max_keys = NonZeroUsize::new(store.memory_max_keys).unwrap_or(NonZeroUsize::MIN);
    let memory = Arc::new(MemoryStore::new(max_keys, Arc::clone(clock)));
    match (store.kind, &store.redis) {
        (StoreKind::Memory, _) => {
            let background = Background {
                memory: Arc::clone(&memory),
                redis: None,
            };
            Ok(Stack {
                store: memory,
                standby: None,
                background,
            })
        }
        (StoreKind::Redis, Some(redis)) => {
            let standby = Arc::new(Standby::new(Arc::clone(&memory), store.replicas));
            let (shared, parts) = open_redis(store, redis, &standby, metrics, clock)?;
            let background = Background {
                memory,
                redis: Some(parts),
            };
            Ok(Stack {
                store: shared,
                standby: Some(standby),
                background,
            })
        }
        (StoreKind::Redis, None) => Err(AppError::Store("--store redis needs --redis-url".into())),
    }
}

fn open_redis(
    settings: &StoreSettings,
    redis: &RedisSettings,
    standby: &Arc<Standby>,
    metrics: &Arc<Metrics>,
    clock: &Arc<dyn Clock>,
) -> Result<(AnyStore, RedisParts), AppError> {
    let has_two = settings.redis_per_second.is_some();
    let serves = if has_two {
        |limit: &Limit| !is_per_second(limit)
    } else {
        |_: &Limit| true
    };
    let connect = |name, redis, serves| Server::connect(name, redis, settings.timeout, standby, serves, metrics);
    let main = connect(REDIS, redis, serves)?;
    let mut store = Arc::clone(&main.breaker) as AnyStore;
    let mut servers = vec![main];
    if let Some(redis) = &settings.redis_per_second {
        let seconds = connect(REDIS_PER_SECOND, redis, is_per_second)?;
        store = Arc::new(PerSecond::new(store, Arc::clone(&seconds.breaker) as AnyStore));
        servers.push(seconds);
    }
    if settings.coalesce {
        store = Arc::new(Coalesce::new(store, settings.timeout));
    }
    let lease = settings.lease.then(|| {
        Arc::new(Lease::new(
            Arc::clone(&store),
            settings.memory_max_keys,
            Arc::clone(clock),
        ))
    });
    if let Some(lease) = &lease {
        store = Arc::clone(lease) as AnyStore;
    }
    if settings.deny_cache {
        store = Arc::new(DenyCache::new(
            store,
            settings.deny_cache_max_keys,
            settings.lease,
            Arc::clone(clock),
        ));
    }
    let probe = probe(&settings.key_prefix).map_err(|error| AppError::Store(error.to_string()))?;
    Ok((store, RedisParts { servers, probe, lease }))
}

/// A hit on a counter of our own that never fills up: it writes, as a real decision does.
fn probe(prefix: &str) -> Result<Transaction, limit::LimitError> {
    let limit = limit::build(&LimitSpec::new(
        AlgorithmKind::FixedWindow,
        MAX_HITS,
        Window::of(Unit::Second),
    ))?;
    // No rule's key has an empty domain.
    let key = counter_key(prefix, Owner::Rule, &limit, "", [Part::Own("probe", "")]);
    let check = Check {
        key,
        limit,
        hits: Hits::Acquire(1),
        enforcement: Enforcement::Enforce,
    };
    Ok(Transaction {
        checks: [check].into_iter().collect(),
        ..Transaction::default()
    })
}

impl Background {
    /// Starts what must run while the process serves.
    pub(super) fn spawn(
        self,
        tasks: &mut JoinSet<()>,
        metrics: &Arc<Metrics>,
        health: &Health,
        stop: &CancellationToken,
    ) {
        tasks.spawn(memory::sweep_forever(Arc::downgrade(&self.memory)));
        tasks.spawn(copy_stats(self.memory, Arc::clone(metrics), stop.clone()));
        if let Some(redis) = self.redis {
            // What health needs must have answered once.
            let needs_all = health.conditions().needs_store;
            let away = Arc::new(AtomicUsize::new(if needs_all { redis.servers.len() } else { 0 }));
            for Server { name, breaker, follow } in redis.servers {
                let state = breaker.state();
                tasks.spawn(settle_forever(follow, move || state.borrow().is_some()));
                if needs_all {
                    let (health, away) = (health.clone(), Arc::clone(&away));
                    tasks.spawn(wait_for_answer(
                        Arc::downgrade(&breaker),
                        redis.probe.clone(),
                        health,
                        away,
                    ));
                }
                let gauge = metrics.failure_mode.with_label_values(&[name]);
                tasks.spawn(probe_forever(Arc::downgrade(&breaker), redis.probe.clone()));
                tasks.spawn(tell_failure_mode(
                    breaker.state(),
                    name,
                    gauge,
                    health.clone(),
                    Arc::clone(&away),
                ));
            }
            if let Some(lease) = &redis.lease {
                tasks.spawn(lease::sweep_forever(Arc::downgrade(lease)));
            }
        }
    }
}

async fn copy_stats(memory: Arc<MemoryStore>, metrics: Arc<Metrics>, stop: CancellationToken) {
    let mut evicted = 0;
    while !stop.is_cancelled() {
        let stats = memory.stats();
        metrics.memory_keys.set(i64::try_from(stats.keys).unwrap_or(i64::MAX));
        metrics.memory_evictions.inc_by(stats.evicted.saturating_sub(evicted));
        evicted = stats.evicted;
        tokio::time::sleep(STATS_INTERVAL).await;
    }
}

/// Counts a server as there once it has answered.
async fn wait_for_answer(server: Weak<impl Store>, probe: Transaction, health: Health, away: Arc<AtomicUsize>) {
    loop {
        let Some(server) = server.upgrade() else { return };
        if server.check(&probe).await.is_ok() {
            break;
        }
        drop(server);
        tokio::time::sleep(FIRST_ANSWER_EVERY).await;
    }
    away.fetch_sub(1, Ordering::SeqCst);
    health.update(|conditions| conditions.store_answers = away.load(Ordering::SeqCst) == 0);
}

/// Logs, counts and shows when the failure mode takes over and when it ends; once each. `away` counts the servers that
/// do not answer.
async fn tell_failure_mode(
    mut state: watch::Receiver<Option<StoreError>>,
    server: &'static str,
    gauge: IntGauge,
    health: Health,
    away: Arc<AtomicUsize>,
) {
    gauge.set(0);
    loop {
        let reason = state.borrow_and_update().clone();
        let failing = reason.is_some();
        if (gauge.get() == 1) != failing {
            gauge.set(i64::from(failing));
            if failing {
                away.fetch_add(1, Ordering::SeqCst);
            } else {
                away.fetch_sub(1, Ordering::SeqCst);
            }
            // Read under health's lock, so that whoever comes last sees all.
            health.update(|conditions| conditions.store_answers = away.load(Ordering::SeqCst) == 0);
            match reason {
                Some(error) => tracing::error!(server, %error, "Redis does not answer: the failure mode takes over"),
                // As loud as its beginning: whoever hears of that must hear of this.
                None => tracing::warn!(server, "Redis answers again: the failure mode ends"),
            }
        }
        if state.changed().await.is_err() {
            return;
        }
    }
}
