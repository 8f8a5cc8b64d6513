//! TLS on the gRPC listener.

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use sluicegate::bench::noop::Noop;
use sluicegate::net::{grpc::PortOptions, http2::ConnectionOptions, listener::Listener, tls::TlsAccept};
use sluicegate::service::server::GrpcServer;
use sluicegate::tls::ServerTls;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Identity as TonicIdentity};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};

use crate::support::certs::{Ca, Identity, Volume};

/// How often the tests' listeners look at their files.
const EVERY: Duration = Duration::from_millis(20);
/// Only reached on failure.
const PATIENCE: Duration = Duration::from_secs(20);

fn server_tls(volume: &Volume, with_ca: bool, sans: &[&str]) -> ServerTls {
    ServerTls {
        cert: volume.path("tls.crt"),
        key: volume.path("tls.key"),
        client_ca: with_ca.then(|| volume.path("ca.crt")),
        client_sans: sans.iter().map(|san| (*san).to_owned()).collect(),
    }
}

/// Serves gRPC health over TLS; returns the port.
async fn serve(tls: &ServerTls) -> u16 {
    serve_with(tls, PortOptions::default()).await
}

async fn serve_with(tls: &ServerTls, options: PortOptions) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let tls = TlsAccept::start_every(tls, EVERY).expect("good certificates");
    let server = GrpcServer::new(options, Noop, Noop, None).await.expect("a server");
    tokio::spawn(server.serve(Listener::Tcp(listener), Some(tls), std::future::pending()));
    port
}

/// One call over a connection of its own.
async fn call(port: u16, ca: &str, identity: Option<TonicIdentity>) -> Result<(), String> {
    let mut tls = ClientTlsConfig::new()
        .ca_certificate(Certificate::from_pem(ca))
        .domain_name("ratelimit.test");
    if let Some(identity) = identity {
        tls = tls.identity(identity);
    }
    let channel = Channel::from_shared(format!("https://127.0.0.1:{port}"))
        .expect("a URI")
        .tls_config(tls)
        .expect("good certificates")
        .connect_timeout(PATIENCE)
        .timeout(PATIENCE)
        .connect()
        .await
        .map_err(|error| format!("{error:?}"))?;
    let request = HealthCheckRequest { service: String::new() };
    match HealthClient::new(channel).check(request).await {
        Ok(_) => Ok(()),
        Err(status) => Err(format!("{status:?}")),
    }
}

struct Pki {
    ca: Ca,
    server: Identity,
}

impl Pki {
    fn new() -> Self {
        let ca = Ca::new("ours");
        let server = ca.issue(&["ratelimit.test"]);
        Self { ca, server }
    }

    fn volume(&self) -> Volume {
        Volume::new(&self.server.files(&self.ca.pem()))
    }
}

#[tokio::test]
async fn without_a_client_ca_nobody_is_asked_for_a_certificate() {
    let pki = Pki::new();
    let volume = pki.volume();
    let port = serve(&server_tls(&volume, false, &[])).await;
    call(port, &pki.ca.pem(), None).await.expect("served");
    call(port, &Ca::new("another").pem(), None)
        .await
        .expect_err("the client must see who signed the server");
}

#[tokio::test]
async fn who_does_not_shake_hands_in_time_is_left() {
    let pki = Pki::new();
    let volume = pki.volume();
    let options = PortOptions {
        connection: ConnectionOptions {
            client_timeout: Duration::from_millis(300),
            ..ConnectionOptions::default()
        },
        ..PortOptions::default()
    };
    let port = serve_with(&server_tls(&volume, false, &[]), options).await;
    // Silent, and in the midst of a handshake.
    for start in [b"".as_slice(), b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"] {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).await.expect("a connection");
        stream.write_all(start).await.expect("sent");
        let end = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut Vec::new())).await;
        // However it ends: with an alert, or a reset.
        _ = end.expect("it ends");
    }
    call(port, &pki.ca.pem(), None).await.expect("served");
}

#[tokio::test]
async fn with_a_client_ca_only_its_certificates_are_served() {
    let pki = Pki::new();
    let volume = pki.volume();
    let port = serve(&server_tls(&volume, true, &[])).await;
    let ca = pki.ca.pem();
    call(port, &ca, Some(pki.ca.issue(&["envoy"]).tonic()))
        .await
        .expect("the right client is served");
    call(port, &ca, None).await.expect_err("no certificate");
    let stranger = Ca::new("another").issue(&["envoy"]);
    call(port, &ca, Some(stranger.tonic()))
        .await
        .expect_err("another CA's certificate");
}

#[tokio::test]
async fn a_client_must_carry_one_of_the_names() {
    let pki = Pki::new();
    let volume = pki.volume();
    let ca = pki.ca.pem();
    let wanted = ["envoy.mesh.test", "spiffe://mesh.test/ns/gw/sa/envoy", "10.1.2.3"];
    let port = serve(&server_tls(&volume, true, &wanted)).await;
    for good in [
        "envoy.mesh.test",
        "*.mesh.test",
        "spiffe://mesh.test/ns/gw/sa/envoy",
        "10.1.2.3",
    ] {
        let identity = pki.ca.issue(&["unrelated.test", good]).tonic();
        call(port, &ca, Some(identity))
            .await
            .unwrap_or_else(|error| panic!("{good}: {error}"));
    }
    for bad in [
        "other.mesh.test",
        "spiffe://mesh.test/ns/gw/sa/other",
        "10.1.2.4",
        "envoy.mesh.test.evil.test",
    ] {
        let identity = pki.ca.issue(&[bad]).tonic();
        call(port, &ca, Some(identity)).await.expect_err(bad);
    }
}

#[tokio::test]
async fn new_certificates_are_used_without_a_restart() {
    let old = Pki::new();
    let volume = old.volume();
    let port = serve(&server_tls(&volume, true, &[])).await;
    let old_client = old.ca.issue(&["envoy"]);
    call(port, &old.ca.pem(), Some(old_client.tonic()))
        .await
        .expect("the old ones work");

    // The certificate and its key do not fit: the old ones stay in force.
    let new = Pki::new();
    volume.replace(&[
        ("tls.crt", &new.server.cert),
        ("tls.key", &old.server.key),
        ("ca.crt", &new.ca.pem()),
    ]);
    tokio::time::sleep(5 * EVERY).await;
    call(port, &old.ca.pem(), Some(old_client.tonic()))
        .await
        .expect("a bad swap changes nothing");

    volume.replace(&new.server.files(&new.ca.pem()));
    let new_client = new.ca.issue(&["envoy"]);
    let start = Instant::now();
    while let Err(error) = call(port, &new.ca.pem(), Some(new_client.tonic())).await {
        assert!(start.elapsed() < PATIENCE, "the new ones never came: {error}");
        tokio::time::sleep(EVERY).await;
    }
    call(port, &old.ca.pem(), Some(old_client.tonic()))
        .await
        .expect_err("the old CA is no longer trusted");
}

#[tokio::test]
async fn a_silent_client_keeps_nobody_waiting() {
    let pki = Pki::new();
    let volume = pki.volume();
    let port = serve(&server_tls(&volume, false, &[])).await;
    let mut silent = Vec::new();
    for _ in 0..50 {
        silent.push(
            tokio::net::TcpStream::connect(("127.0.0.1", port))
                .await
                .expect("connected"),
        );
    }
    call(port, &pki.ca.pem(), None).await.expect("served");
}

#[tokio::test]
async fn what_cannot_be_used_is_named() {
    let pki = Pki::new();
    let volume = Volume::new(&[
        ("tls.crt", &pki.server.cert),
        ("tls.key", &pki.server.key),
        ("other.key", &pki.ca.issue(&["x"]).key),
        ("ca.crt", "not PEM at all"),
    ]);
    let good = server_tls(&volume, false, &[]);
    let nowhere = PathBuf::from("/nowhere/tls.crt");
    let cases = [
        (
            ServerTls {
                cert: nowhere,
                ..good.clone()
            },
            "/nowhere/tls.crt",
        ),
        (
            ServerTls {
                key: volume.path("tls.crt"),
                ..good.clone()
            },
            "no private key",
        ),
        (
            ServerTls {
                key: volume.path("other.key"),
                ..good
            },
            "tls.crt",
        ),
        (server_tls(&volume, true, &[]), "ca.crt: no certificate"),
    ];
    for (tls, expected) in cases {
        let error = TlsAccept::start(&tls).expect_err("bad files").to_string();
        assert!(error.contains(expected), "{error:?} should name {expected:?}");
    }
}
