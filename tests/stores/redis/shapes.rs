//! Redis as people run it: sockets, passwords, TLS, Sentinel, Cluster.

use std::sync::Arc;
use std::time::Duration;

use sluicegate::model::{AlgorithmKind, Check, Hits};
use sluicegate::store::{Refusal, Store as _, StoreError};

use sluicegate::config::settings::{RedisSettings, RedisTls};
use sluicegate::tls::ClientTls;

use super::{Events, PATIENCE, RedisStore, TIMEOUT, all_up, connect_with, connections, hit, patient, settings};
use crate::limits::{all, per_minute, sliding, take};
use crate::support::certs::{Ca, Identity, Volume};
use crate::support::redis::Redis;

#[tokio::test(flavor = "multi_thread")]
async fn a_unix_socket() {
    let dir = tempfile::tempdir().expect("a directory");
    let socket = dir.path().join("redis.sock");
    let path = socket.display().to_string();
    let _redis = Redis::start_on(0, &["--unixsocket", &path]);
    let store = patient(&format!("unix://{path}"));
    all_up(&store).await;
    assert_eq!(hit(&store, "k", sliding(10)).await.expect("an answer").remaining, 9);
}

#[tokio::test(flavor = "multi_thread")]
async fn racing_tasks_admit_exactly_the_limit() {
    let redis = Redis::start();
    let stores = [patient(&redis.url()), patient(&redis.url())].map(Arc::new);
    for store in &stores {
        all_up(store).await;
    }
    let tasks: Vec<_> = (0..64)
        .map(|n| {
            let store = stores[n % 2].clone();
            tokio::spawn(async move {
                let mut admitted = 0;
                for _ in 0..30 {
                    let outcome = hit(&store, "one", sliding(1000)).await.expect("an answer");
                    admitted += usize::from(outcome.allowed);
                }
                admitted
            })
        })
        .collect();
    let mut admitted = 0;
    for task in tasks {
        admitted += task.await.expect("no panic");
    }
    assert_eq!(admitted, 1000);
}

/// The rights that docs/redis.md names, for the keys of these tests.
pub(super) fn acl_line() -> String {
    let docs = crate::support::envoy::project_file("docs/redis.md");
    let line = docs.lines().find(|line| line.starts_with("ACL SETUSER"));
    let line = line.expect("a line");
    line.replace(">password", ">s3cret-w0rd").replace("~sg:*", "~test:*")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_with_a_password_and_no_more_rights_than_needed() {
    let redis = Redis::start();
    let line = acl_line();
    redis.cli(&line.split(' ').collect::<Vec<_>>());
    let at = format!("127.0.0.1:{}", redis.port);
    let store = patient(&format!("redis://sluicegate:s3cret-w0rd@{at}"));
    all_up(&store).await;
    for kind in AlgorithmKind::ALL {
        let limit = per_minute(kind, 10);
        for hits in [Hits::Acquire(2), Hits::Debit(1), Hits::Refund(1), Hits::Peek] {
            let one = Check {
                hits,
                ..take(kind.name(), limit, 0)
            };
            let answer = store.check(&all([one])).await;
            answer.unwrap_or_else(|error| panic!("{} {hits:?}: {error}", kind.name()));
        }
    }

    let wrong = RedisSettings {
        pool_size: 1,
        ..settings(&format!("redis://sluicegate:wr0ng-s3cret@{at}"))
    };
    let (store, events) = connect_with(&wrong, TIMEOUT);
    let error = failed_to_connect(&store, &events).await;
    assert!(
        matches!(
            &error,
            StoreError::Refused {
                kind: Refusal::Auth,
                ..
            }
        ),
        "{error}"
    );
    let shown = format!("{error} {error:?} {:?} {:?}", events.lock(), connections(&store));
    assert!(!shown.contains("s3cret"), "{shown}");
}

/// A server that wants client certificates of its CA, under a name that is not ours to choose.
fn tls_server(volume: &Volume, names: &[&str], ca: &Ca) -> (Redis, Identity) {
    let identity = ca.issue(names);
    volume.replace(&identity.files(&ca.pem()));
    let path = |name: &str| volume.path(name).display().to_string();
    let port = crate::support::process::free_port().to_string();
    let mut redis = Redis::start_on(
        0,
        &[
            "--tls-port",
            &port,
            "--tls-cert-file",
            &path("tls.crt"),
            "--tls-key-file",
            &path("tls.key"),
            "--tls-ca-cert-file",
            &path("ca.crt"),
        ],
    );
    redis.port = port.parse().expect("a port");
    (redis, identity)
}

pub(super) fn tls_settings(port: u16, volume: Option<&Volume>, ca: &Volume, skip_hostname: bool) -> RedisSettings {
    let mut settings = settings(&format!("rediss://127.0.0.1:{port}"));
    settings.tls = Some(RedisTls {
        client: ClientTls {
            ca: Some(ca.path("ca.crt")),
            identity: volume.map(|volume| (volume.path("tls.crt"), volume.path("tls.key"))),
            server_name: None,
        },
        skip_hostname,
    });
    settings
}

/// Why a store does not connect, once it has tried.
async fn failed_to_connect(store: &RedisStore, events: &Events) -> StoreError {
    while events.lock().is_empty() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    hit(store, "k", sliding(10)).await.expect_err("no connection")
}

pub(super) async fn refused(settings: &RedisSettings) -> String {
    let one = RedisSettings {
        pool_size: 1,
        ..settings.clone()
    };
    let (store, events) = connect_with(&one, TIMEOUT);
    let error = failed_to_connect(&store, &events).await;
    assert_eq!(error.kind(), "unavailable", "{error}");
    error.to_string()
}

/// The recipe of most tutorials, and of envoyproxy/ratelimit's Makefile: `openssl req -x509`, which makes a CA certificate.
#[tokio::test(flavor = "multi_thread")]
async fn tls_with_a_self_signed_certificate_that_is_trusted_itself() {
    let ca = Ca::named("127.0.0.1", &["127.0.0.1"]);
    let itself = ca.itself();
    let volume = Volume::new(&itself.files(&ca.pem()));
    let path = |name: &str| volume.path(name).display().to_string();
    let port = crate::support::process::free_port().to_string();
    let (cert, key) = (path("tls.crt"), path("tls.key"));
    let mut redis = Redis::start_on(
        0,
        &[
            "--tls-auth-clients",
            "no",
            "--tls-port",
            &port,
            "--tls-cert-file",
            &cert,
            "--tls-key-file",
            &key,
            "--tls-ca-cert-file",
            &cert,
        ],
    );
    redis.port = port.parse().expect("a port");
    let (store, _) = connect_with(&tls_settings(redis.port, None, &volume, false), PATIENCE);
    all_up(&store).await;
    assert!(hit(&store, "k", sliding(10)).await.expect("decided").allowed);
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_with_client_certificates() {
    let (ca, stranger) = (Ca::new("ours"), Ca::new("a stranger"));
    let empty = ca.issue(&["nobody"]);
    let volume = |ca: &Ca| Volume::new(&empty.files(&ca.pem()));
    let (at_server, ours, theirs) = (volume(&ca), volume(&ca), volume(&stranger));
    let (redis, _) = tls_server(&at_server, &["127.0.0.1"], &ca);
    ours.replace(&ca.issue(&["gate"]).files(&ca.pem()));
    theirs.replace(&stranger.issue(&["gate"]).files(&stranger.pem()));

    let (store, _) = connect_with(&tls_settings(redis.port, Some(&ours), &ours, false), PATIENCE);
    all_up(&store).await;
    assert_eq!(hit(&store, "k", sliding(10)).await.expect("an answer").remaining, 9);

    refused(&tls_settings(redis.port, None, &ours, false)).await;
    refused(&tls_settings(redis.port, Some(&theirs), &ours, false)).await;
    let unknown = refused(&tls_settings(redis.port, Some(&ours), &theirs, false)).await;
    assert!(unknown.contains("unable to get local issuer certificate"), "{unknown}");

    let mut missing = tls_settings(redis.port, None, &ours, false);
    if let Some(tls) = &mut missing.tls {
        tls.client.ca = Some("/nowhere/ca.crt".into());
    }
    let observer = Arc::new(|_: &_| ());
    let error = sluicegate::store::redis::RedisTransport::connect(&missing, TIMEOUT, observer);
    let error = error.map(|_| ()).expect_err("no such file").to_string();
    assert!(error.contains("/nowhere/ca.crt"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_of_a_server_with_another_name() {
    let ca = Ca::new("ours");
    let empty = ca.issue(&["nobody"]);
    let (at_server, ours) = (
        Volume::new(&empty.files(&ca.pem())),
        Volume::new(&empty.files(&ca.pem())),
    );
    let (redis, _) = tls_server(&at_server, &["redis.example"], &ca);
    let error = refused(&tls_settings(redis.port, Some(&ours), &ours, false)).await;
    assert!(error.contains("hostname mismatch: the certificate names"), "{error}");

    let (store, _) = connect_with(&tls_settings(redis.port, Some(&ours), &ours, true), PATIENCE);
    all_up(&store).await;
    hit(&store, "k", sliding(10)).await.expect("an answer");

    let mut named = tls_settings(redis.port, Some(&ours), &ours, false);
    if let Some(tls) = &mut named.tls {
        tls.client.server_name = Some("redis.example".to_owned());
    }
    let (store, _) = connect_with(&named, PATIENCE);
    all_up(&store).await;
    hit(&store, "k", sliding(10)).await.expect("an answer");

    // Whatever the name, it must be signed by whom we trust.
    let stranger = Ca::new("a stranger");
    let theirs = Volume::new(&empty.files(&stranger.pem()));
    let error = refused(&tls_settings(redis.port, Some(&ours), &theirs, true)).await;
    assert!(error.contains("unable to get local issuer certificate"), "{error}");
}
