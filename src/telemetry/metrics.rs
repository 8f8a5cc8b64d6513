//! Metrics of the process, through the `prometheus` library.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use prometheus::core::Collector;
use prometheus::proto::{LabelPair, MetricFamily};
use prometheus::{Encoder, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Registry, TextEncoder};

use super::config_metrics::ConfigMetrics;
use super::edges::EdgeMetrics;
use super::holds::HoldMetrics;
use super::plan_metrics::PlanMetrics;
use super::ports::{AllPorts, PortMetrics};
use super::registrar::Registrar;
use super::rlqs::RlqsMetrics;
use super::rule_stats::{RuleStatsCollector, RuleStatsRegistry};
use super::services::{AllServices, ServiceKind, ServiceMetrics};
use super::store_meter::StoreMetrics;
use super::uncounted::{Uncounted, Watched};
use crate::model::Clock;

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
    /// What becomes of holds.
    pub holds: HoldMetrics,
    /// Plans from outside of the rules.
    pub plans: PlanMetrics,
    /// Quotas that Envoys enforce themselves.
    pub rlqs: RlqsMetrics,
    services: AllServices,
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
    ports: AllPorts,
    /// Requests refused for their form, by what was wrong.
    pub bad_requests: IntCounterVec,
    /// Keys that the memory store holds.
    pub memory_keys: IntGauge,
    /// Keys that the memory store dropped to stay in its bound.
    pub memory_evictions: IntCounter,
    /// The configuration in force.
    pub config: ConfigMetrics,
    /// Requests that only `SHADOW_MODE` let pass.
    pub global_shadow_mode: IntCounter,
    /// Requests for a domain that no rules have. Without its name, which comes from requests.
    pub unknown_domain: IntCounter,
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
    pub fn with_tags(tags: &BTreeMap<String, String>) -> prometheus::Result<Self> {
        let tag = |(name, value): (&String, &String)| {
            let mut pair = LabelPair::default();
            pair.set_name(name.clone());
            pair.set_value(value.clone());
            pair
        };
        let tags = tags.iter().map(tag).collect();
        let registry = Registry::new();
        let r = Registrar(&registry);
        let rules = Arc::new(RuleStatsRegistry::new()?);
        registry.register(Box::new(RuleStatsCollector(Arc::clone(&rules))))?;
        let build = r.gauges("sluicegate_build_info", "The version that runs", &["version"])?;
        build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        Ok(Self {
            tags,
            rules,
            edges: EdgeMetrics::new(&registry)?,
            holds: HoldMetrics::new(r)?,
            plans: PlanMetrics::new(r)?,
            rlqs: RlqsMetrics::new(r)?,
            services: AllServices::new(r)?,
            store: StoreMetrics::new(r)?,
            failure_mode: r.gauges(
                "sluicegate_failure_mode",
                "1 while the failure mode answers for the store",
                &["store"],
            )?,
            failure_mode_decisions: r.counters(
                "sluicegate_failure_mode_decisions_total",
                "Requests that the failure mode decided",
                &["mode"],
            )?,
            shed: r.counter("sluicegate_shed_total", "Requests answered at once because of overload")?,
            log_lines_dropped: r.counter(
                "sluicegate_log_lines_dropped_total",
                "Log lines dropped because nobody read them in time",
            )?,
            trace_spans: r.counters(
                "sluicegate_trace_spans_total",
                "Spans that were sent, failed to be, or were dropped because too many waited",
                &["result"],
            )?,
            bad_requests: r.counters(
                "sluicegate_bad_requests_total",
                "Requests refused for their form",
                &["reason"],
            )?,
            memory_keys: r.gauge(
                "sluicegate_memory_keys",
                "Counters held in memory; with Redis, those that stand by for it",
            )?,
            memory_evictions: r.counter(
                "sluicegate_memory_evictions_total",
                "Live counters dropped from memory to stay in the bound",
            )?,
            ports: AllPorts::new(r)?,
            config: ConfigMetrics::new(r)?,
            global_shadow_mode: r.counter(
                "ratelimit_service_global_shadow_mode",
                "Requests that only SHADOW_MODE let pass",
            )?,
            unknown_domain: r.counter("sluicegate_unknown_domain_total", "Requests for unknown domains")?,
            registry,
        })
    }

    /// The counters of one interface.
    #[must_use]
    pub const fn service(&self, kind: ServiceKind) -> &ServiceMetrics {
        self.services.of(kind)
    }

    /// The counters of a port's connections; `port` is one of a few fixed words.
    #[must_use]
    pub fn port(&self, port: &'static str) -> PortMetrics {
        self.ports.of(port, &self.edges)
    }

    /// Watches what passes uncounted, or is counted otherwise than configured.
    #[must_use]
    pub fn uncounted(&self, clock: Arc<dyn Clock>) -> Uncounted {
        let edges = &self.edges;
        let watched = vec![
            Watched::counter("sluicegate_shed_total", &self.shed),
            Watched::counters("sluicegate_bad_requests_total", &self.bad_requests, None),
            Watched::counters("sluicegate_unserved_calls_total", &edges.unserved, None),
            Watched::counter("sluicegate_http2_protocol_errors_total", &edges.protocol_errors),
            Watched::counters(
                "sluicegate_connections_closed_total",
                &self.ports.closed,
                Some(("port", "grpc")),
            ),
            Watched::counters(
                "sluicegate_client_address_fallbacks_total",
                &edges.client_not_named,
                None,
            ),
            Watched::counter("sluicegate_forgotten_charges_total", &edges.forgotten_charges),
            Watched::counter("sluicegate_unnoted_denials_total", &edges.unnoted_denials),
            Watched::counter(
                "sluicegate_hold_hits_total{result=\"expired\"}",
                self.holds.expired_hits(),
            ),
            Watched::counter("sluicegate_memory_evictions_total", &self.memory_evictions),
        ];
        Uncounted::new(watched, clock)
    }

    /// Counts a failed request under the name that existing dashboards use; `kind` is `redis_error` or
    /// `service_error`.
    pub fn compat_error(&self, kind: &str) {
        self.services.compat_error(kind);
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

    /// Registers a collector of another module.
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
