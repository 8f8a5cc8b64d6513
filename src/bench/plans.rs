//! What a large source of plans costs: memory, also while one table replaces another, how soon a changed line is in force, and
//! what requests notice of it that are decided meanwhile.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use clap::Args;
use hdrhistogram::Histogram;
use serde::Serialize;

use super::BenchError;
use super::memory::resident_bytes;
use crate::config::{Text, load};
use crate::engine::{Engine, EngineOptions};
use crate::model::{Clock, Descriptor, Entry, MonotonicClock, Request};
use crate::rules::plans::PlanSource;
use crate::rules::{Defaults, RuleSet};
use crate::sources::SourceKeeper;
use crate::store::memory::{DEFAULT_MAX_KEYS, MemoryStore};
use crate::telemetry::Metrics;

/// Tenants that ask; all others are only entered.
const ASKING: u64 = 1000;
/// Between two looks at the process' memory and whether a change is in force.
const LOOK: Duration = Duration::from_millis(1);
/// A change that is not in force then never will be.
const PATIENCE: Duration = Duration::from_secs(120);
/// How long the decisions between two changes are measured.
const CALM: Duration = Duration::from_secs(1);

/// Reads a source of so many tenants, changes a line of it again and again, and reports what that costs.
#[derive(Debug, Clone, Args)]
pub struct PlansArgs {
    /// Tenants with a plan.
    #[arg(long, default_value_t = 1_000_000)]
    pub tenants: u64,
    /// Changes of one line.
    #[arg(long, default_value_t = 10)]
    pub changes: u32,
}

/// What was found.
#[derive(Debug, Clone, Serialize)]
pub struct PlansReport {
    /// Tenants with a plan.
    pub tenants: u64,
    /// What the table says of itself.
    pub table_bytes: usize,
    /// Growth of this process' resident memory by the first reading.
    pub grown_bytes: u64,
    /// The most that it was larger than before that, while tables replaced one another.
    pub peak_bytes: u64,
    /// From the new file in its place to the change in force, of each change.
    pub in_force_ms: Vec<u64>,
    /// Decisions while nothing is read.
    pub calm: DecisionTimes,
    /// Decisions while tables are read and replaced.
    pub changing: DecisionTimes,
}

/// How long decisions took, in microseconds.
#[derive(Debug, Clone, Serialize)]
#[allow(missing_docs, reason = "each is its name")]
pub struct DecisionTimes {
    pub decisions: u64,
    pub p50: f64,
    pub p999: f64,
    pub max: f64,
    /// How many took longer than a millisecond.
    pub over_1ms: u64,
}

/// Measures.
///
/// # Errors
/// When a file cannot be written, or a change does not come into force.
pub fn run(args: &PlansArgs) -> Result<PlansReport, BenchError> {
    let directory = std::env::temp_dir().join(format!("sluicegate-bench-plans-{}", std::process::id()));
    let made = fs::create_dir(&directory).map_err(|error| failed(&directory, &error));
    let report = made.and_then(|()| measure(args, &directory));
    let _ = fs::remove_dir_all(&directory);
    report
}

fn measure(args: &PlansArgs, directory: &Path) -> Result<PlansReport, BenchError> {
    let path = directory.join("tenants.csv");
    write(&path, args.tenants, "free")?;
    let rules = Arc::new(rules(&path)?);
    let source = rules.sources.first().ok_or_else(|| other("no source"))?;
    let metrics = Arc::new(Metrics::new().map_err(other)?);
    let clock: Arc<dyn Clock> = Arc::new(MonotonicClock::new());
    let store = Arc::new(MemoryStore::new(DEFAULT_MAX_KEYS, Arc::clone(&clock)));
    let engine = Engine::new(store, None, EngineOptions::default(), clock, Arc::clone(&metrics));
    engine.activate(Arc::clone(&rules), 1);
    let (phase, ended) = (AtomicUsize::new(WARM), AtomicBool::new(false));
    thread::scope(|scope| {
        let deciding = scope.spawn(|| decide(&engine, &phase, &ended));
        thread::sleep(CALM);
        let found = changes(args, &path, (&rules, source, &metrics), &phase);
        ended.store(true, Relaxed);
        let [_, calm, changing] = deciding.join().map_err(|_| other("the deciding thread is gone"))??;
        let (mut report, _kept) = found?;
        (report.calm, report.changing) = (times(&calm), times(&changing));
        Ok(report)
    })
}

/// What is measured of decisions; positions of their histograms.
const WARM: usize = 0;
const CALMLY: usize = 1;
const CHANGING: usize = 2;

/// The first reading, and the changes after it.
fn changes(
    args: &PlansArgs,
    path: &Path,
    (rules, source, metrics): (&RuleSet, &Arc<PlanSource>, &Arc<Metrics>),
    phase: &AtomicUsize,
) -> Result<(PlansReport, SourceKeeper), BenchError> {
    let before = resident_bytes()?;
    let keeper = SourceKeeper::new(Arc::clone(metrics), None, |_| {});
    keeper.follow(rules);
    let rows = source.rows().ok_or_else(|| other("the source could not be read"))?;
    let table_bytes = rows.bytes();
    drop(rows);
    let grown_bytes = resident_bytes()?.saturating_sub(before);
    let (mut peak, mut in_force_ms) = (0, Vec::new());
    let new = path.with_extension("new");
    for change in 0..args.changes {
        phase.store(CALMLY, Relaxed);
        let plan = if change % 2 == 0 { "pro" } else { "free" };
        write(&new, args.tenants, plan)?;
        thread::sleep(CALM);
        phase.store(CHANGING, Relaxed);
        fs::rename(&new, path).map_err(|error| failed(path, &error))?;
        let start = Instant::now();
        while plan_of_last(source, args.tenants) != Some(plan.to_owned()) {
            if start.elapsed() > PATIENCE {
                return Err(other("a change does not come into force"));
            }
            peak = peak.max(resident_bytes()?);
            thread::sleep(LOOK);
        }
        in_force_ms.push(u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX));
        peak = peak.max(resident_bytes()?);
        // The table before is freed meanwhile.
        thread::sleep(CALM / 5);
    }
    let nothing = times(&histogram()?);
    let report = PlansReport {
        tenants: args.tenants,
        table_bytes,
        grown_bytes,
        peak_bytes: peak.saturating_sub(before),
        in_force_ms,
        calm: nothing.clone(),
        changing: nothing,
    };
    Ok((report, keeper))
}

fn plan_of_last(source: &PlanSource, tenants: u64) -> Option<String> {
    let rows = source.rows()?;
    let word = rows.word_of(tenant(tenants.saturating_sub(1)).as_bytes(), 0)?;
    match rows.words().get(word)? {
        crate::rules::plans::PlanWord::Plan(name) => Some(name.to_string()),
        crate::rules::plans::PlanWord::Own(_) => None,
    }
}

/// Asks as fast as one thread can, one request after the other.
fn decide(engine: &Engine, phase: &AtomicUsize, ended: &AtomicBool) -> Result<[Histogram<u64>; 3], BenchError> {
    let runtime = tokio::runtime::Builder::new_current_thread().build().map_err(other)?;
    let mut times = [histogram()?, histogram()?, histogram()?];
    let request = |number: u64| Request {
        domain: "bench".to_owned(),
        descriptors: vec![Descriptor {
            entries: vec![Entry {
                key: "tenant".to_owned(),
                value: tenant(number),
            }],
            ..Descriptor::default()
        }],
        ..Request::default()
    };
    let requests: Vec<Request> = (0..ASKING).map(request).collect();
    for request in requests.iter().cycle() {
        if ended.load(Relaxed) {
            break;
        }
        let start = Instant::now();
        runtime.block_on(engine.decide(request, None)).map_err(other)?;
        let took = u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX);
        if let Some(times) = times.get_mut(phase.load(Relaxed)) {
            times.saturating_record(took);
        }
    }
    Ok(times)
}

fn histogram() -> Result<Histogram<u64>, BenchError> {
    Histogram::new_with_max(60_000_000_000, 3).map_err(other)
}

#[allow(clippy::cast_precision_loss, reason = "far below 2^53")]
fn times(found: &Histogram<u64>) -> DecisionTimes {
    let micros = |nanos: u64| nanos as f64 / 1000.0;
    let within = found.count_between(0, 1_000_000);
    DecisionTimes {
        decisions: found.len(),
        p50: micros(found.value_at_quantile(0.5)),
        p999: micros(found.value_at_quantile(0.999)),
        max: micros(found.max()),
        over_1ms: found.len().saturating_sub(within),
    }
}

fn tenant(number: u64) -> String {
    format!("tenant-{number:012}")
}

/// A line for each tenant, and the last of them with this plan; piece by piece, since what is written counts as memory.
fn write(path: &Path, tenants: u64, plan_of_last: &str) -> Result<(), BenchError> {
    let written = || -> std::io::Result<()> {
        let mut file = BufWriter::new(File::create(path)?);
        for number in 0..tenants {
            let plan = if number + 1 == tenants { plan_of_last } else { "free" };
            writeln!(file, "{},{plan}", tenant(number))?;
        }
        file.flush()
    };
    written().map_err(|error| failed(path, &error))
}

fn rules(path: &Path) -> Result<RuleSet, BenchError> {
    let text = format!(
        "domain: bench\nplans:\n  free: {{ requests_per_unit: 4000000000, unit: hour }}\n  pro: {{ requests_per_unit: \
         4100000000, unit: hour }}\nsources:\n  tenants: {{ file: {} }}\ndescriptors:\n  - {{ key: tenant, rate_limit: {{ \
         plan_from: tenants, default: free }} }}\n",
        serde_json::Value::from(path.to_string_lossy())
    );
    let text = Text {
        name: "rules.yaml".into(),
        text: text.into(),
    };
    load(&[text], &Defaults::default()).map_err(other)
}

fn failed(path: &Path, error: &std::io::Error) -> BenchError {
    BenchError::Write {
        path: path.to_string_lossy().into_owned(),
        reason: error.to_string(),
    }
}

fn other(reason: impl ToString) -> BenchError {
    BenchError::Runtime(reason.to_string())
}
