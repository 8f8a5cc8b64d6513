//! The gRPC port's numbers under the names that envoyproxy/ratelimit's dashboards use: read off our own when somebody
//! scrapes, so that the request path counts once.

use std::collections::HashMap;

use prometheus::core::{Collector, Desc};
use prometheus::proto::{Counter, LabelPair, Metric, MetricFamily, MetricType};
use prometheus::{Histogram, IntCounter};

const REQUESTS: (&str, &str) = ("ratelimit_service_total_requests", "gRPC requests");
const RESPONSE_TIME: (&str, &str) = (
    "ratelimit_service_response_time_seconds",
    "Time to answer a gRPC request",
);

/// `ratelimit_service_total_requests` and `ratelimit_service_response_time_seconds`.
pub(super) struct GrpcPort {
    answered: [IntCounter; 3],
    duration: Histogram,
    descriptions: Vec<Desc>,
}

impl GrpcPort {
    /// A view on the port's counters (whatever their code) and its histogram.
    pub(super) fn new(answered: [IntCounter; 3], duration: Histogram) -> prometheus::Result<Self> {
        let describe = |(name, help): (&str, &str)| {
            let labels = HashMap::from([("grpc_method".to_owned(), "ShouldRateLimit".to_owned())]);
            Desc::new(name.into(), help.into(), vec![], labels)
        };
        let descriptions = vec![describe(REQUESTS)?, describe(RESPONSE_TIME)?];
        Ok(Self {
            answered,
            duration,
            descriptions,
        })
    }
}

impl Collector for GrpcPort {
    fn desc(&self) -> Vec<&Desc> {
        self.descriptions.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let mut counter = Counter::default();
        #[allow(clippy::cast_precision_loss, reason = "Prometheus samples are doubles")]
        counter.set_value(self.answered.iter().map(IntCounter::get).sum::<u64>() as f64);
        let mut requests = Metric::from_label(vec![method()]);
        requests.set_counter(counter);
        let times = self.duration.collect().into_iter().flat_map(|mut family| {
            family.take_metric().into_iter().map(|ours| {
                let mut theirs = Metric::from_label(vec![method()]);
                theirs.set_histogram(ours.get_histogram().clone());
                theirs
            })
        });
        vec![
            family(REQUESTS, MetricType::COUNTER, vec![requests]),
            family(RESPONSE_TIME, MetricType::HISTOGRAM, times.collect()),
        ]
    }
}

fn method() -> LabelPair {
    let mut label = LabelPair::default();
    label.set_name("grpc_method".into());
    label.set_value("ShouldRateLimit".into());
    label
}

fn family((name, help): (&str, &str), kind: MetricType, metrics: Vec<Metric>) -> MetricFamily {
    let mut family = MetricFamily::default();
    family.set_name(name.into());
    family.set_help(help.into());
    family.set_field_type(kind);
    family.set_metric(metrics);
    family
}
