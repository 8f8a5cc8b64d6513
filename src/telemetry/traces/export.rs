//! Spans on their way: a bounded queue, and a task that sends what waits there.

use std::time::Duration;

use opentelemetry::Context;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{Span, SpanData, SpanProcessor};
use prometheus::IntCounter;
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::config::settings::{SpanBatches, TraceSettings};

use super::super::Metrics;
use super::collector::Collector;

/// How long the end of the process waits for a collector.
const FLUSH: Duration = Duration::from_secs(2);

/// The queue, as the SDK sees it.
#[derive(Debug)]
pub(super) struct Queue {
    spans: Sender<SpanData>,
    dropped: IntCounter,
}

impl SpanProcessor for Queue {
    fn on_start(&self, _: &mut Span, _: &Context) {}

    fn on_end(&self, span: SpanData) {
        if self.spans.try_send(span).is_err() {
            self.dropped.inc();
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    /// The other end decides: [`Export::flush`].
    fn shutdown_with_timeout(&self, _: Duration) -> OTelSdkResult {
        Ok(())
    }
}

/// The task that sends; it ends when this is dropped.
#[derive(Debug)]
pub struct Export {
    stop: CancellationToken,
    task: AbortOnDropHandle<()>,
}

impl Export {
    pub(super) fn start(settings: &TraceSettings, collector: Collector, metrics: &Metrics) -> (Queue, Self) {
        let (spans, waiting) = channel(settings.batches.max_waiting);
        let counter = |result| metrics.trace_spans.with_label_values(&[result]);
        let worker = Worker {
            waiting,
            collector,
            batches: settings.batches.clone(),
            address: settings.otlp.address.clone(),
            sent: counter("sent"),
            failed: counter("failed"),
            failing: false,
        };
        let stop = CancellationToken::new();
        let task = AbortOnDropHandle::new(tokio::spawn(worker.run(stop.clone())));
        let queue = Queue {
            spans,
            dropped: counter("dropped"),
        };
        (queue, Self { stop, task })
    }

    /// Sends what waits, for a bounded time; calls that end later leave no span.
    pub async fn flush(self) {
        self.stop.cancel();
        if timeout(FLUSH, self.task).await.is_err() {
            tracing::warn!(within = ?FLUSH, "the last spans could not be sent");
        }
    }
}

struct Worker {
    waiting: Receiver<SpanData>,
    collector: Collector,
    batches: SpanBatches,
    /// The collector's, for the log.
    address: String,
    sent: IntCounter,
    failed: IntCounter,
    /// The newest batch could not be sent; said once.
    failing: bool,
}

impl Worker {
    async fn run(mut self, stop: CancellationToken) {
        let mut batch = Vec::new();
        loop {
            let more = tokio::select! {
                more = self.collect(&mut batch) => more,
                () = stop.cancelled() => break,
            };
            self.send(&mut batch).await;
            if !more {
                return;
            }
        }
        self.waiting.close();
        loop {
            self.send(&mut batch).await;
            if !self.take(&mut batch).await {
                return;
            }
        }
    }

    /// Fills a batch, or waits until its first span has waited long enough; `false` when no more will come.
    async fn collect(&mut self, batch: &mut Vec<SpanData>) -> bool {
        if !self.take(batch).await {
            return false;
        }
        let delay = self.batches.delay;
        let fill = async {
            while batch.len() < self.batches.max_spans {
                if !self.take(batch).await {
                    return false;
                }
            }
            true
        };
        timeout(delay, fill).await.unwrap_or(true)
    }

    /// Takes what waits, as far as it fits the batch; `false` when no more will come.
    async fn take(&mut self, batch: &mut Vec<SpanData>) -> bool {
        let room = self.batches.max_spans - batch.len();
        self.waiting.recv_many(batch, room).await > 0
    }

    async fn send(&mut self, batch: &mut Vec<SpanData>) {
        if batch.is_empty() {
            return;
        }
        let count = u64::try_from(batch.len()).unwrap_or(u64::MAX);
        match self.collector.send(std::mem::take(batch)).await {
            Ok(()) => {
                self.sent.inc_by(count);
                if std::mem::take(&mut self.failing) {
                    // As loud as its beginning: whoever hears of that must hear of this.
                    tracing::warn!(collector = self.address, "the trace collector is back");
                }
            }
            Err(error) => {
                self.failed.inc_by(count);
                if !std::mem::replace(&mut self.failing, true) {
                    tracing::warn!(
                        collector = self.address,
                        error,
                        "spans cannot be sent to the trace collector: they are lost until it is back"
                    );
                }
            }
        }
    }
}
