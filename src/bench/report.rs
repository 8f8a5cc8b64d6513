//! What a run came to: counts and latencies, as text and as JSON.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

use super::BenchError;
use super::answer::Answer;

/// Latencies are kept from a microsecond to a minute, to three digits.
const LATENCY_MAX_NS: u64 = 60_000_000_000;

/// One thread's counts.
#[derive(Debug)]
pub struct Tally {
    latency_ns: Histogram<u64>,
    ok: u64,
    over_limit: u64,
    unknown: u64,
    errors: BTreeMap<String, u64>,
    /// Calls answered or failed since the start, warm-up included.
    pub total: u64,
    /// For each allowed call since the start, when it was sent and answered (µs); only when asked for.
    pub admissions: Option<Vec<(u64, u64)>>,
}

impl Tally {
    /// Empty counts.
    ///
    /// # Errors
    /// When the histogram cannot be made.
    pub fn new(keep_admissions: bool) -> Result<Self, BenchError> {
        Ok(Self {
            latency_ns: Histogram::new_with_bounds(1000, LATENCY_MAX_NS, 3)
                .map_err(|e| BenchError::Runtime(e.to_string()))?,
            ok: 0,
            over_limit: 0,
            unknown: 0,
            errors: BTreeMap::new(),
            total: 0,
            admissions: keep_admissions.then(Vec::new),
        })
    }

    /// Counts a measured call.
    pub fn record(&mut self, answer: &Answer, latency: Duration) {
        match answer {
            Answer::Ok | Answer::Held(_) => self.ok += 1,
            Answer::OverLimit => self.over_limit += 1,
            Answer::Unknown => self.unknown += 1,
            Answer::Failed(why) => {
                self.fail(why);
                return;
            }
        }
        let ns = u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX);
        self.latency_ns.saturating_record(ns);
    }

    /// Counts a failure.
    pub fn fail(&mut self, why: &str) {
        match self.errors.get_mut(why) {
            Some(count) => *count += 1,
            None => {
                self.errors.insert(why.to_owned(), 1);
            }
        }
    }

    /// Adds another thread's counts.
    ///
    /// # Errors
    /// When the histograms do not fit together, which those made by [`Tally::new`] do.
    pub fn merge(&mut self, other: Self) -> Result<(), BenchError> {
        self.latency_ns
            .add(&other.latency_ns)
            .map_err(|e| BenchError::Runtime(e.to_string()))?;
        self.ok += other.ok;
        self.over_limit += other.over_limit;
        self.unknown += other.unknown;
        self.total += other.total;
        for (why, count) in other.errors {
            *self.errors.entry(why).or_default() += count;
        }
        if let (Some(mine), Some(theirs)) = (&mut self.admissions, other.admissions) {
            mine.extend(theirs);
        }
        Ok(())
    }

    /// The report on these counts, over `measured`.
    #[must_use]
    pub fn report(&self, measured: Duration) -> Report {
        let at = |percent: f64| micros(self.latency_ns.value_at_quantile(percent / 100.0));
        let calls = self.ok + self.over_limit + self.unknown;
        Report {
            seconds: measured.as_secs_f64(),
            calls,
            #[allow(clippy::cast_precision_loss, reason = "counts of calls stay far below 2^53")]
            calls_per_second: calls as f64 / measured.as_secs_f64().max(f64::MIN_POSITIVE),
            ok: self.ok,
            over_limit: self.over_limit,
            unknown: self.unknown,
            errors: self.errors.clone(),
            unsent: 0,
            total_calls: self.total,
            latency_us: Latency {
                mean: self.latency_ns.mean() / 1000.0,
                p50: at(50.0),
                p90: at(90.0),
                p99: at(99.0),
                p999: at(99.9),
                max: micros(self.latency_ns.max()),
            },
            cpu: Vec::new(),
            client_cpu_us_per_call: 0.0,
        }
    }
}

#[allow(clippy::cast_precision_loss, reason = "latencies are bounded by LATENCY_MAX_NS")]
fn micros(ns: u64) -> f64 {
    ns as f64 / 1000.0
}

/// The result of a run.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// Length of the measurement, without warm-up.
    pub seconds: f64,
    /// Calls that got a decision.
    pub calls: u64,
    /// Decisions per second.
    pub calls_per_second: f64,
    /// Overall code OK.
    pub ok: u64,
    /// Overall code `OVER_LIMIT`.
    pub over_limit: u64,
    /// Another overall code.
    pub unknown: u64,
    /// Calls without a decision, by cause.
    pub errors: BTreeMap<String, u64>,
    /// With a rate: calls that were due and never sent, because all streams were busy.
    pub unsent: u64,
    /// All calls since the start, warm-up included.
    pub total_calls: u64,
    /// Latency in microseconds; with a rate, from the scheduled moment.
    pub latency_us: Latency,
    /// CPU time of the processes that were asked for.
    pub cpu: Vec<ProcessCpu>,
    /// CPU time of the load generator itself per call (µs).
    pub client_cpu_us_per_call: f64,
}

/// Latency in microseconds.
#[derive(Debug, Clone, Serialize)]
#[allow(missing_docs, reason = "the names say it")]
pub struct Latency {
    pub mean: f64,
    pub p50: f64,
    pub p90: f64,
    pub p99: f64,
    pub p999: f64,
    pub max: f64,
}

/// CPU time of a process during the measurement.
#[derive(Debug, Clone, Serialize)]
pub struct ProcessCpu {
    /// Process id.
    pub pid: u32,
    /// CPU seconds, user and system.
    pub seconds: f64,
    /// CPU microseconds per decision.
    pub us_per_call: f64,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let l = &self.latency_us;
        writeln!(
            f,
            "throughput   {:.0}/s  ({} decisions in {:.1} s)",
            self.calls_per_second, self.calls, self.seconds
        )?;
        writeln!(
            f,
            "latency      p50 {:.0} µs  p90 {:.0} µs  p99 {:.0} µs  p99.9 {:.0} µs  max {:.0} µs",
            l.p50, l.p90, l.p99, l.p999, l.max
        )?;
        write!(f, "answers      OK {}", self.ok)?;
        write!(f, "  OVER_LIMIT {}", self.over_limit)?;
        if self.unknown > 0 {
            write!(f, "  UNKNOWN {}", self.unknown)?;
        }
        writeln!(f, "  errors {}", self.errors.values().sum::<u64>())?;
        for (why, count) in &self.errors {
            writeln!(f, "  {count} × {why}")?;
        }
        if self.unsent > 0 {
            writeln!(
                f,
                "unsent       {} calls were due and found every stream busy: the rate is above what the server takes",
                self.unsent
            )?;
        }
        for cpu in &self.cpu {
            writeln!(
                f,
                "cpu          process {}: {:.2} µs per decision ({:.2} s)",
                cpu.pid, cpu.us_per_call, cpu.seconds
            )?;
        }
        write!(
            f,
            "cpu          this load generator: {:.2} µs per decision",
            self.client_cpu_us_per_call
        )
    }
}
