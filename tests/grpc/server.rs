//! A whole process in this one: real sockets, real clients, the memory store.

use std::net::SocketAddr;

use sluicegate::app::{Addresses, App};
use sluicegate::config::settings::Settings;
use sluicegate::proto::envoy::extensions::common::ratelimit::v3 as common;
use sluicegate::proto::envoy::service::ratelimit::v3 as wire;
use tempfile::TempDir;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tonic::transport::Channel;
use wire::rate_limit_service_client::RateLimitServiceClient;

/// Serves until dropped or [`stop`](Self::stop)ped.
pub struct Server {
    pub addresses: Addresses,
    stop: Option<oneshot::Sender<()>>,
    done: JoinHandle<()>,
    _dir: TempDir,
}

impl Server {
    /// Serves these rules on free ports.
    pub async fn start(rules: &str) -> Self {
        Self::start_with(rules, |_| {}).await
    }

    /// The same with other settings.
    pub async fn start_with(rules: &str, change: impl FnOnce(&mut Settings)) -> Self {
        let dir = tempfile::tempdir().expect("temp dir");
        let path = dir.path().join("rules.yaml");
        std::fs::write(&path, rules).expect("rules");
        let free: SocketAddr = "127.0.0.1:0".parse().expect("address");
        let mut settings = Settings::default();
        settings.rules.paths = vec![path];
        settings.listen.grpc_addr = free;
        settings.listen.http_addr = free;
        settings.listen.admin_addr = free;
        change(&mut settings);
        let app = App::bind(settings).await.expect("bound");
        let addresses = app.addresses().expect("addresses");
        let (stop, stopped) = oneshot::channel::<()>();
        let done = tokio::spawn(async move {
            let shutdown = async move {
                let _ = stopped.await;
            };
            app.serve(shutdown).await.expect("served");
        });
        Self {
            addresses,
            stop: Some(stop),
            done,
            _dir: dir,
        }
    }

    /// A connection.
    pub async fn client(&self) -> RateLimitServiceClient<Channel> {
        RateLimitServiceClient::connect(self.url()).await.expect("connected")
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.addresses.grpc.expect("tcp"))
    }

    /// Asks it to end and waits.
    pub async fn stop(mut self) {
        let _ = self.stop.take().expect("once").send(());
        self.done.await.expect("no panic");
    }
}

/// A request of one descriptor for each list of entries.
pub fn request(domain: &str, descriptors: &[&[(&str, &str)]]) -> wire::RateLimitRequest {
    let entry = |(key, value): &(&str, &str)| common::rate_limit_descriptor::Entry {
        key: (*key).into(),
        value: (*value).into(),
    };
    let descriptor = |entries: &&[(&str, &str)]| common::RateLimitDescriptor {
        entries: entries.iter().map(entry).collect(),
        ..Default::default()
    };
    wire::RateLimitRequest {
        domain: domain.into(),
        descriptors: descriptors.iter().map(descriptor).collect(),
        hits_addend: 0,
    }
}
