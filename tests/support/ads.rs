//! A control plane: ADS with one snapshot for everybody, as Envoy Gateway serves it. It can be stopped and started
//! again on its port.

use std::{
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use prost::Message;
use sluicegate::{
    config::xds::TYPE_URL,
    proto::{
        envoy::service::discovery::v3::{
            DiscoveryRequest, DiscoveryResponse,
            aggregated_discovery_service_server::{AggregatedDiscoveryService, AggregatedDiscoveryServiceServer},
        },
        ratelimit::config::ratelimit::v3::RateLimitConfig,
    },
};
use tokio::{
    net::TcpListener,
    runtime::Runtime,
    sync::{mpsc, watch},
};
use tokio_stream::{Stream, StreamExt, wrappers::ReceiverStream, wrappers::TcpListenerStream};
use tonic::{
    Request, Response, Status, Streaming,
    transport::{Certificate, Server, ServerTlsConfig},
};

use super::{certs::Identity, process::free_port};

/// Only reached on failure.
const PATIENCE: Duration = Duration::from_secs(30);

/// A control plane.
pub struct ControlPlane {
    /// Where it listens when it runs.
    pub port: u16,
    tls: Option<ServerTlsConfig>,
    snapshot: watch::Sender<Snapshot>,
    requests: mpsc::UnboundedReceiver<Seen>,
    shared: Ads,
    /// Of its own, so that stopping it takes connections along.
    running: Option<Runtime>,
}

/// What is served: a version and its resources.
#[derive(Clone, Default)]
struct Snapshot {
    version: String,
    resources: Vec<prost_types::Any>,
}

/// What a client sent.
#[derive(Debug)]
pub struct Seen {
    /// The message.
    pub request: DiscoveryRequest,
    /// The stream's headers.
    pub headers: http::HeaderMap,
}

#[derive(Clone)]
struct Ads {
    snapshot: watch::Receiver<Snapshot>,
    requests: mpsc::UnboundedSender<Seen>,
    nonce: Arc<AtomicU64>,
    resends: Arc<AtomicBool>,
}

impl ControlPlane {
    /// A control plane that does not run yet; with `tls` it asks clients for a certificate of the same CA.
    pub fn new(tls: Option<(&Identity, &str)>) -> Self {
        let (snapshot, receiver) = watch::channel(Snapshot::default());
        let (sender, requests) = mpsc::unbounded_channel();
        let tls = tls.map(|(identity, ca)| {
            ServerTlsConfig::new()
                .identity(identity.tonic())
                .client_ca_root(Certificate::from_pem(ca))
        });
        let shared = Ads {
            snapshot: receiver,
            requests: sender,
            nonce: Arc::default(),
            resends: Arc::default(),
        };
        Self {
            port: free_port(),
            tls,
            snapshot,
            requests,
            shared,
            running: None,
        }
    }

    /// `host:port`.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Listens.
    pub fn start(&mut self) {
        let address: SocketAddr = self.address().parse().expect("an address");
        let listener = std::net::TcpListener::bind(address).expect("the port is free");
        listener.set_nonblocking(true).expect("a listener");
        let mut server = Server::builder();
        if let Some(tls) = self.tls.clone() {
            server = server.tls_config(tls).expect("good certificates");
        }
        let service = AggregatedDiscoveryServiceServer::new(self.shared.clone());
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime");
        runtime.spawn(async move {
            let listener = TcpListener::from_std(listener).expect("a listener");
            let incoming = TcpListenerStream::new(listener);
            server
                .add_service(service)
                .serve_with_incoming(incoming)
                .await
                .expect("it serves");
        });
        self.running = Some(runtime);
    }

    /// From now on a response that is refused is sent again at once, as go-control-plane does.
    pub fn resend_what_is_refused(&self) {
        self.shared.resends.store(true, Ordering::Relaxed);
    }

    /// Drops dead, connections and all.
    pub fn stop(&mut self) {
        if let Some(running) = self.running.take() {
            // A runtime may not end on another's thread.
            let end = std::thread::spawn(move || running.shutdown_timeout(PATIENCE));
            end.join().expect("it ends");
        }
    }

    /// Serves these configurations from now on.
    pub fn publish(&self, version: &str, configs: &[RateLimitConfig]) {
        let pack = |config: &RateLimitConfig| prost_types::Any {
            type_url: TYPE_URL.into(),
            value: config.encode_to_vec(),
        };
        self.publish_raw(version, configs.iter().map(pack).collect());
    }

    /// Serves these resources, whatever they are.
    pub fn publish_raw(&self, version: &str, resources: Vec<prost_types::Any>) {
        self.snapshot.send_replace(Snapshot {
            version: version.into(),
            resources,
        });
    }

    /// The next message of a client.
    pub async fn next(&mut self) -> Seen {
        tokio::time::timeout(PATIENCE, self.requests.recv())
            .await
            .expect("a message in time")
            .expect("a sender")
    }

    /// The next message that answers a response: `Ok(version)` for an ACK, `Err(text)` for a NACK.
    pub async fn next_answer(&mut self) -> Result<String, String> {
        loop {
            let request = self.next().await.request;
            if !request.response_nonce.is_empty() {
                return match request.error_detail {
                    None => Ok(request.version_info),
                    Some(error) => Err(error.message),
                };
            }
        }
    }
}

impl Drop for ControlPlane {
    fn drop(&mut self) {
        self.stop();
    }
}

#[tonic::async_trait]
impl AggregatedDiscoveryService for Ads {
    type StreamAggregatedResourcesStream = Pin<Box<dyn Stream<Item = Result<DiscoveryResponse, Status>> + Send>>;

    async fn stream_aggregated_resources(
        &self,
        request: Request<Streaming<DiscoveryRequest>>,
    ) -> Result<Response<Self::StreamAggregatedResourcesStream>, Status> {
        let headers = request.metadata().clone().into_headers();
        let mut incoming = request.into_inner();
        let (outgoing, responses) = mpsc::channel(16);
        let ads = self.clone();
        tokio::spawn(async move {
            let mut snapshot = ads.snapshot.clone();
            let mut sent = String::new();
            let mut asked = false;
            loop {
                let current = snapshot.borrow_and_update().clone();
                if asked && !current.version.is_empty() && current.version != sent {
                    sent.clone_from(&current.version);
                    let response = DiscoveryResponse {
                        version_info: current.version,
                        resources: current.resources,
                        type_url: TYPE_URL.into(),
                        nonce: ads.nonce.fetch_add(1, Ordering::Relaxed).to_string(),
                        control_plane: None,
                    };
                    if outgoing.send(Ok(response)).await.is_err() {
                        return;
                    }
                }
                tokio::select! {
                    message = incoming.next() => match message {
                        Some(Ok(request)) => {
                            if request.error_detail.is_some() && ads.resends.load(Ordering::Relaxed) {
                                sent.clear();
                            }
                            asked |= request.type_url == TYPE_URL;
                            let _ = ads.requests.send(Seen { request, headers: headers.clone() });
                        }
                        _ => return,
                    },
                    changed = snapshot.changed() => if changed.is_err() { return },
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(responses))))
    }
}
