//! Prometheus families → statsd lines.

use std::collections::BTreeSet;

use prometheus::proto::{LabelPair, Metric, MetricFamily, MetricType};

/// What a line is about: a name, and (DogStatsD) tags.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Line {
    pub(super) name: String,
    pub(super) tags: Vec<(String, String)>,
    /// Tells the parts of a histogram apart; they go out under one name.
    part: u32,
}

/// What there is to say.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Value {
    /// All that was ever counted.
    Counter(u64),
    /// As it is.
    Gauge(f64),
    /// So many that took about so long.
    Times { millis: f64, count: u64 },
}

/// How names are written.
#[derive(Debug)]
pub(super) struct Names {
    dogstatsd: bool,
    /// Labels that every metric carries.
    everywhere: BTreeSet<String>,
}

impl Names {
    pub(super) const fn new(dogstatsd: bool, everywhere: BTreeSet<String>) -> Self {
        Self { dogstatsd, everywhere }
    }

    pub(super) fn lines(&self, families: &[MetricFamily]) -> Vec<(Line, Value)> {
        let mut lines = Vec::new();
        for family in families {
            for metric in family.get_metric() {
                let line = self.line(family.name(), metric.get_label());
                match family.get_field_type() {
                    MetricType::COUNTER => lines.push((line, Value::Counter(whole(metric.get_counter().get_value())))),
                    MetricType::GAUGE => lines.push((line, Value::Gauge(metric.get_gauge().get_value()))),
                    MetricType::HISTOGRAM => lines.extend(times(&line, metric)),
                    _ => {}
                }
            }
        }
        lines
    }

    fn line(&self, family: &str, labels: &[LabelPair]) -> Line {
        let (everywhere, own): (Vec<_>, Vec<_>) =
            labels.iter().partition(|label| self.everywhere.contains(label.name()));
        let (before, after) = of_family(family);
        let tag = |label: &&LabelPair| (clean(label.name()), clean(label.value()));
        if self.dogstatsd {
            let name = [before, after]
                .into_iter()
                .filter(|part| !part.is_empty())
                .collect::<Vec<_>>()
                .join(".");
            let tags = own.iter().chain(&everywhere).map(tag).collect();
            return Line { name, tags, part: 0 };
        }
        let values = own.iter().map(|label| clean(label.value()));
        let parts = std::iter::once(before.to_owned())
            .chain(values)
            .chain(Some(after.to_owned()));
        let mut name = parts.filter(|part| !part.is_empty()).collect::<Vec<_>>().join(".");
        for (label, value) in everywhere.iter().map(tag) {
            // As envoyproxy/ratelimit's library writes tags for servers that know none.
            name.push_str(&format!(".__{label}={value}"));
        }
        Line {
            name,
            tags: Vec::new(),
            part: 0,
        }
    }
}

/// What stands before and after the labels' values in a family's name.
pub(in crate::telemetry) fn of_family(family: &str) -> (&str, &str) {
    if let Some(counter) = family.strip_prefix("ratelimit_service_rate_limit_") {
        return ("ratelimit.service.rate_limit", counter);
    }
    if let Some(gauge) = family.strip_prefix("ratelimit_localcache_") {
        return ("ratelimit.localcache", gauge);
    }
    match family {
        "ratelimit_service_total_requests" => ("ratelimit_server", "total_requests"),
        "ratelimit_service_response_time_seconds" => ("ratelimit_server", "response_time"),
        "ratelimit_service_global_shadow_mode" => ("ratelimit.service.global_shadow_mode", ""),
        "ratelimit_service_config_load_success" => ("ratelimit.service.config_load_success", ""),
        "ratelimit_service_config_load_error" => ("ratelimit.service.config_load_error", ""),
        "ratelimit_service_should_rate_limit_error" => ("ratelimit.service.call.should_rate_limit", ""),
        ours => (ours, ""),
    }
}

/// A histogram's buckets, each as its bound and how many fell into it.
fn times(line: &Line, metric: &Metric) -> Vec<(Line, Value)> {
    let histogram = metric.get_histogram();
    let (mut below, mut bound) = (0, 0.0);
    let mut parts = Vec::new();
    let buckets = histogram
        .get_bucket()
        .iter()
        .map(|bucket| (bucket.upper_bound(), bucket.cumulative_count()));
    // What is above all bounds counts as the highest.
    for (upper, count) in buckets.chain(Some((f64::INFINITY, histogram.get_sample_count()))) {
        if upper.is_finite() {
            bound = upper;
        }
        let part = u32::try_from(parts.len()).unwrap_or(u32::MAX);
        let value = Value::Times {
            millis: bound * 1000.0,
            count: count.saturating_sub(below),
        };
        parts.push((Line { part, ..line.clone() }, value));
        below = count;
    }
    parts
}

/// What would end a name, a part of it or a line becomes `_`.
fn clean(text: &str) -> String {
    let separates = |c: char| c.is_control() || c.is_whitespace() || matches!(c, '.' | ':' | '|' | '@' | '#' | ',');
    text.chars().map(|c| if separates(c) { '_' } else { c }).collect()
}

#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a count: whole, and not negative"
)]
const fn whole(value: f64) -> u64 {
    value as u64
}
