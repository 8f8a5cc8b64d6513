//! The ADS client against a control plane over real connections.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use sluicegate::{
    config::{
        settings::{Secret, XdsSettings},
        xds::{TYPE_URL, Update, XdsClient},
    },
    proto::ratelimit::config::ratelimit::v3::RateLimitConfig,
    tls::ClientTls,
};
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;

use crate::support::{
    ads::ControlPlane,
    certs::{Ca, Volume},
};

/// Only reached on failure.
const PATIENCE: Duration = Duration::from_secs(30);

fn settings(control_plane: &ControlPlane) -> XdsSettings {
    XdsSettings {
        server: control_plane.address(),
        node_id: "envoy-ratelimit".into(),
        backoff_initial: Duration::from_millis(20),
        backoff_max: Duration::from_millis(50),
        ..XdsSettings::default()
    }
}

fn config(domain: &str) -> RateLimitConfig {
    RateLimitConfig {
        name: domain.into(),
        domain: domain.into(),
        descriptors: Vec::new(),
    }
}

/// A client whose updates come out here; it refuses versions that start with "bad".
struct Client {
    updates: mpsc::UnboundedReceiver<Update>,
    _running: AbortOnDropHandle<()>,
}

impl Client {
    fn start(settings: XdsSettings) -> Self {
        let (sender, updates) = mpsc::unbounded_channel();
        let client = XdsClient::new(settings).expect("good certificates");
        let run = client.run(move |update| {
            let refused = update.version.starts_with("bad");
            sender.send(update).expect("the test listens");
            if refused {
                Err("a domain is missing".into())
            } else {
                Ok(())
            }
        });
        Self {
            updates,
            _running: AbortOnDropHandle::new(tokio::spawn(run)),
        }
    }

    async fn next(&mut self) -> Update {
        tokio::time::timeout(PATIENCE, self.updates.recv())
            .await
            .expect("an update in time")
            .expect("a client")
    }
}

#[tokio::test]
async fn asks_once_then_acknowledges_what_is_good_and_refuses_what_is_bad() {
    let mut plane = ControlPlane::new(None);
    plane.publish("1", &[config("a"), config("b")]);
    plane.start();
    let mut client = Client::start(XdsSettings {
        node_metadata: BTreeMap::from([("zone".into(), "z1".into())]),
        headers: BTreeMap::from([("x-token".into(), Secret::new("t0ken"))]),
        ..settings(&plane)
    });

    let first = plane.next().await;
    let node = first.request.node.expect("a node");
    assert_eq!(node.id, "envoy-ratelimit");
    let zone = &node.metadata.expect("metadata").fields["zone"].kind;
    assert_eq!(*zone, Some(prost_types::value::Kind::StringValue("z1".into())));
    assert_eq!(first.request.type_url, TYPE_URL);
    assert_eq!(
        (first.request.version_info, first.request.response_nonce),
        (String::new(), String::new())
    );
    assert_eq!(first.headers["x-token"], "t0ken");

    assert_eq!(
        client.next().await,
        Update {
            version: "1".into(),
            configs: vec![config("a"), config("b")]
        }
    );
    let ack = plane.next().await.request;
    assert_eq!((ack.version_info.as_str(), ack.error_detail), ("1", None));
    assert_eq!(ack.response_nonce, "0");

    plane.publish("bad 2", &[]);
    client.next().await;
    let nack = plane.next().await.request;
    let error = nack.error_detail.expect("a NACK");
    assert_eq!((error.code, error.message.as_str()), (3, "a domain is missing"));
    assert_eq!(
        (nack.version_info.as_str(), nack.response_nonce.as_str()),
        ("1", "1"),
        "the version stays"
    );

    plane.publish("3", &[]);
    assert_eq!(client.next().await.version, "3");
    assert_eq!(plane.next_answer().await, Ok("3".into()));
}

/// go-control-plane, and so Envoy Gateway, sends what was refused again at once, for ever.
#[tokio::test]
async fn what_is_sent_again_is_refused_again_in_time_and_not_looked_at() {
    let mut plane = ControlPlane::new(None);
    plane.resend_what_is_refused();
    plane.publish("bad 1", &[]);
    plane.start();
    let mut client = Client::start(settings(&plane));
    assert_eq!(client.next().await.version, "bad 1");
    let refused = plane.next_answer().await.expect_err("a NACK");
    let start = Instant::now();
    for _ in 0..2 {
        assert_eq!(plane.next_answer().await, Err(refused.clone()));
    }
    assert!(start.elapsed() > Duration::from_secs(1), "{:?}", start.elapsed());
    // Better ones are taken; the bad one was not looked at again.
    plane.publish("2", &[config("a")]);
    assert_eq!(client.next().await.version, "2");
    while let Err(again) = plane.next_answer().await {
        assert_eq!(again, refused);
    }
}

#[tokio::test]
async fn what_is_no_config_is_refused_whole() {
    let mut plane = ControlPlane::new(None);
    plane.start();
    let _client = Client::start(settings(&plane));
    let any = |type_url: &str, value: &[u8]| prost_types::Any {
        type_url: type_url.into(),
        value: value.into(),
    };
    let good = any(TYPE_URL, b"");
    for (version, bad, text) in [
        (
            "1",
            any("type.googleapis.com/envoy.config.cluster.v3.Cluster", b""),
            "resource 1 is a",
        ),
        (
            "2",
            any(TYPE_URL, b"\xff\xff\xff"),
            "resource 1 is no valid RateLimitConfig",
        ),
    ] {
        plane.publish_raw(version, vec![good.clone(), bad]);
        let error = plane.next_answer().await.expect_err("a NACK");
        assert!(error.starts_with(text), "{error}");
    }
}

#[tokio::test]
async fn comes_back_when_the_control_plane_does() {
    let mut plane = ControlPlane::new(None);
    plane.publish("1", &[config("a")]);
    let mut client = Client::start(settings(&plane));
    // Nobody listens yet; it keeps trying.
    tokio::time::sleep(Duration::from_millis(100)).await;
    for round in 0..3 {
        plane.start();
        let first = plane.next().await.request;
        assert_eq!(
            first.version_info, "",
            "round {round}: a restarted control plane sends everything again"
        );
        assert_eq!(client.next().await.version, "1");
        assert_eq!(plane.next_answer().await, Ok("1".into()));
        plane.stop();
    }
}

#[tokio::test]
async fn mutual_tls_with_certificates_that_change() {
    let ca = Ca::new("ours");
    let server = ca.issue(&["envoy-gateway"]);
    let ca_pem = ca.pem();
    let mut plane = ControlPlane::new(Some((&server, &ca_pem)));
    plane.publish("1", &[]);
    plane.start();

    // A certificate of another CA: the control plane will not have it.
    let stranger = Ca::new("another").issue(&["envoy-ratelimit"]);
    let volume = Volume::new(&stranger.files(&ca_pem));
    let tls = ClientTls {
        ca: Some(volume.path("ca.crt")),
        identity: Some((volume.path("tls.crt"), volume.path("tls.key"))),
        server_name: Some("envoy-gateway".into()),
    };
    let with = |tls: ClientTls| XdsSettings {
        tls: Some(tls),
        ..settings(&plane)
    };
    let mut client = Client::start(with(tls.clone()));
    let mut misled = Client::start(with(ClientTls {
        server_name: Some("somebody-else".into()),
        ..tls
    }));
    tokio::time::timeout(Duration::from_millis(300), client.updates.recv())
        .await
        .expect_err("refused");

    volume.replace(&ca.issue(&["envoy-ratelimit"]).files(&ca_pem));
    assert_eq!(client.next().await.version, "1");
    assert_eq!(plane.next_answer().await, Ok("1".into()));
    misled
        .updates
        .try_recv()
        .expect_err("the server's certificate carries another name");
}
