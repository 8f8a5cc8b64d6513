//! Logs, metrics and traces. Labels come from rules and from fixed words, never from request values (but for rules that ask
//! for `detailed_metric`, and then bounded).

pub mod activity;
mod compat;
pub mod config_metrics;
mod detailed;
pub mod edges;
pub mod holds;
mod json_lines;
pub(crate) mod labels;
pub mod logs;
pub mod metrics;
mod pipeline;
mod plain;
mod plan_metrics;
pub mod ports;
mod registrar;
pub mod rlqs;
pub mod rule_stats;
mod series;
pub mod services;
pub mod statsd;
pub mod store_meter;
pub mod throttle;
pub mod traces;
mod uncounted;

pub use activity::Activity;
pub use edges::EdgeMetrics;
pub use holds::HoldMetrics;
pub use metrics::Metrics;
pub use pipeline::PipelineCollector;
pub use ports::PortMetrics;
pub use rlqs::{QuotaHits, RlqsMetrics};
pub use rule_stats::RuleStatsRegistry;
pub use series::{CandidateStats, RuleStats};
pub use services::ServiceKind;
pub use traces::{CallSpan, Traces};
pub use uncounted::Uncounted;
