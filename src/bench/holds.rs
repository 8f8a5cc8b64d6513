//! What many open holds cost a process: memory, and the longest time that one call takes among them.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use hdrhistogram::Histogram;
use rand::SeedableRng;
use rand::rngs::SmallRng;
use rand::seq::SliceRandom;
use serde::Serialize;

use super::memory::{check, resident_bytes};
use super::{BenchError, cpu};
use crate::algorithms::limit::{LimitSpec, build};
use crate::model::{AlgorithmKind, Clock as _, Hits, HoldId, ManualClock, Transaction, Unit, Window};
use crate::store::Store;
use crate::store::memory::MemoryStore;

/// Hits that each keeps.
const HITS: u64 = 500;
/// How long they may be open, in microseconds.
const TTL_US: u64 = 600_000_000;
/// Between two of them, in microseconds: all are made within a tenth of their ttl.
const STEP_US: u64 = 500;

/// Opens holds in the memory store, settles them in another order, and reports what that costs.
#[derive(Debug, Clone, Args)]
pub struct HoldsArgs {
    /// Holds.
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    pub holds: u64,
    /// Counters that they are spread over.
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    pub keys: u64,
}

/// What was found.
#[derive(Debug, Clone, Serialize)]
pub struct HoldsReport {
    /// Holds.
    pub holds: u64,
    /// Growth of this process' resident memory while all were open.
    pub resident_bytes: u64,
    /// CPU time of a call that holds.
    pub hold_ns: CallNs,
    /// CPU time of a call that settles, while most of them are open.
    pub settle_ns: CallNs,
}

/// CPU time of a call, in nanoseconds: what else runs on the machine is not in it.
#[derive(Debug, Clone, Serialize)]
pub struct CallNs {
    /// Half of the calls take no longer.
    pub p50: u64,
    /// The same of 99.9 %.
    pub p999: u64,
    /// The longest.
    pub max: u64,
}

/// Measures.
///
/// # Errors
/// When a hold is not granted, or the process cannot be read.
pub async fn run(args: &HoldsArgs) -> Result<HoldsReport, BenchError> {
    let limit = build(&LimitSpec {
        hold_us: Some(TTL_US),
        ..LimitSpec::new(AlgorithmKind::SlidingWindow, 4_000_000_000, Window::of(Unit::Hour))
    })
    .map_err(|error| BenchError::Argument(error.to_string()))?;
    let clock = Arc::new(ManualClock::new(1_763_000_000_000_000));
    let room = usize::try_from(args.keys * 2).ok().and_then(NonZeroUsize::new);
    let mut open: Vec<_> = (0..args.holds).map(|number| (number, id(&clock, number))).collect();
    let mut times = times()?;
    let before = resident_bytes()?;
    let store = MemoryStore::new(room.unwrap_or(NonZeroUsize::MIN), Arc::clone(&clock) as _);
    for (number, id) in &open {
        let hits = Hits::Hold { hits: HITS, id: *id };
        call(&store, &check(*number % args.keys, limit, hits), &mut times).await?;
        clock.advance(STEP_US);
    }
    let grown = resident_bytes()?.saturating_sub(before);
    let hold_ns = CallNs::of(&times);
    times.reset();
    open.shuffle(&mut SmallRng::seed_from_u64(1));
    for (number, id) in &open {
        let hits = Hits::Settle { hits: 1, id: *id };
        call(&store, &check(*number % args.keys, limit, hits), &mut times).await?;
    }
    Ok(HoldsReport {
        holds: args.holds,
        resident_bytes: grown,
        hold_ns,
        settle_ns: CallNs::of(&times),
    })
}

fn id(clock: &ManualClock, number: u64) -> HoldId {
    let now_us = clock.now_us() + number * STEP_US;
    HoldId::new(now_us, [7; 9])
}

async fn call(store: &MemoryStore, transaction: &Transaction, times: &mut Histogram<u64>) -> Result<(), BenchError> {
    let began = cpu::of_thread();
    let outcomes = store.check(transaction).await;
    let took = cpu::of_thread().saturating_sub(began);
    times.saturating_record(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX));
    let outcomes = outcomes.map_err(|error| BenchError::Runtime(error.to_string()))?;
    if outcomes.iter().all(|outcome| outcome.allowed && outcome.holds.own > 0) {
        return Ok(());
    }
    Err(BenchError::Runtime(
        "a hold was not granted, or not known when it was settled".to_owned(),
    ))
}

fn times() -> Result<Histogram<u64>, BenchError> {
    let most = u64::try_from(Duration::from_secs(1).as_nanos()).unwrap_or(u64::MAX);
    Histogram::new_with_bounds(1, most, 3).map_err(|error| BenchError::Runtime(error.to_string()))
}

impl CallNs {
    fn of(times: &Histogram<u64>) -> Self {
        Self {
            p50: times.value_at_quantile(0.5),
            p999: times.value_at_quantile(0.999),
            max: times.max(),
        }
    }
}
