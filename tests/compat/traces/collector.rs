//! Trace collectors: OTLP over gRPC and over HTTP, plain or with TLS, that keep what they are sent.

use std::{collections::HashMap, io::Read, net::SocketAddr, sync::Arc, time::Duration};

use axum::{
    Router,
    extract::State,
    http::{HeaderMap, StatusCode, Uri},
    routing::any,
};
use flate2::read::GzDecoder;
use opentelemetry_proto::tonic::{
    collector::trace::v1::{
        ExportTraceServiceRequest, ExportTraceServiceResponse,
        trace_service_server::{TraceService, TraceServiceServer},
    },
    common::v1::{AnyValue, KeyValue, any_value::Value},
    trace::v1::Span,
};
use prost::{Message, bytes::Bytes};
use sluicegate::tls::{ServerTls, server_config};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
    time::timeout,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{
    Request, Response, Status,
    codec::CompressionEncoding,
    transport::{Certificate, Server, ServerTlsConfig},
};

use crate::support::certs::Identity;

/// Only reached on failure.
const PATIENCE: Duration = Duration::from_secs(30);

/// A collector; it ends with the test's runtime.
pub struct Collector {
    /// Where it listens on loopback.
    pub port: u16,
    batches: UnboundedReceiver<Batch>,
    waiting: Vec<(Batch, Span)>,
}

/// What was sent in one go.
#[derive(Debug, Clone)]
pub struct Batch {
    /// Headers, or gRPC metadata.
    pub headers: HeaderMap,
    /// Where to; for HTTP.
    pub path: String,
    /// The message.
    pub request: ExportTraceServiceRequest,
}

type Batches = UnboundedSender<Batch>;

impl Collector {
    /// gRPC; with `tls` it asks clients for a certificate of this CA (PEM).
    pub async fn grpc(port: u16, tls: Option<(&Identity, &str)>) -> Self {
        let (listener, port) = listener(port).await;
        let (sender, batches) = unbounded_channel();
        let mut server = Server::builder();
        if let Some((identity, ca)) = tls {
            let tls = ServerTlsConfig::new().identity(identity.tonic());
            server = server
                .tls_config(tls.client_ca_root(Certificate::from_pem(ca)))
                .expect("good certificates");
        }
        let service = TraceServiceServer::new(Grpc(sender)).accept_compressed(CompressionEncoding::Gzip);
        tokio::spawn(
            server
                .add_service(service)
                .serve_with_incoming(TcpListenerStream::new(listener)),
        );
        Self::new(port, batches)
    }

    /// HTTP.
    pub async fn http(port: u16) -> Self {
        let (listener, port) = listener(port).await;
        let (sender, batches) = unbounded_channel();
        tokio::spawn(async { axum::serve(listener, router(sender)).await });
        Self::new(port, batches)
    }

    /// HTTPS.
    pub async fn https(tls: &ServerTls) -> Self {
        let (listener, port) = listener(0).await;
        let (sender, batches) = unbounded_channel();
        let mut config = server_config(tls).expect("good certificates");
        config.alpn_protocols.clear();
        let listener = Secured(listener, TlsAcceptor::from(Arc::new(config)));
        tokio::spawn(async { axum::serve(listener, router(sender)).await });
        Self::new(port, batches)
    }

    fn new(port: u16, batches: UnboundedReceiver<Batch>) -> Self {
        Self {
            port,
            batches,
            waiting: Vec::new(),
        }
    }

    /// The next span, and the batch that it came in.
    pub async fn next(&mut self) -> (Batch, Span) {
        while self.waiting.is_empty() {
            let batch = timeout(PATIENCE, self.batches.recv())
                .await
                .expect("a batch in time")
                .expect("a sender");
            let scopes = batch.request.resource_spans.iter().flat_map(|r| &r.scope_spans);
            let spans = scopes.flat_map(|scope| scope.spans.clone());
            self.waiting = spans.map(|span| (batch.clone(), span)).collect();
        }
        self.waiting.remove(0)
    }

    /// Whether nothing has come that was not asked for.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.batches.is_empty()
    }
}

async fn listener(port: u16) -> (TcpListener, u16) {
    let listener = TcpListener::bind(("127.0.0.1", port)).await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    (listener, port)
}

/// Attributes as texts.
pub fn texts(attributes: &[KeyValue]) -> HashMap<&str, String> {
    let text = |value: &AnyValue| match &value.value {
        Some(Value::StringValue(text)) => text.clone(),
        Some(Value::IntValue(number)) => number.to_string(),
        other => format!("{other:?}"),
    };
    let pair = |pair: &KeyValue| pair.value.as_ref().map(text).unwrap_or_default();
    attributes.iter().map(|one| (one.key.as_str(), pair(one))).collect()
}

struct Grpc(Batches);

#[tonic::async_trait]
impl TraceService for Grpc {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let batch = Batch {
            headers: request.metadata().clone().into_headers(),
            path: String::new(),
            request: request.into_inner(),
        };
        self.0.send(batch).expect("the test listens");
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

fn router(batches: Batches) -> Router {
    Router::new().fallback(any(receive)).with_state(batches)
}

async fn receive(State(batches): State<Batches>, uri: Uri, headers: HeaderMap, body: Bytes) -> (StatusCode, Vec<u8>) {
    let mut bytes = body.to_vec();
    if headers.get("content-encoding").is_some_and(|value| value == "gzip") {
        bytes = Vec::new();
        GzDecoder::new(&*body).read_to_end(&mut bytes).expect("gzip");
    }
    let batch = Batch {
        headers,
        path: uri.path().to_owned(),
        request: ExportTraceServiceRequest::decode(&*bytes).expect("OTLP"),
    };
    batches.send(batch).expect("the test listens");
    (StatusCode::OK, ExportTraceServiceResponse::default().encode_to_vec())
}

/// A listener with TLS.
struct Secured(TcpListener, TlsAcceptor);

impl axum::serve::Listener for Secured {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, SocketAddr) {
        loop {
            let (tcp, peer) = self.0.accept().await.expect("a connection");
            if let Ok(tls) = self.1.accept(tcp).await {
                return (tls, peer);
            }
        }
    }

    fn local_addr(&self) -> std::io::Result<SocketAddr> {
        self.0.local_addr()
    }
}

#[track_caller]
pub fn assert_says(attributes: &[KeyValue], expected: &[(&str, &str)]) {
    let said = texts(attributes);
    for (name, value) in expected {
        assert_eq!(said[*name], *value, "{name}");
    }
}
