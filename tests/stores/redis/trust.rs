//! Whom the store trusts where more than one server shows a certificate: Sentinel, and chains of certificates.

use std::time::Instant;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, date_time_ymd};
use sluicegate::config::settings::{RedisSettings, RedisTls};
use sluicegate::tls::ClientTls;

use super::shapes::{refused, tls_settings};
use super::{PATIENCE, TIMEOUT, all_up, connect_with, hit, recover, settings};
use crate::limits::{all, sliding, take};
use crate::support::certs::{Ca, Identity, Volume};
use crate::support::process::{POLL, free_port};
use crate::support::redis::Redis;
use crate::support::redis::cluster::wait_for;
use crate::support::redis::sentinel::Sentinel;

/// The settings of a URL with TLS by this CA file.
fn trusting(url: &str, ca: &Volume) -> RedisSettings {
    let mut settings = settings(url);
    settings.tls = Some(RedisTls {
        client: ClientTls {
            ca: Some(ca.path("ca.crt")),
            ..ClientTls::default()
        },
        skip_hostname: false,
    });
    settings
}

/// The sentinels, the master and who takes over from it: all by one CA, and none by another.
#[tokio::test(flavor = "multi_thread")]
async fn sentinels_and_the_masters_that_they_name_show_certificates() {
    let (ca, stranger) = (Ca::new("ours"), Ca::new("a stranger"));
    let identity = ca.issue(&["127.0.0.1"]);
    let volume = Volume::new(&identity.files(&ca.pem()));
    let mut pair = Sentinel::start_tls(&volume);
    let limit = sliding(1000);

    let (store, _) = connect_with(&trusting(&pair.url(), &volume), TIMEOUT);
    all_up(&store).await;
    recover(&store, &all([take("k", limit, 1)])).await;

    let theirs = Volume::new(&identity.files(&stranger.pem()));
    let (stranger, _) = connect_with(&trusting(&pair.url(), &theirs), TIMEOUT);
    let start = Instant::now();
    loop {
        let error = hit(&stranger, "k", limit)
            .await
            .expect_err("nobody to trust")
            .to_string();
        if error.contains("unable to get local issuer certificate") {
            break;
        }
        assert!(start.elapsed() < PATIENCE, "{error}");
        tokio::time::sleep(POLL).await;
    }

    wait_for("a replica in step", || pair.replica.cli(&["DBSIZE"]) == "1");
    pair.master.kill();
    recover(&store, &all([take("k", limit, 1)])).await;
    assert!(pair.replica.cli(&["ROLE"]).starts_with("master"));
}

/// A Redis that shows this certificate.
fn showing(identity: &Identity) -> (Redis, Volume) {
    let volume = Volume::new(&identity.files(&identity.cert));
    let path = |name: &str| volume.path(name).display().to_string();
    let port = free_port();
    let (at, cert, key) = (port.to_string(), path("tls.crt"), path("tls.key"));
    let arguments = [
        ["--tls-auth-clients", "no"],
        ["--tls-port", &at],
        ["--tls-cert-file", &cert],
        ["--tls-key-file", &key],
        ["--tls-ca-cert-file", &cert],
    ];
    let mut redis = Redis::start_on(0, arguments.as_flattened());
    redis.port = port;
    (redis, volume)
}

fn draft(common_name: Option<&str>, names: &[&str], is_ca: bool) -> (CertificateParams, KeyPair) {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    if let Some(name) = common_name {
        params.distinguished_name.push(DnType::CommonName, name);
    }
    params.subject_alt_names = names.iter().map(|name| crate::support::certs::san(name)).collect();
    if is_ca {
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    }
    (params, KeyPair::generate().expect("a key"))
}

/// The trusted root is also vouched for by one that has expired, and the server sends that along; its own certificate has
/// no common name.
#[tokio::test(flavor = "multi_thread")]
async fn an_expired_root_beside_a_trusted_one_spoils_nothing() {
    let (mut old, old_key) = draft(Some("old root"), &[], true);
    (old.not_before, old.not_after) = (date_time_ymd(2000, 1, 1), date_time_ymd(2021, 1, 1));
    let (root, root_key) = draft(Some("root"), &[], true);
    let (leaf, leaf_key) = draft(None, &["127.0.0.1"], false);
    let signed = |params: &CertificateParams, key: &KeyPair, by: &CertificateParams, by_key: &KeyPair| {
        params
            .signed_by(key, &Issuer::from_params(by, by_key))
            .expect("a certificate")
            .pem()
    };
    let identity = Identity {
        cert: signed(&leaf, &leaf_key, &root, &root_key) + &signed(&root, &root_key, &old, &old_key),
        key: leaf_key.serialize_pem(),
    };
    let (redis, _files) = showing(&identity);
    let trusted = root.self_signed(&root_key).expect("a root").pem();
    let expired = old.self_signed(&old_key).expect("a root").pem();
    let by = |pem: &str| Volume::new(&identity.files(pem));

    let (ours, theirs) = (by(&trusted), by(&expired));
    let (store, _) = connect_with(&tls_settings(redis.port, None, &ours, false), PATIENCE);
    all_up(&store).await;
    hit(&store, "k", sliding(10)).await.expect("an answer");
    let error = refused(&tls_settings(redis.port, None, &theirs, false)).await;
    assert!(error.contains("certificate has expired"), "{error}");
}

/// The server's name is one that people write with other letters than certificates do.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_is_called_by_an_international_name() {
    let ca = Ca::new("ours");
    let identity = ca.issue(&["xn--bcher-kva.example"]);
    let (redis, _files) = showing(&identity);
    let volume = Volume::new(&identity.files(&ca.pem()));
    for (name, served) in [("bücher.example", true), ("bucher.example", false)] {
        let mut settings = tls_settings(redis.port, None, &volume, false);
        if let Some(tls) = &mut settings.tls {
            tls.client.server_name = Some(name.to_owned());
        }
        if served {
            let (store, _) = connect_with(&settings, PATIENCE);
            all_up(&store).await;
            hit(&store, "k", sliding(10)).await.expect("an answer");
        } else {
            let error = refused(&settings).await;
            assert!(error.contains("hostname mismatch"), "{error}");
        }
    }
}
