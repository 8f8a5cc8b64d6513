//! TLS on the admin port.

use std::process::Command;
use std::sync::Arc;

use http::Request;
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio_rustls::TlsConnector;

use crate::cli::sluicegate_with;
use crate::support::certs::{Ca, Volume};
use crate::support::http::Client;
use crate::support::process::{PATIENCE, POLL, Process, free_port};
use crate::{Admin, RULES, TOKEN};

const NAME: &str = "sluicegate.test";

/// A server with a certificate for [`NAME`] and localhost on its admin port.
struct Secured {
    ca: Ca,
    volume: Volume,
    admin: Admin,
}

impl Secured {
    fn start() -> Self {
        let ca = Ca::new("ours");
        let volume = Volume::new(&ca.issue(&[NAME, "localhost"]).files(&ca.pem()));
        let [cert, key] = ["tls.crt", "tls.key"].map(|name| volume.path(name).display().to_string());
        let admin = Admin::start(true, &["--admin-tls-cert", &cert, "--admin-tls-key", &key]);
        Self { ca, volume, admin }
    }

    /// Runs the binary against it; what it printed, and whether it succeeded.
    fn cli(&self, host: &str, arguments: &[&str]) -> (bool, String) {
        let url = format!("https://{host}:{}", self.admin.server.admin_port);
        sluicegate_with(&url, arguments)
    }
}

/// An answer over a connection of its own, and the protocol that was agreed on. The roots are webpki's own affair.
async fn ask(port: u16, ca: &str, protocol: &str, request: Request<Full<Bytes>>) -> Result<(u16, String), String> {
    let mut roots = RootCertStore::empty();
    let root = CertificateDer::from_pem_slice(ca.as_bytes()).expect("a certificate");
    roots.add(root).expect("a root");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let mut config = builder
        .expect("a configuration")
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![protocol.into()];
    let tcp = tokio::net::TcpStream::connect(("127.0.0.1", port))
        .await
        .expect("the port");
    let name = ServerName::try_from(NAME).expect("a name");
    let connected = TlsConnector::from(Arc::new(config)).connect(name, tcp).await;
    let io = connected.map_err(|error| error.to_string())?;
    assert_eq!(io.get_ref().1.alpn_protocol(), Some(protocol.as_bytes()));
    let sent = if protocol == "h2" {
        let (mut sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(io))
            .await
            .expect("HTTP/2");
        tokio::spawn(connection);
        sender.send_request(request).await
    } else {
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(io))
            .await
            .expect("HTTP/1.1");
        tokio::spawn(connection);
        sender.send_request(request).await
    };
    let (parts, body) = sent.map_err(|error| error.to_string())?.into_parts();
    let body = body.collect().await.map_err(|error| error.to_string())?.to_bytes();
    Ok((parts.status.as_u16(), String::from_utf8_lossy(&body).into_owned()))
}

fn get(path: &str) -> Request<Full<Bytes>> {
    let uri = format!("https://localhost{path}");
    let request = Request::get(uri).header("host", "localhost");
    request.body(Full::default()).expect("a request")
}

fn post(path: &str, token: Option<&str>, body: &serde_json::Value) -> Request<Full<Bytes>> {
    let uri = format!("https://localhost{path}");
    let mut request = Request::post(uri)
        .header("host", "localhost")
        .header("content-type", "application/json");
    if let Some(token) = token {
        request = request.header("authorization", format!("Bearer {token}"));
    }
    request.body(Full::from(body.to_string())).expect("a request")
}

#[tokio::test]
async fn who_trusts_the_certificate_reads_and_changes_and_nobody_else() {
    let secured = Secured::start();
    let (port, ca) = (secured.admin.server.admin_port, secured.ca.pem());
    let another = Ca::new("another").pem();
    let refused = ask(port, &another, "http/1.1", get("/api/v1/status")).await;
    refused.expect_err("the client must see who signed the certificate");
    secured.admin.ask("user", "mallory", 5).await;
    for protocol in ["http/1.1", "h2"] {
        for path in ["/api/v1/status", "/healthcheck", "/metrics", "/console/", "/rlconfig"] {
            let (status, body) = ask(port, &ca, protocol, get(path)).await.expect(path);
            assert!(status == 200 && !body.is_empty(), "{protocol} {path}: {status} {body}");
        }
        // The same guard as without TLS.
        let entries = serde_json::json!([{ "key": "user", "value": "mallory" }]);
        let dry_run = serde_json::json!({ "domain": "shop", "entries": entries });
        let path = "/api/v1/counters/reset";
        for (token, expected) in [(None, 401), (Some("wrong-wrong-wrong-wrong"), 401), (Some(TOKEN), 200)] {
            let (status, body) = ask(port, &ca, protocol, post(path, token, &dry_run)).await.expect(path);
            assert_eq!(status, expected, "{protocol} {token:?}: {body}");
        }
    }
}

#[tokio::test]
async fn the_commands_speak_tls_and_say_what_is_missing() {
    let secured = Secured::start();
    let port = secured.admin.server.admin_port;
    let ca = secured.volume.path("ca.crt").display().to_string();
    let token = secured.admin.token_file.path().display().to_string();
    secured.admin.ask("user", "mallory", 5).await;
    let trusting = |host: &str, arguments: &[&str]| secured.cli(host, &[arguments, &["--admin-tls-ca", &ca]].concat());
    let (ok, said) = trusting("localhost", &["status"]);
    assert!(ok && said.contains("healthy    yes"), "{said}");
    let wait = async {
        while !trusting("localhost", &["top"]).1.contains("user=mallory") {
            tokio::time::sleep(POLL).await;
        }
    };
    tokio::time::timeout(PATIENCE, wait)
        .await
        .expect("it is among the denied");
    let reset = [
        "reset",
        "--domain",
        "shop",
        "user=mallory",
        "--yes",
        "--token-file",
        &token,
    ];
    let (ok, said) = trusting("localhost", &reset);
    assert!(ok && said.contains("1 counter reset (3 hits were in use)"), "{said}");

    // Without the CA the system's roots decide, if it has any.
    let (ok, said) = secured.cli("localhost", &["status"]);
    let is_told = said.contains("issuer") && said.contains("--admin-tls-ca (or ADMIN_TLS_CACERT)");
    assert!(!ok && (is_told || said.contains("name a CA file")), "{said}");
    // Through a port-forward the name is not the certificate's.
    let (ok, said) = trusting("127.0.0.1", &["status"]);
    assert!(
        !ok && said.contains("hostname mismatch") && said.contains("--admin-tls-san"),
        "{said}"
    );
    let (ok, said) = trusting("127.0.0.1", &["status", "--admin-tls-san", NAME]);
    assert!(ok && said.contains("healthy    yes"), "{said}");

    let plain = format!("http://127.0.0.1:{port}");
    let (ok, said) = sluicegate_with(&plain, &["status"]);
    assert!(
        !ok && said.contains("400") && said.contains("ask by https://"),
        "{said}"
    );
    let (ok, said) = sluicegate_with(&plain, &["status", "--admin-tls-ca", &ca]);
    assert!(!ok && said.contains("need --admin https://host:port"), "{said}");
    let without = Admin::start(false, &[]);
    let url = format!("https://127.0.0.1:{}", without.server.admin_port);
    let (ok, said) = sluicegate_with(&url, &["status", "--admin-tls-ca", &ca]);
    assert!(!ok && said.contains("does this port speak TLS?"), "{said}");
}

#[tokio::test]
async fn plain_http_is_refused_in_words_and_logged_once() {
    let secured = Secured::start();
    let client = Client::new(secured.admin.server.admin_port);
    let body = "x".repeat(100_000);
    for answer in [
        client.get("/metrics", &[]).await,
        client.get("/api/v1/status", &[]).await,
        client.post("/api/v1/explain", &[], &body).await,
    ] {
        assert_eq!(answer.status, 400);
        assert_eq!(answer.header("content-type"), Some("application/problem+json"));
        assert_eq!(answer.json()["detail"], "this port speaks TLS: ask by https://");
    }
    let log = secured.admin.server.process.log();
    assert_eq!(log.matches("plain HTTP on a port that speaks TLS").count(), 1, "{log}");
    // The port of decisions speaks as before.
    let public = Client::new(secured.admin.server.http_port);
    assert_eq!(public.get("/healthcheck", &[]).await.status, 200);
}

#[tokio::test]
async fn a_new_certificate_is_used_without_a_restart() {
    let mut secured = Secured::start();
    let port = secured.admin.server.admin_port;
    let new = Ca::new("new");
    let status = async |ca: &str| ask(port, ca, "http/1.1", get("/api/v1/status")).await;
    status(&secured.ca.pem()).await.expect("the old one serves");
    secured.volume.replace(&new.issue(&[NAME]).files(&new.pem()));
    secured
        .admin
        .server
        .process
        .wait_until("it reads the new certificate", |process| {
            process.log().contains("read again")
        });
    status(&new.pem()).await.expect("the new one serves");
    status(&secured.ca.pem()).await.expect_err("the old one is gone");
}

/// A gRPC port with certificates beside an admin port without, which is asked from elsewhere by a token.
#[test]
fn tokens_in_the_clear_are_warned_of() {
    let ca = Ca::new("ours");
    let volume = Volume::new(&ca.issue(&[NAME]).files(&ca.pem()));
    volume.replace(
        &[
            &ca.issue(&[NAME]).files(&ca.pem())[..],
            &[("token", TOKEN), ("rules.yaml", RULES)],
        ]
        .concat(),
    );
    let path = |name: &str| volume.path("..data").join(name).display().to_string();
    let is_warned = |admin: &str, more: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sluicegate"));
        command.args([
            "serve",
            "--rules",
            &path("rules.yaml"),
            "--admin-token-file",
            &path("token"),
        ]);
        command.args(["--grpc-tls-cert", &path("tls.crt"), "--grpc-tls-key", &path("tls.key")]);
        let port = free_port();
        command.args(["--grpc-addr", "127.0.0.1:0", "--http-addr", "127.0.0.1:0"]);
        command.args(["--admin-addr", &format!("{admin}:{port}")]).args(more);
        let mut process = Process::spawn("sluicegate", &mut command);
        process.wait_until("it serves", |process| process.log().contains("serving"));
        process.log().contains("crosses the network in the clear")
    };
    assert!(is_warned("0.0.0.0", &[]));
    assert!(!is_warned("127.0.0.1", &[]));
    let (cert, key) = (path("tls.crt"), path("tls.key"));
    assert!(!is_warned(
        "0.0.0.0",
        &["--admin-tls-cert", &cert, "--admin-tls-key", &key]
    ));
}
