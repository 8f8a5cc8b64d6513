//! `GET /api/v1/status`: this replica at a glance.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::State;
use serde::Serialize;

use crate::admin::health::Conditions;
use crate::config::settings::StoreKind;
use crate::telemetry::Metrics;
use crate::telemetry::activity::Reload;

use super::Api;

#[derive(Serialize)]
pub(super) struct Status {
    version: &'static str,
    uptime_seconds: u64,
    healthy: bool,
    /// What is not as it should be, in words; the first says why the process is not healthy.
    reasons: Vec<String>,
    conditions: Conditions,
    store: &'static str,
    on_store_error: &'static str,
    /// Replicas that share the limits, as configured.
    replicas: u32,
    shadow_mode: bool,
    quota_mode: bool,
    top: bool,
    masked: bool,
    /// Whether a token is configured, so that changes are possible at all.
    token: bool,
    stores: Vec<StoreView>,
    rules: RulesInForce,
    /// Newest last.
    reloads: Vec<Reload>,
    metrics: Vec<Metric>,
}

#[derive(Serialize)]
struct StoreView {
    name: String,
    /// The failure mode answers for it.
    failing: bool,
}

#[derive(Serialize)]
struct RulesInForce {
    loaded: bool,
    generation: u64,
    hash: String,
    domains: usize,
    rules: usize,
}

/// A gauge or counter of the process.
#[derive(Serialize)]
struct Metric {
    name: String,
    labels: BTreeMap<String, String>,
    value: f64,
}

pub(super) async fn status(State(api): State<Api>) -> Json<Status> {
    let shared = &api.0;
    let settings = &shared.settings;
    let conditions = shared.parts.health.conditions();
    let active = shared.parts.engine.active();
    let reloads = shared.parts.activity.events.reloads();
    Json(Status {
        version: env!("CARGO_PKG_VERSION"),
        uptime_seconds: shared.started.elapsed().as_secs(),
        healthy: conditions.healthy(),
        reasons: conditions.reasons(),
        conditions,
        store: match settings.store.kind {
            StoreKind::Memory => "memory",
            StoreKind::Redis => "redis",
        },
        on_store_error: settings.store.on_store_error.name(),
        replicas: settings.store.replicas,
        shadow_mode: settings.answers.shadow_mode,
        quota_mode: settings.answers.quota_mode,
        top: shared.parts.activity.top.is_some(),
        masked: shared.masker.masks(),
        token: shared.parts.token.is_some(),
        stores: stores(&shared.parts.metrics),
        rules: RulesInForce {
            loaded: active.is_some(),
            generation: active.as_ref().map_or(0, |active| active.generation),
            hash: reloads.last().map(|reload| reload.hash.clone()).unwrap_or_default(),
            domains: active.as_ref().map_or(0, |active| active.rules.domains.len()),
            rules: active.as_ref().map_or(0, |active| active.rules.rules.len()),
        },
        reloads,
        metrics: metrics(&shared.parts.metrics),
    })
}

/// The shared stores and whether they answer.
fn stores(metrics: &Metrics) -> Vec<StoreView> {
    let failing = metrics.failing_stores();
    failing
        .into_iter()
        .map(|(name, failing)| StoreView { name, failing })
        .collect()
}

fn metrics(metrics: &Metrics) -> Vec<Metric> {
    let mut all = Vec::new();
    for family in metrics.gather() {
        if !family.name().starts_with("sluicegate_") {
            continue;
        }
        // What would be as many as there are rules is told by `/rules`.
        let is_of_rule = |metric: &&prometheus::proto::Metric| metric.get_label().iter().any(|of| of.name() == "rule");
        for metric in family.get_metric().iter().filter(|metric| !is_of_rule(metric)) {
            let value = match family.get_field_type() {
                prometheus::proto::MetricType::COUNTER => metric.get_counter().get_value(),
                prometheus::proto::MetricType::GAUGE => metric.get_gauge().get_value(),
                _ => continue,
            };
            let label = |pair: &prometheus::proto::LabelPair| (pair.name().to_owned(), pair.value().to_owned());
            all.push(Metric {
                name: family.name().to_owned(),
                labels: metric.get_label().iter().map(label).collect(),
                value,
            });
        }
    }
    all
}
