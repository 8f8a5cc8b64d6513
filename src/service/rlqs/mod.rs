//! `envoy.service.rate_limit_quota.v3.RateLimitQuotaService`: Envoys that enforce limits themselves.
//!
//! | file | what is in it |
//! |---|---|
//! | `session` | one stream: reports in, assignments out |
//! | `steps` | the steps of a stream's accounts: asked of the store, and answered |
//! | `blanket` | what does not depend on a counter; the end of idle buckets |
//! | `leases`, `listing` | who holds what, for operators |
//! | `table` | the buckets of one stream |
//! | `buckets` | the buckets as all streams share them |
//! | `parts` | what the streams share |
//! | `bucket_id`, `actions` | the wire |

mod actions;
mod blanket;
mod bucket_id;
mod buckets;
mod leases;
mod listing;
mod parts;
mod session;
mod steps;
mod table;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use futures::Stream;
use tokio::sync::{Mutex, mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status, Streaming};

use self::buckets::SharedBuckets;
use self::parts::QuotaParts;
use self::session::Session;
use crate::engine::Engine;
use crate::model::Clock;
use crate::proto::envoy::service::rate_limit_quota::v3 as wire;
use crate::telemetry::Metrics;
use crate::telemetry::labels::bounded;

pub use self::leases::{LeaseEntry, LeaseFilter, LeaseList};

pub use self::bucket_id::{MAX_BYTES as MAX_ID_BYTES, MAX_ENTRIES as MAX_ID_ENTRIES};

/// Streams at the same time; each is one Envoy.
const MAX_STREAMS: u64 = 5_000;
/// Messages to Envoy that wait to be sent.
const MAX_WAITING: usize = 16;
/// Header by which an Envoy may say its name (`initial_metadata`).
const NAME_HEADER: &str = "x-envoy-node";
/// Longest name that is kept, in bytes.
const MAX_NAME: usize = 128;

/// A stream of assignments.
pub type Assignments = ReceiverStream<Result<wire::RateLimitQuotaResponse, Status>>;

/// Serves Envoys that enforce limits themselves.
#[derive(Clone)]
pub struct QuotaService(Arc<QuotaParts>);

impl QuotaService {
    /// A service over an engine. `outlives`: the counters are kept by a store that this process shares. When `stop` is
    /// cancelled all streams end, so that their Envoys look for another server at their next report.
    #[must_use]
    pub fn new(
        engine: Arc<Engine>,
        clock: Arc<dyn Clock>,
        metrics: Arc<Metrics>,
        (outlives, stop): (bool, CancellationToken),
    ) -> Self {
        Self(Arc::new(QuotaParts {
            began_us: (!outlives).then(|| clock.now_us()),
            engine,
            clock,
            metrics,
            shared: SharedBuckets::default(),
            streams: AtomicU64::new(0),
            buckets: AtomicU64::new(0),
            opened: AtomicU64::new(0),
            questions: watch::Sender::new(None),
            asking: Mutex::new(()),
            stop,
        }))
    }

    /// The leases of all streams of this process, the largest first.
    pub async fn leases(&self, filter: LeaseFilter) -> LeaseList {
        self.0.leases(filter).await
    }

    /// Serves one stream of reports until it ends.
    ///
    /// # Errors
    /// RESOURCE_EXHAUSTED where there are too many already.
    pub fn open<S>(&self, name: String, reports: S) -> Result<Assignments, Status>
    where
        S: Stream<Item = Result<wire::RateLimitQuotaUsageReports, Status>> + Send + Unpin + 'static,
    {
        if self.0.streams.fetch_add(1, Relaxed) >= MAX_STREAMS {
            self.0.streams.fetch_sub(1, Relaxed);
            return Err(Status::resource_exhausted(format!(
                "more than {MAX_STREAMS} streams of rate limit quotas"
            )));
        }
        self.0.metrics.rlqs.streams.inc();
        let (sender, receiver) = mpsc::channel(MAX_WAITING);
        let session = Session::new(Arc::clone(&self.0), name, sender);
        tokio::spawn(session.run(reports));
        Ok(ReceiverStream::new(receiver))
    }
}

/// What an Envoy says of itself, in characters that can be shown.
fn name_of(metadata: &MetadataMap) -> String {
    let said = metadata.get(NAME_HEADER).and_then(|name| name.to_str().ok());
    bounded(said.unwrap_or_default(), MAX_NAME).into_owned()
}

#[tonic::async_trait]
impl wire::rate_limit_quota_service_server::RateLimitQuotaService for QuotaService {
    type StreamRateLimitQuotasStream = Assignments;

    async fn stream_rate_limit_quotas(
        &self,
        request: Request<Streaming<wire::RateLimitQuotaUsageReports>>,
    ) -> Result<Response<Assignments>, Status> {
        let name = name_of(request.metadata());
        self.open(name, request.into_inner()).map(Response::new)
    }
}
