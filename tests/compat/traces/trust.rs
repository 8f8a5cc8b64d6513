//! Whom the exporter trusts: the same collectors as OpenSSL does, and it says why not others.

use sluicegate::tls::ServerTls;

use super::collector::Collector;
use super::scene::Server;
use crate::support::certs::{Ca, Identity, Volume};

/// A collector that shows this certificate; it asks for one of the exporter's, which any of `clients` has signed.
async fn showing(protocol: &str, identity: &Identity, clients: &Ca) -> (Collector, Volume) {
    let files = Volume::new(&identity.files(&clients.pem()));
    let collector = match protocol {
        "grpc" => Collector::grpc(0, Some((identity, &clients.pem()))).await,
        _ => {
            let tls = ServerTls {
                cert: files.path("tls.crt"),
                key: files.path("tls.key"),
                client_ca: Some(files.path("ca.crt")),
                client_sans: Vec::new(),
            };
            Collector::https(&tls).await
        }
    };
    (collector, files)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_is_trusted_by_what_stands_in_the_file_and_refused_with_the_reason() {
    let clients = Ca::new("exporters");
    let own = clients.issue(&["sluicegate"]);
    // As `openssl req -x509` makes it: its own CA.
    let itself = Ca::named("localhost", &["127.0.0.1"]).itself();
    let elsewhere = Ca::new("collectors");
    let another_name = elsewhere.issue(&["collector.example"]);
    for protocol in ["grpc", "http"] {
        for (shown, trusted, refusal) in [
            (&itself, &itself.cert, None),
            (&itself, &elsewhere.pem(), Some("self-signed certificate")),
            (
                &another_name,
                &clients.pem(),
                Some("unable to get local issuer certificate"),
            ),
            (&another_name, &elsewhere.pem(), Some("hostname mismatch")),
        ] {
            let (mut collector, _files) = showing(protocol, shown, &clients).await;
            let ours = Volume::new(&own.files(trusted));
            let path = |name: &str| ours.path(name).display().to_string();
            let (ca, cert, key) = (path("ca.crt"), path("tls.crt"), path("tls.key"));
            let variables = [
                ("TRACING_EXPORTER_PROTOCOL", protocol),
                ("OTEL_EXPORTER_OTLP_CERTIFICATE", &ca),
                ("OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE", &cert),
                ("OTEL_EXPORTER_OTLP_CLIENT_KEY", &key),
            ];
            let url = format!("https://127.0.0.1:{}", collector.port);
            let mut server = Server::start(&url, &variables).await;
            server.ask("shop", &[]).await.expect("an answer");
            let Some(refusal) = refusal else {
                collector.next().await;
                continue;
            };
            server
                .process
                .process
                .wait_until(refusal, |process| process.log().contains("spans cannot be sent"));
            let log = server.process.process.log();
            assert!(log.contains(refusal), "{protocol}: {refusal}: {log}");
            assert!(collector.is_empty());
        }
    }
}
