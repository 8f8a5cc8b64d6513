//! Puts the store together: layers from the outside in.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::admin::Health;
use crate::config::settings::{Settings, StoreKind};
use crate::engine::LocalFallback;
use crate::model::Clock;
use crate::store::Store;
use crate::store::memory::{MemoryStore, sweep_forever};
use crate::telemetry::Metrics;

use super::AppError;

/// How often the memory store's numbers are copied into the metrics.
const STATS_INTERVAL: Duration = Duration::from_secs(1);

/// What the engine gets.
pub(super) struct Stack {
    pub store: Arc<dyn Store>,
    pub fallback: Option<LocalFallback>,
    pub background: Background,
}

/// What runs beside it.
pub(super) struct Background {
    memory: Arc<MemoryStore>,
}

/// Opens the store. A Redis that is away is no error: the failure mode answers until it comes.
pub(super) fn open(settings: &Settings, _metrics: &Arc<Metrics>, clock: &Arc<dyn Clock>) -> Result<Stack, AppError> {
    let max_keys = NonZeroUsize::new(settings.store.memory_max_keys).unwrap_or(NonZeroUsize::MIN);
    let memory = Arc::new(MemoryStore::new(max_keys, Arc::clone(clock)));
    let background = Background {
        memory: Arc::clone(&memory),
    };
    match settings.store.kind {
        StoreKind::Memory => Ok(Stack {
            store: memory,
            fallback: None,
            background,
        }),
        StoreKind::Redis => Err(AppError::Store("redis is not here yet".into())),
    }
}

impl Background {
    /// Starts what must run while the process serves.
    pub(super) fn spawn(
        self,
        tasks: &mut JoinSet<()>,
        metrics: &Arc<Metrics>,
        _health: &Health,
        stop: &CancellationToken,
    ) {
        let (memory, metrics, stop) = (self.memory, Arc::clone(metrics), stop.clone());
        tasks.spawn(sweep_forever(Arc::downgrade(&memory)));
        tasks.spawn(async move {
            let mut evicted = 0;
            while !stop.is_cancelled() {
                let stats = memory.stats();
                metrics.memory_keys.set(i64::try_from(stats.keys).unwrap_or(i64::MAX));
                metrics.memory_evictions.inc_by(stats.evicted - evicted);
                evicted = stats.evicted;
                tokio::time::sleep(STATS_INTERVAL).await;
            }
        });
    }
}
