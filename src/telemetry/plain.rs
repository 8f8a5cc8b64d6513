//! Metrics as plain lines.

use prometheus::proto::{LabelPair, MetricType};

use super::Metrics;
use super::statsd::names;

impl Metrics {
    /// Every counter and gauge by the name that statsd gets (with all that stands in its labels) and its value,
    /// sorted; for `/stats`.
    #[must_use]
    pub fn plain(&self) -> Vec<(String, f64)> {
        let mut lines = Vec::new();
        for family in self.gather() {
            for metric in family.get_metric() {
                let value = match family.get_field_type() {
                    MetricType::COUNTER => metric.get_counter().get_value(),
                    MetricType::GAUGE => metric.get_gauge().get_value(),
                    _ => continue,
                };
                let is_tag = |label: &&LabelPair| self.tags.iter().any(|tag| tag == *label);
                let (tags, own): (Vec<_>, Vec<_>) = metric.get_label().iter().partition(is_tag);
                let (before, after) = names::of_family(family.name());
                let own = own.iter().map(|label| label.value().escape_debug().to_string());
                let tags = tags
                    .iter()
                    .map(|tag| format!("__{}={}", tag.name(), tag.value().escape_debug()));
                let parts = std::iter::once(before.to_owned()).chain(own).chain([after.to_owned()]);
                let name = parts.chain(tags).filter(|part| !part.is_empty()).collect::<Vec<_>>();
                let name = name.join(".");
                lines.push((name, value));
            }
        }
        lines.sort_by(|a, b| a.0.cmp(&b.0));
        lines
    }
}
