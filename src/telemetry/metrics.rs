//! Metrics of the process, through the `prometheus` library.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use prometheus::{
    Encoder, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
    TextEncoder,
};

use prometheus::core::Collector;
use prometheus::proto::{LabelPair, MetricFamily};

use super::compat::GrpcPort;
use super::edges::EdgeMetrics;
use super::rule_stats::{RuleStatsCollector, RuleStatsRegistry};
use super::store_meter::StoreMetrics;

/// Seconds; fine where Envoy's 20 ms are decided.
pub(super) const LATENCY_BUCKETS: [f64; 14] = [
    0.000_025, 0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.015, 0.02, 0.05, 0.1, 1.0,
];

/// The interface through which a request came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServiceKind {
    /// `RateLimitService/ShouldRateLimit`.
    Rls,
    /// `Authorization/Check`.
    Authz,
    /// `POST /json`.
    Json,
}

/// The counters of one interface, looked up once.
#[derive(Debug)]
pub struct ServiceMetrics {
    /// Answered OK.
    pub ok: IntCounter,
    /// Answered OVER_LIMIT.
    pub over_limit: IntCounter,
    /// Answered with an error.
    pub error: IntCounter,
    /// Time from the request's arrival to its answer.
    pub duration: Histogram,
}

/// A port's connections.
#[derive(Debug, Clone)]
pub struct PortMetrics {
    /// Open now.
    pub open: IntGauge,
    /// Closed at once: at the limit, and no connection was idle.
    pub refused: IntCounter,
    /// Closed while idle, for a new one.
    pub evicted: IntCounter,
    /// Closed because the client exceeded a timeout.
    pub slow: IntCounter,
    /// Streams refused as malformed HTTP/2, of all ports.
    pub protocol_errors: IntCounter,
}

/// Everything that is counted besides the rules.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    /// `EXTRA_TAGS`
    pub(super) tags: Vec<LabelPair>,
    /// Each rule's counters.
    pub rules: Arc<RuleStatsRegistry>,
    /// What would otherwise change decisions silently.
    pub edges: EdgeMetrics,
    services: [ServiceMetrics; 3],
    /// Calls to shared stores.
    pub store: StoreMetrics,
    /// 1 while the failure mode answers for the store.
    pub failure_mode: IntGaugeVec,
    /// Descriptors that the failure mode decided, by mode.
    pub failure_mode_decisions: IntCounterVec,
    /// Requests refused at once because too many were under way.
    pub shed: IntCounter,
    /// Log lines that nobody read in time.
    pub log_lines_dropped: IntCounter,
    /// Spans that were sent, could not be, or were dropped because too many waited.
    pub trace_spans: IntCounterVec,
    connections: IntGaugeVec,
    connections_closed: IntCounterVec,
    /// Requests refused for their form, by what was wrong.
    pub bad_requests: IntCounterVec,
    /// Keys that the memory store holds.
    pub memory_keys: IntGauge,
    /// Keys that the memory store dropped to stay in its bound.
    pub memory_evictions: IntCounter,
    /// Counts up with each configuration in force.
    pub config_generation: IntGauge,
    /// Attempts to load a configuration.
    pub config_load: IntCounterVec,
    /// Whether the newest attempt succeeded.
    pub config_last_load_success: IntGauge,
    /// Rules in force.
    pub config_rules: IntGauge,
    config_info: IntGaugeVec,
    /// Requests that only `SHADOW_MODE` let pass.
    pub global_shadow_mode: IntCounter,
    /// Requests for a domain that no rules have. Without its name, which comes from requests.
    pub unknown_domain: IntCounter,
    compat_load_success: IntCounter,
    compat_load_error: IntCounter,
    compat_errors: IntCounterVec,
}

impl Metrics {
    /// All metrics, registered.
    ///
    /// # Errors
    /// When two metrics have one name; a mistake in this file.
    pub fn new() -> prometheus::Result<Self> {
        Self::with_tags(&BTreeMap::new())
    }

    /// The same with labels that every metric carries, unless it has one of that name itself.
    ///
    /// # Errors
    /// When two metrics have one name; a mistake in this file.
    #[allow(clippy::too_many_lines, reason = "a list")]
    pub fn with_tags(tags: &BTreeMap<String, String>) -> prometheus::Result<Self> {
        let tag = |(name, value): (&String, &String)| {
            let mut pair = LabelPair::default();
            pair.set_name(name.clone());
            pair.set_value(value.clone());
            pair
        };
        let tags = tags.iter().map(tag).collect();
        let registry = Registry::new();
        let r = &registry;
        let rules = Arc::new(RuleStatsRegistry::new()?);
        registry.register(Box::new(RuleStatsCollector(Arc::clone(&rules))))?;
        let requests = counters(
            r,
            "sluicegate_requests_total",
            "Requests answered",
            &["service", "code"],
        )?;
        let duration = histograms(
            r,
            "sluicegate_request_duration_seconds",
            "Time to answer a request",
            &["service"],
            &LATENCY_BUCKETS,
        )?;
        let service = |name: &str| ServiceMetrics {
            ok: requests.with_label_values(&[name, "ok"]),
            over_limit: requests.with_label_values(&[name, "over_limit"]),
            error: requests.with_label_values(&[name, "error"]),
            duration: duration.with_label_values(&[name]),
        };
        let services = [service("rls"), service("authz"), service("json")];
        let ServiceMetrics {
            ok,
            over_limit,
            error,
            duration,
        } = &services[0];
        let answered = [ok.clone(), over_limit.clone(), error.clone()];
        registry.register(Box::new(GrpcPort::new(answered, duration.clone())?))?;
        let build = gauges(r, "sluicegate_build_info", "The version that runs", &["version"])?;
        build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        Ok(Self {
            tags,
            rules,
            edges: EdgeMetrics::new(r)?,
            services,
            store: StoreMetrics::new(r)?,
            failure_mode: gauges(
                r,
                "sluicegate_failure_mode",
                "1 while the failure mode answers for the store",
                &["store"],
            )?,
            failure_mode_decisions: counters(
                r,
                "sluicegate_failure_mode_decisions_total",
                "Requests that the failure mode decided",
                &["mode"],
            )?,
            shed: counter(
                r,
                "sluicegate_shed_total",
                "Requests answered at once because of overload",
            )?,
            log_lines_dropped: counter(
                r,
                "sluicegate_log_lines_dropped_total",
                "Log lines dropped because nobody read them in time",
            )?,
            trace_spans: counters(
                r,
                "sluicegate_trace_spans_total",
                "Spans that were sent, failed to be, or were dropped because too many waited",
                &["result"],
            )?,
            connections: gauges(r, "sluicegate_connections", "Connections that are open", &["port"])?,
            connections_closed: counters(
                r,
                "sluicegate_connections_closed_total",
                "Connections closed for a bound: refused, evicted (unused, for a new one), slow",
                &["port", "reason"],
            )?,
            bad_requests: counters(
                r,
                "sluicegate_bad_requests_total",
                "Requests refused for their form",
                &["reason"],
            )?,
            memory_keys: gauge(
                r,
                "sluicegate_memory_keys",
                "Counters held in memory; with Redis, those that stand by for it",
            )?,
            memory_evictions: counter(
                r,
                "sluicegate_memory_evictions_total",
                "Live counters dropped from memory to stay in the bound",
            )?,
            config_generation: gauge(r, "sluicegate_config_generation", "Counts configurations in force")?,
            config_load: counters(r, "sluicegate_config_load_total", "Configuration loads", &["result"])?,
            config_last_load_success: gauge(
                r,
                "sluicegate_config_last_load_success",
                "Whether the newest configuration load succeeded",
            )?,
            config_rules: gauge(r, "sluicegate_config_rules", "Rules in force")?,
            config_info: gauges(
                r,
                "sluicegate_config_info",
                "Hash of the configuration in force; differs between replicas while they disagree",
                &["hash"],
            )?,
            global_shadow_mode: counter(
                r,
                "ratelimit_service_global_shadow_mode",
                "Requests that only SHADOW_MODE let pass",
            )?,
            unknown_domain: counter(r, "sluicegate_unknown_domain_total", "Requests for unknown domains")?,
            compat_load_success: counter(
                r,
                "ratelimit_service_config_load_success",
                "Configuration loads that succeeded",
            )?,
            compat_load_error: counter(
                r,
                "ratelimit_service_config_load_error",
                "Configuration loads that failed",
            )?,
            compat_errors: counters(
                r,
                "ratelimit_service_should_rate_limit_error",
                "Requests that ended in an error",
                &["err_type"],
            )?,
            registry,
        })
    }

    /// The counters of one interface.
    #[must_use]
    pub const fn service(&self, kind: ServiceKind) -> &ServiceMetrics {
        match kind {
            ServiceKind::Rls => &self.services[0],
            ServiceKind::Authz => &self.services[1],
            ServiceKind::Json => &self.services[2],
        }
    }

    /// The counters of a port's connections; `port` is one of a few fixed words.
    #[must_use]
    pub fn port(&self, port: &'static str) -> PortMetrics {
        let closed = |reason| self.connections_closed.with_label_values(&[port, reason]);
        PortMetrics {
            open: self.connections.with_label_values(&[port]),
            refused: closed("refused"),
            evicted: closed("evicted"),
            slow: closed("slow"),
            protocol_errors: self.edges.protocol_errors.clone(),
        }
    }

    /// Counts a failed request under the name that existing dashboards use; `kind` is `redis_error` or
    /// `service_error`.
    pub fn compat_error(&self, kind: &str) {
        self.compat_errors.with_label_values(&[kind]).inc();
    }

    /// A configuration is in force.
    pub fn config_loaded(&self, generation: u64, rules: usize, hash: &str) {
        self.config_load.with_label_values(&["success"]).inc();
        self.compat_load_success.inc();
        self.config_last_load_success.set(1);
        self.config_generation
            .set(i64::try_from(generation).unwrap_or(i64::MAX));
        self.config_rules.set(i64::try_from(rules).unwrap_or(i64::MAX));
        self.config_info.reset();
        self.config_info.with_label_values(&[hash]).set(1);
    }

    /// The shared stores, each with whether the failure mode answers for it.
    #[must_use]
    pub fn failing_stores(&self) -> Vec<(String, bool)> {
        let families = self.failure_mode.collect();
        let metrics = families.iter().flat_map(MetricFamily::get_metric);
        let store = |metric: &prometheus::proto::Metric| {
            let name = metric.get_label().first().map(|label| label.value().to_owned());
            (name.unwrap_or_default(), metric.get_gauge().get_value() > 0.0)
        };
        metrics.map(store).collect()
    }

    /// A configuration was refused.
    pub fn config_refused(&self) {
        self.config_load.with_label_values(&["error"]).inc();
        self.compat_load_error.inc();
        self.config_last_load_success.set(0);
    }

    /// Registers a collector of another room.
    ///
    /// # Errors
    /// When its names are taken.
    pub fn register(&self, collector: Box<dyn prometheus::core::Collector>) -> prometheus::Result<()> {
        self.registry.register(collector)
    }

    /// Every metric as it stands.
    #[must_use]
    pub fn gather(&self) -> Vec<MetricFamily> {
        let mut families = self.registry.gather();
        if self.tags.is_empty() {
            return families;
        }
        for metric in families.iter_mut().flat_map(|family| family.mut_metric().iter_mut()) {
            let mut labels = metric.take_label();
            for tag in &self.tags {
                if !labels.iter().any(|label| label.name() == tag.name()) {
                    labels.push(tag.clone());
                }
            }
            metric.set_label(labels);
        }
        families
    }

    /// The exposition for a scrape.
    ///
    /// # Errors
    /// When a metric cannot be encoded.
    pub fn encode(&self) -> prometheus::Result<Vec<u8>> {
        let mut text = Vec::with_capacity(16 * 1024);
        TextEncoder::new().encode(&self.gather(), &mut text)?;
        Ok(text)
    }
}

/// Seconds as Prometheus wants them.
#[must_use]
pub fn seconds(duration: Duration) -> f64 {
    duration.as_secs_f64()
}

pub(super) fn counters(
    registry: &Registry,
    name: &str,
    help: &str,
    labels: &[&str],
) -> prometheus::Result<IntCounterVec> {
    let vec = IntCounterVec::new(Opts::new(name, help), labels)?;
    registry.register(Box::new(vec.clone()))?;
    Ok(vec)
}

fn gauges(registry: &Registry, name: &str, help: &str, labels: &[&str]) -> prometheus::Result<IntGaugeVec> {
    let vec = IntGaugeVec::new(Opts::new(name, help), labels)?;
    registry.register(Box::new(vec.clone()))?;
    Ok(vec)
}

pub(super) fn histograms(
    registry: &Registry,
    name: &str,
    help: &str,
    labels: &[&str],
    buckets: &[f64],
) -> prometheus::Result<HistogramVec> {
    let vec = HistogramVec::new(HistogramOpts::new(name, help).buckets(buckets.to_vec()), labels)?;
    registry.register(Box::new(vec.clone()))?;
    Ok(vec)
}

fn counter(registry: &Registry, name: &str, help: &str) -> prometheus::Result<IntCounter> {
    let counter = IntCounter::new(name, help)?;
    registry.register(Box::new(counter.clone()))?;
    Ok(counter)
}

fn gauge(registry: &Registry, name: &str, help: &str) -> prometheus::Result<IntGauge> {
    let gauge = IntGauge::new(name, help)?;
    registry.register(Box::new(gauge.clone()))?;
    Ok(gauge)
}
