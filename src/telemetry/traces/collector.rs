//! The way to the collector: OpenTelemetry's exporter over connections of ours, which use the one TLS provider and
//! certificates that change.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, Request, Response};
use opentelemetry_http::hyper::HyperClient;
use opentelemetry_http::{Bytes, HttpClient, HttpError};
use opentelemetry_otlp::{Compression, Protocol, SpanExporter, WithExportConfig, WithHttpConfig, WithTonicConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{SpanData, SpanExporter as _};
use tokio::time::timeout;
use tonic::metadata::MetadataMap;

use crate::config::settings::{OtlpProtocol, OtlpSettings};
use crate::tls::dial::{Dialer, with_causes};
use crate::tls::{client_config, plain_client_config};

use super::TraceError;

/// The exporter ends its attempts by itself after the timeout, and then knows why they failed: it may take so much longer.
const GRACE: Duration = Duration::from_secs(1);
/// Bytes of an error that are logged.
const MAX_ERROR: usize = 512;

/// A collector that is ready to be sent to.
pub(super) struct Collector {
    exporter: SpanExporter,
    timeout: Duration,
    last: LastFailure,
}

/// Why the newest HTTP request failed: the exporter says no more than "network error".
type LastFailure = Arc<Mutex<Option<String>>>;

impl Collector {
    /// Reads the certificates; connects to nothing yet. Needs a tokio runtime.
    pub(super) fn new(otlp: &OtlpSettings, resource: &Resource) -> Result<Self, TraceError> {
        let last = LastFailure::default();
        let mut exporter = match otlp.protocol {
            OtlpProtocol::Grpc => grpc(otlp)?,
            OtlpProtocol::Http => http(otlp, &last)?,
        };
        exporter.set_resource(resource);
        Ok(Self {
            exporter,
            timeout: otlp.timeout,
            last,
        })
    }

    /// Sends a batch, with new attempts where the exporter thinks that they can help; the error says what failed.
    pub(super) async fn send(&self, batch: Vec<SpanData>) -> Result<(), String> {
        let mut error = match timeout(self.timeout + GRACE, self.exporter.export(batch)).await {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("no answer within {:?}", self.timeout),
        };
        let cause = self.last.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(cause) = cause {
            error = format!("{error}: {cause}");
        }
        error.truncate(error.floor_char_boundary(MAX_ERROR));
        Err(error)
    }
}

fn grpc(otlp: &OtlpSettings) -> Result<SpanExporter, TraceError> {
    let dialer = dialer(otlp)?;
    let endpoint = dialer.endpoint().map_err(TraceError::Exporter)?.timeout(otlp.timeout);
    let mut builder = SpanExporter::builder()
        .with_tonic()
        .with_channel(endpoint.connect_with_connector_lazy(dialer))
        .with_metadata(MetadataMap::from_headers(headers(otlp)?))
        .with_timeout(otlp.timeout);
    if otlp.gzip {
        builder = builder.with_compression(Compression::Gzip);
    }
    builder.build().map_err(|error| TraceError::Exporter(error.to_string()))
}

fn http(otlp: &OtlpSettings, last: &LastFailure) -> Result<SpanExporter, TraceError> {
    let dialer = dialer(otlp)?;
    let url = format!("{}://{}{}", dialer.scheme(), otlp.address, otlp.path);
    let client = Client {
        hyper: HyperClient::new(dialer, otlp.timeout, None),
        headers: headers(otlp)?,
        last: Arc::clone(last),
    };
    let mut builder = SpanExporter::builder()
        .with_http()
        .with_http_client(client)
        .with_endpoint(url)
        .with_protocol(Protocol::HttpBinary)
        .with_timeout(otlp.timeout);
    if otlp.gzip {
        builder = builder.with_compression(Compression::Gzip);
    }
    builder.build().map_err(|error| TraceError::Exporter(error.to_string()))
}

fn dialer(otlp: &OtlpSettings) -> Result<Dialer, TraceError> {
    let load = match otlp.protocol {
        OtlpProtocol::Grpc => client_config,
        OtlpProtocol::Http => |tls: &_| plain_client_config(tls, false),
    };
    let what = "trace collector client's certificates";
    Ok(Dialer::new(what, &otlp.address, otlp.tls.as_ref(), load)?)
}

/// Marked as secrets, so that no library shows them.
fn headers(otlp: &OtlpSettings) -> Result<HeaderMap, TraceError> {
    let mut headers = HeaderMap::new();
    for (name, value) in &otlp.headers {
        let (Ok(key), Ok(mut value)) = (name.parse::<HeaderName>(), value.expose().parse::<HeaderValue>()) else {
            return Err(TraceError::Exporter(format!("{name} cannot be sent as a header")));
        };
        value.set_sensitive(true);
        headers.insert(key, value);
    }
    Ok(headers)
}

/// OpenTelemetry's HTTP client with our headers, which remembers why a request failed.
#[derive(Debug)]
struct Client {
    hyper: HyperClient<Dialer>,
    headers: HeaderMap,
    last: LastFailure,
}

#[async_trait::async_trait]
impl HttpClient for Client {
    async fn send_bytes(&self, mut request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        for (name, value) in &self.headers {
            request.headers_mut().insert(name.clone(), value.clone());
        }
        let result = self.hyper.send_bytes(request).await;
        let failure = result.as_ref().err().map(|error| with_causes(&**error));
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = failure;
        result
    }
}
