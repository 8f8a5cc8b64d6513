//! Puts the store together: memory, or the pipeline to one or two Redis.

use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use prometheus::IntGauge;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::admin::Health;
use crate::algorithms::limit::{self, LimitSpec, MAX_HITS};
use crate::config::settings::{Ablation, RedisSettings, Settings, StoreKind, StoreSettings};
use crate::model::key::{Owner, Part, counter_key};
use crate::model::time::SECOND_US;
use crate::model::{AlgorithmKind, Check, Clock, CounterKey, Enforcement, Hits, Limit, Transaction, Unit, Window};
use crate::sources::OpenRedis;
use crate::store::Store;
use crate::store::memory::{self, MemoryStore};
use crate::store::redis::RedisTransport;
use crate::store::remote::{Bounds, CircuitState, Fallback, Local, MAX_CHECKS, Options, Remote};
use crate::telemetry::activity::Event;
use crate::telemetry::store_meter::StoreMeter;
use crate::telemetry::{Activity, Metrics, PipelineCollector};

use super::{AppError, link_log};

/// How often the memory store's numbers are copied into the metrics.
const STATS_INTERVAL: Duration = Duration::from_secs(1);
/// Between two attempts to get the first answer of a server that health needs.
const FIRST_ANSWER_EVERY: Duration = Duration::from_millis(100);
/// Longest call on connections of [`opener`].
const SLOW: Duration = Duration::from_secs(1);
/// Longest wait for Redis before the listeners open, and between two looks at it.
const WARM_UP: Duration = Duration::from_millis(250);
const WARM_UP_STEP: Duration = Duration::from_millis(2);
/// At the end of the process: for how long Redis is told what it has not got, and how long until the next try.
const FLUSH: Duration = Duration::from_millis(100);
/// Label of the shared store in the metrics.
const REDIS: &str = "redis";
/// Label of the one for limits per second.
const REDIS_PER_SECOND: &str = "redis_per_second";

/// The pipeline to Redis.
type Pipeline = Remote<StoreMeter<RedisTransport>>;

/// What the engine gets.
pub(super) struct Stack {
    pub store: Arc<dyn Store>,
    pub fallback: Option<Arc<Fallback>>,
    pub background: Background,
}

/// What runs beside it.
pub(super) struct Background {
    memory: Arc<MemoryStore>,
    redis: Option<RedisParts>,
}

struct RedisParts {
    remote: Arc<Pipeline>,
    /// Labels of the servers in the metrics, in the pipeline's order.
    names: Vec<&'static str>,
    probe: Transaction,
}

/// Opens the store. A Redis that is away is no error: the failure mode answers until it comes.
pub(super) fn open(settings: &Settings, metrics: &Arc<Metrics>, clock: &Arc<dyn Clock>) -> Result<Stack, AppError> {
    let store = &settings.store;
    let max_keys = NonZeroUsize::new(store.memory_max_keys).unwrap_or(NonZeroUsize::MIN);
    let memory = Arc::new(MemoryStore::new(max_keys, Arc::clone(clock)));
    match (store.kind, &store.redis) {
        (StoreKind::Memory, _) => Ok(Stack {
            store: Arc::clone(&memory) as Arc<dyn Store>,
            fallback: None,
            background: Background { memory, redis: None },
        }),
        (StoreKind::Redis, Some(redis)) => {
            let bounds = bounds(&settings.ablation);
            let parts = open_redis(store, redis, bounds, &memory, metrics, clock)?;
            Ok(Stack {
                store: Arc::clone(&parts.remote) as Arc<dyn Store>,
                fallback: parts.remote.fallback().cloned(),
                background: Background {
                    memory,
                    redis: Some(parts),
                },
            })
        }
        (StoreKind::Redis, None) => Err(AppError::Store("--store redis needs --redis-url".into())),
    }
}

fn open_redis(
    settings: &StoreSettings,
    redis: &RedisSettings,
    bounds: Bounds,
    memory: &Arc<MemoryStore>,
    metrics: &Arc<Metrics>,
    clock: &Arc<dyn Clock>,
) -> Result<RedisParts, AppError> {
    let connect = |name, redis: &RedisSettings| {
        let redis = RedisSettings {
            key_prefix: settings.key_prefix.clone().into(),
            ..redis.clone()
        };
        let transport = RedisTransport::connect(&redis, settings.timeout, link_log::observer())
            .map_err(|error| AppError::Store(format!("Redis: {error}")))?;
        Ok::<_, AppError>(StoreMeter::new(transport, name, settings.timeout, &metrics.store))
    };
    let mut names = vec![REDIS];
    let mut transports = vec![connect(REDIS, redis)?];
    let mut server_of: fn(&Limit) -> usize = |_| 0;
    if let Some(redis) = &settings.redis_per_second {
        names.push(REDIS_PER_SECOND);
        transports.push(connect(REDIS_PER_SECOND, redis)?);
        // They are asked most and lost with the least harm.
        server_of = |limit| usize::from(limit.window_us == SECOND_US);
    }
    let options = Options {
        circuit: true,
        join: settings.coalesce,
        lease_keys: settings.lease.then_some(settings.memory_max_keys),
        denial_keys: settings.deny_cache.then_some(settings.deny_cache_max_keys),
        bounds,
        // No counter's key goes on like this.
        reset_log: Some(CounterKey::from_raw(&format!("{}resets", settings.key_prefix))),
        ..Options::plain(settings.timeout)
    };
    let local = Local {
        memory: Arc::clone(memory),
        replicas: settings.replicas,
    };
    let remote = Remote::new(transports, server_of, &options, Some(local), Arc::clone(clock));
    let stats = Arc::downgrade(&remote);
    metrics.register(Box::new(PipelineCollector::new(move || {
        Some(stats.upgrade()?.stats())
    })?))?;
    let probe = probe(&settings.key_prefix).map_err(|error| AppError::Store(error.to_string()))?;
    Ok(RedisParts { remote, names, probe })
}

fn bounds(ablation: &Ablation) -> Bounds {
    let checks = if ablation.no_batching { 1 } else { MAX_CHECKS };
    Bounds {
        checks,
        ..Bounds::default()
    }
}

/// Opens connections beside the pipeline's, for what takes its time.
pub(super) fn opener(settings: &StoreSettings) -> Option<OpenRedis> {
    let redis = settings.redis.clone().filter(|_| settings.kind == StoreKind::Redis)?;
    let redis = RedisSettings { pool_size: 1, ..redis };
    Some(Box::new(move || {
        RedisTransport::connect(&redis, SLOW, link_log::observer())
    }))
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
    /// Waits until the servers have answered once, for [`WARM_UP`] at most: the first requests are not to meet connections
    /// that are still being made. A server that is away delays a start no longer.
    pub(super) async fn warm_up(&self) {
        let Some(RedisParts { remote, names, probe }) = &self.redis else {
            return;
        };
        let probe = probe.clone().into_ops();
        let answered = async {
            for server in 0..names.len() {
                let is_connected = || {
                    remote
                        .transport(server)
                        .is_some_and(|transport| transport.inner().is_connected())
                };
                while !is_connected() || !remote.probe(server, &probe).await {
                    tokio::time::sleep(WARM_UP_STEP).await;
                }
            }
        };
        if tokio::time::timeout(WARM_UP, answered).await.is_err() {
            tracing::warn!(waited = ?WARM_UP, "Redis has not answered yet: serving without it until it does");
        }
    }

    /// Starts what must run while the process serves; what is to be done before it ends.
    pub(super) fn spawn(
        self,
        tasks: &mut JoinSet<()>,
        metrics: &Arc<Metrics>,
        activity: &Arc<Activity>,
        health: &Health,
        stop: &CancellationToken,
    ) -> Unsent {
        tasks.spawn(memory::sweep_forever(Arc::downgrade(&self.memory)));
        tasks.spawn(copy_stats(self.memory, Arc::clone(metrics), stop.clone()));
        let Some(RedisParts { remote, names, probe }) = self.redis else {
            return Unsent(None);
        };
        // What health needs must have answered once.
        let needs_all = health.conditions().needs_store;
        let away = Arc::new(AtomicUsize::new(if needs_all { names.len() } else { 0 }));
        remote.spawn(tasks, &probe);
        for (server, name) in names.into_iter().enumerate() {
            let Some(circuit) = remote.circuit(server) else {
                continue;
            };
            if needs_all {
                let (remote, health, away) = (Arc::downgrade(&remote), health.clone(), Arc::clone(&away));
                tasks.spawn(wait_for_answer(remote, server, probe.clone(), health, away));
            }
            let gauge = metrics.failure_mode.with_label_values(&[name]);
            let told = Told {
                gauge,
                health: health.clone(),
                activity: Arc::clone(activity),
                away: Arc::clone(&away),
            };
            tasks.spawn(tell_failure_mode(circuit, name, told));
        }
        Unsent(Some(remote))
    }
}

/// What Redis has still to be told: hits that it has not counted, or should not have.
pub(super) struct Unsent(Option<Arc<Pipeline>>);

impl Unsent {
    /// Sends it, by `deadline` at the latest.
    pub(super) async fn send(self, deadline: Instant) {
        let Some(remote) = self.0 else { return };
        let sent = async {
            loop {
                remote.flush(FLUSH).await;
                if remote.stats().corrections == 0 {
                    return;
                }
                tokio::time::sleep(FLUSH).await;
            }
        };
        if tokio::time::timeout_at(deadline, sent).await.is_err() {
            tracing::error!(
                corrections = remote.stats().corrections,
                "the process ends before Redis has been told of hits that were admitted, or given back, while it was away: its \
                 counters stay too low, or too high, by them"
            );
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
async fn wait_for_answer(
    remote: Weak<Pipeline>,
    server: usize,
    probe: Transaction,
    health: Health,
    away: Arc<AtomicUsize>,
) {
    let probe = probe.into_ops();
    loop {
        let Some(remote) = remote.upgrade() else { return };
        if remote.probe(server, &probe).await {
            break;
        }
        drop(remote);
        tokio::time::sleep(FIRST_ANSWER_EVERY).await;
    }
    away.fetch_sub(1, Ordering::SeqCst);
    health.update(|conditions| conditions.store_answers = away.load(Ordering::SeqCst) == 0);
}

/// Who hears of the failure mode.
struct Told {
    gauge: IntGauge,
    health: Health,
    activity: Arc<Activity>,
    /// Servers that do not answer.
    away: Arc<AtomicUsize>,
}

/// Logs, counts and shows when the failure mode takes over and when it ends; once each.
async fn tell_failure_mode(mut state: watch::Receiver<CircuitState>, server: &'static str, told: Told) {
    let Told {
        gauge,
        health,
        activity,
        away,
    } = told;
    gauge.set(0);
    loop {
        let state_now = state.borrow_and_update().clone();
        let failing = !matches!(state_now, CircuitState::Closed { .. });
        if (gauge.get() == 1) != failing {
            gauge.set(i64::from(failing));
            if failing {
                away.fetch_add(1, Ordering::SeqCst);
            } else {
                away.fetch_sub(1, Ordering::SeqCst);
            }
            // Read under health's lock, so that whoever comes last sees all.
            health.update(|conditions| conditions.store_answers = away.load(Ordering::SeqCst) == 0);
            activity.events.send(Event::Circuit {
                store: server.to_owned(),
                open: failing,
            });
            match state_now {
                CircuitState::Open { why, .. } => {
                    tracing::error!(server, error = %why, "Redis does not answer: the failure mode takes over");
                }
                CircuitState::Reconciling => {}
                // As loud as its beginning: whoever hears of that must hear of this.
                CircuitState::Closed { .. } => tracing::warn!(server, "Redis answers again: the failure mode ends"),
            }
        }
        if state.changed().await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ManualClock;
    use crate::store::StoreError;

    #[tokio::test(start_paused = true)]
    async fn the_shortest_outage_is_told_when_it_begins_and_when_it_ends() {
        let closed = CircuitState::Closed { failures: 0 };
        let (circuit, state) = watch::channel(closed.clone());
        let activity = Arc::new(Activity::new(false, Arc::new(ManualClock::new(0))));
        let mut events = activity.events.subscribe();
        let told = Told {
            gauge: IntGauge::new("failing", "failing").unwrap(),
            health: Health::new(false),
            activity,
            away: Arc::default(),
        };
        tokio::spawn(tell_failure_mode(state, REDIS, told));
        let open = CircuitState::Open {
            failed: tokio::time::Instant::now(),
            why: StoreError::Timeout(SLOW),
        };
        for (state, is_open) in [(open, true), (CircuitState::Reconciling, true), (closed, false)] {
            let is_news = state != CircuitState::Reconciling;
            circuit.send_replace(state);
            let told = tokio::time::timeout(SLOW, events.recv()).await;
            assert_eq!(told.is_ok(), is_news, "{is_open}");
            if let Ok(told) = told {
                assert!(matches!(told, Ok(Event::Circuit { store, open }) if store == REDIS && open == is_open));
            }
        }
    }
}
