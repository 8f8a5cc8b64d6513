//! Logs, metrics and traces. Labels come from rules and from fixed words, never from request values (but for rules that ask
//! for `detailed_metric`, and then bounded).

pub mod activity;
mod compat;
mod detailed;
pub mod edges;
mod json_lines;
pub(crate) mod labels;
pub mod logs;
pub mod metrics;
mod pipeline;
mod plain;
pub mod rule_stats;
pub mod statsd;
pub mod store_meter;
pub mod throttle;
pub mod traces;

pub use activity::Activity;
pub use edges::EdgeMetrics;
pub use metrics::{Metrics, PortMetrics, ServiceKind};
pub use pipeline::PipelineCollector;
pub use rule_stats::{RuleStats, RuleStatsRegistry};
pub use traces::{CallSpan, Traces};
