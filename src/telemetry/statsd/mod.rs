//! Metrics to a statsd server, under the names of envoyproxy/ratelimit and our own, through `cadence`.
//!
//! Nothing is sent from the request path: a thread of its own reads the counters at intervals and sends what they grew
//! by. While the server is away nothing is lost but time: the next flush that succeeds sends all growth since the last.

pub(super) mod names;
mod transport;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::{io, thread};

use cadence::ext::{MetricValue, ToTimerValue};
use cadence::{Counted, Gauged, MetricBuilder, MetricResult, StatsdClient, Timed};

use crate::config::settings::StatsdSettings;

use super::Metrics;
use names::{Line, Names, Value};
use transport::Transport;

/// Sends until dropped; dropping sends once more.
#[derive(Debug)]
pub struct Statsd {
    stop: Option<Sender<()>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Statsd {
    /// Starts sending. `tags` are the labels that every metric carries.
    ///
    /// # Errors
    /// When no thread can be started. A server that is away is no error.
    pub fn start(settings: StatsdSettings, tags: &BTreeMap<String, String>, metrics: Arc<Metrics>) -> io::Result<Self> {
        let (stop, stopped) = channel();
        let interval = settings.flush_interval;
        let mut exporter = Exporter {
            names: Names::new(settings.dogstatsd, tags.keys().cloned().collect()),
            transport: Transport::new(settings),
            metrics,
            sent: HashMap::new(),
            failing: false,
        };
        let thread = thread::Builder::new().name("statsd".into()).spawn(move || {
            while stopped.recv_timeout(interval) == Err(RecvTimeoutError::Timeout) {
                exporter.flush();
            }
            exporter.flush();
        })?;
        Ok(Self {
            stop: Some(stop),
            thread: Some(thread),
        })
    }
}

impl Drop for Statsd {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // It fails only if the thread panicked, which has been reported.
            let _ = thread.join();
        }
    }
}

struct Exporter {
    names: Names,
    transport: Transport,
    metrics: Arc<Metrics>,
    /// What was sent of each counter.
    sent: HashMap<Line, u64>,
    failing: bool,
}

impl Exporter {
    fn flush(&mut self) {
        // Series that are gone are forgotten with the old map.
        let mut now = HashMap::with_capacity(self.sent.len());
        let result = self.transport.send(|client| {
            for (line, value) in self.names.lines(&self.metrics.gather()) {
                let before = self.sent.get(&line).copied().unwrap_or(0);
                if let Some(count) = send(client, &line, value, before)? {
                    now.insert(line, count);
                }
            }
            Ok(())
        });
        match result {
            Ok(()) => {
                self.sent = now;
                if std::mem::take(&mut self.failing) {
                    // As loud as its beginning: whoever hears of that must hear of this.
                    tracing::warn!(server = %self.transport, "statsd is back");
                }
            }
            Err(error) => {
                if !std::mem::replace(&mut self.failing, true) {
                    tracing::warn!(server = %self.transport, %error, "statsd is away: counters wait for it");
                }
            }
        }
    }
}

/// Sends what is new; returns the count that is sent then, for what only grows.
fn send(client: &StatsdClient, line: &Line, value: Value, before: u64) -> MetricResult<Option<u64>> {
    match value {
        Value::Counter(now) => {
            // A counter that fell has started anew.
            let grown = now.checked_sub(before).unwrap_or(now);
            if grown > 0 {
                tagged(client.count_with_tags(&line.name, grown), line).try_send()?;
            }
            Ok(Some(now))
        }
        Value::Gauge(now) => tagged(client.gauge_with_tags(&line.name, now), line)
            .try_send()
            .map(|_| None),
        Value::Times { millis, count } => {
            let grown = count.checked_sub(before).unwrap_or(count);
            if grown > 0 {
                #[allow(clippy::cast_precision_loss, reason = "a rate need not be exact")]
                let rate = 1.0 / grown as f64;
                let timer = client.time_with_tags(&line.name, Millis(millis));
                tagged(timer, line).with_sampling_rate(rate).try_send()?;
            }
            Ok(Some(count))
        }
    }
}

fn tagged<'m, 'c, T: cadence::Metric + From<String>>(
    mut metric: MetricBuilder<'m, 'c, T>,
    line: &'m Line,
) -> MetricBuilder<'m, 'c, T> {
    for (name, value) in &line.tags {
        metric = metric.with_tag(name, value);
    }
    metric
}

/// Milliseconds with a fraction, which statsd allows and `Duration` would lose.
struct Millis(f64);

impl ToTimerValue for Millis {
    fn try_to_value(self) -> MetricResult<MetricValue> {
        Ok(MetricValue::Float(self.0))
    }
}
