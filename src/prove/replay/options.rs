//! What is asked of a replay.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use crate::rules::Defaults;

/// What to replay, and by what.
#[derive(Debug, Clone)]
pub struct Options {
    /// Rules files and directories.
    pub rules: Vec<PathBuf>,
    /// Rules to compare with; none if empty.
    pub against: Vec<PathBuf>,
    /// Envoy's configuration, if requests become descriptors by its routes.
    pub envoy: Option<PathBuf>,
    /// Its listener.
    pub listener: Option<String>,
    /// Name of the format, or a format string; `None` = by the first line.
    pub format: Option<String>,
    /// `name=path` of JSON lines.
    pub fields: Vec<String>,
    /// The authority of requests whose log has none.
    pub host: Option<String>,
    /// What is at most so late is set right, in microseconds.
    pub window_us: u64,
    /// Counters of each set of rules, at most.
    pub max_keys: NonZeroUsize,
    /// Share of denied requests, 0 to 1, for the advised limit.
    pub deny_share: f64,
    /// Keys of each rule in the report.
    pub top: usize,
    /// How rules are compiled.
    pub defaults: Defaults,
    /// `-` is the standard input.
    pub logs: Vec<PathBuf>,
}
