//! What a counter costs in memory, everything counted: fills a store with counters in their largest ordinary state
//! (hits in every part of the window), on a clock of its own, and looks at the process.

use std::fs;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use serde::Serialize;

use super::BenchError;
use crate::algorithms::limit::{LimitSpec, build};
use crate::config::settings::{RedisSettings, values};
use crate::model::key::{Owner, Part, counter_key};
use crate::model::{
    AlgorithmKind, Check, CounterKey, Enforcement, Hits, Limit, ManualClock, MonotonicClock, Transaction, Unit, Window,
};
use crate::store::Store;
use crate::store::memory::MemoryStore;
use crate::store::redis::RedisTransport;
use crate::store::remote::Remote;

/// Transactions in one call.
const BATCH: usize = 128;
/// Calls under way at once.
const CALLS: usize = 16;
/// A generous bound: this is no latency measurement.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Times that every counter is hit in a window: once in every slice of the default precision.
const HITS_PER_WINDOW: u64 = 32;

/// Fills a store and reports what a counter costs.
#[derive(Debug, Clone, Args)]
pub struct MemoryArgs {
    /// Fills this Redis, which must be there for nothing else; by default the memory store. Whoever asks compares its
    /// used_memory.
    #[arg(long, value_name = "URL", value_parser = RedisSettings::from_url)]
    pub redis_url: Option<RedisSettings>,
    /// The algorithm.
    #[arg(long, default_value = "sliding_window", value_parser = values::algorithm)]
    pub algorithm: AlgorithmKind,
    /// Hits that a counter admits in a window of a minute.
    #[arg(long, default_value_t = 1000)]
    pub limit: u64,
    /// Counters.
    #[arg(long, default_value_t = 200_000)]
    pub keys: u64,
}

/// What was found.
#[derive(Debug, Clone, Serialize)]
pub struct MemoryReport {
    /// Counters.
    pub keys: u64,
    /// Growth of this process' resident memory.
    pub resident_bytes: u64,
    /// The same for each counter. Nothing useful where the counters are in Redis.
    pub bytes_per_key: f64,
}

/// Fills the store.
///
/// # Errors
/// When the store cannot be used, or refuses a hit: the filling would not be what it says.
pub async fn run(args: &MemoryArgs) -> Result<MemoryReport, BenchError> {
    let limit = build(&LimitSpec::new(args.algorithm, args.limit, Window::of(Unit::Minute)))
        .map_err(|error| BenchError::Argument(error.to_string()))?;
    let clock = Arc::new(ManualClock::new(crate::model::Clock::now_us(&MonotonicClock::new())));
    let before = resident_bytes()?;
    let store = open(args, &clock).await?;
    for _ in 0..HITS_PER_WINDOW {
        fill(&*store, args.keys, limit).await?;
        clock.advance(limit.window_us / HITS_PER_WINDOW);
    }
    let grown = resident_bytes()?.saturating_sub(before);
    #[allow(clippy::cast_precision_loss, reason = "far below 2^53")]
    let bytes_per_key = grown as f64 / args.keys.max(1) as f64;
    Ok(MemoryReport {
        keys: args.keys,
        resident_bytes: grown,
        bytes_per_key,
    })
}

async fn open(args: &MemoryArgs, clock: &Arc<ManualClock>) -> Result<Arc<dyn Store>, BenchError> {
    let Some(settings) = &args.redis_url else {
        // Room for twice as many, so that an uneven shard evicts nothing.
        let room = usize::try_from(args.keys * 2).ok().and_then(NonZeroUsize::new);
        let store = MemoryStore::new(room.unwrap_or(NonZeroUsize::MIN), Arc::clone(clock) as _);
        return Ok(Arc::new(store));
    };
    let redis = RedisTransport::with_clock(settings, TIMEOUT, Arc::new(|_| ()), Some(Arc::clone(clock) as _))
        .map_err(|error| BenchError::Argument(error.to_string()))?;
    let connected = async {
        while redis.connections().0 == 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(TIMEOUT, connected)
        .await
        .map_err(|_| BenchError::Runtime("Redis does not answer".to_owned()))?;
    Ok(Remote::plain(redis, TIMEOUT, Arc::clone(clock) as _))
}

/// One hit on each key.
async fn fill(store: &dyn Store, keys: u64, limit: Limit) -> Result<(), BenchError> {
    let numbers: Vec<u64> = (0..keys).collect();
    for calls in numbers.chunks(BATCH * CALLS) {
        let calls = calls.chunks(BATCH).map(|batch| async move {
            let transactions: Vec<_> = batch.iter().map(|&n| check(n, limit, Hits::Acquire(1))).collect();
            let failed = |why: &dyn std::fmt::Display| BenchError::Runtime(format!("a hit was not counted: {why}"));
            let answers = store.check_many(&transactions).await.map_err(|error| failed(&error))?;
            match answers.iter().flatten().all(|outcome| outcome.allowed) {
                true => Ok(()),
                false => Err(failed(&"it was denied; raise --limit")),
            }
        });
        futures::future::try_join_all(calls).await?;
    }
    Ok(())
}

/// One check of the counter of this number.
pub(super) fn check(number: u64, limit: Limit, hits: Hits) -> Transaction {
    let check = Check {
        key: key(number, &limit),
        limit,
        hits,
        enforcement: Enforcement::Enforce,
    };
    Transaction {
        checks: [check].into_iter().collect(),
        ..Transaction::default()
    }
}

fn key(number: u64, limit: &Limit) -> CounterKey {
    let value = format!("user-{number:010}");
    counter_key("", Owner::Rule, limit, "bench", [Part::Own("user", &value)])
}

/// Resident memory of this process (proc_pid_statm(5), field 2), on systems with pages of 4 KiB.
pub(super) fn resident_bytes() -> Result<u64, BenchError> {
    let refuse = |reason: String| BenchError::Runtime(format!("/proc/self/statm: {reason}"));
    let text = fs::read_to_string("/proc/self/statm").map_err(|error| refuse(error.to_string()))?;
    let pages = text
        .split_ascii_whitespace()
        .nth(1)
        .and_then(|field| field.parse::<u64>().ok());
    pages
        .map(|pages| pages * 4096)
        .ok_or_else(|| refuse("no number".to_owned()))
}
