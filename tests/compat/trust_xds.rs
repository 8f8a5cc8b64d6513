//! The control plane's certificates as [`trust`](super::trust) has them for a handshake alone: the ADS client takes what
//! OpenSSL and Go take. The control plane is named by its address.

use rcgen::{BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair, date_time_ymd};
use sluicegate::config::{
    settings::XdsSettings,
    xds::{Update, XdsClient},
};
use sluicegate::tls::ClientTls;
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;

use crate::support::{
    ads::ControlPlane,
    certs::{Ca, Identity, Volume, san},
};

fn draft(common_name: &str, names: &[&str], is_ca: bool) -> (CertificateParams, KeyPair) {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    if !common_name.is_empty() {
        params.distinguished_name.push(DnType::CommonName, common_name);
    }
    params.subject_alt_names = names.iter().map(|name| san(name)).collect();
    if is_ca {
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    }
    (params, KeyPair::generate().expect("a key"))
}

/// Whether a configuration arrives from a control plane with this certificate.
async fn is_trusted(what: &str, server: &Identity, trusted: &str) {
    let ours = Ca::new("ours");
    let (own, ours_pem) = (ours.issue(&["sluicegate"]), ours.pem());
    let mut plane = ControlPlane::new(Some((server, &ours_pem)));
    plane.publish("1", &[]);
    plane.start();
    let volume = Volume::new(&[("ca.crt", trusted), ("tls.crt", &own.cert), ("tls.key", &own.key)]);
    let client = XdsClient::new(XdsSettings {
        server: plane.address(),
        node_id: "n".into(),
        tls: Some(ClientTls {
            ca: Some(volume.path("ca.crt")),
            identity: Some((volume.path("tls.crt"), volume.path("tls.key"))),
            server_name: None,
        }),
        ..XdsSettings::default()
    })
    .expect("good certificates");
    let (sender, mut updates) = mpsc::unbounded_channel::<Update>();
    let run = client.run(move |update| {
        sender.send(update).expect("the test listens");
        Ok(())
    });
    let _running = AbortOnDropHandle::new(tokio::spawn(run));
    let update = tokio::time::timeout(std::time::Duration::from_secs(30), updates.recv()).await;
    assert!(matches!(update, Ok(Some(_))), "{what}: refused");
}

#[tokio::test]
async fn a_control_plane_is_trusted_by_what_stands_in_the_file() {
    for (what, common_name) in [("self-signed", "localhost"), ("self-signed, without a common name", "")] {
        let (params, key) = draft(common_name, &["127.0.0.1"], true);
        let cert = params.self_signed(&key).expect("a certificate").pem();
        let trusted = cert.clone();
        let server = Identity {
            cert,
            key: key.serialize_pem(),
        };
        is_trusted(what, &server, &trusted).await;
    }
}

/// The trusted root is also vouched for by one that has expired, and the chain says so.
#[tokio::test]
async fn an_expired_root_beside_a_trusted_one_spoils_nothing() {
    let (mut old, old_key) = draft("old root", &[], true);
    (old.not_before, old.not_after) = (date_time_ymd(2000, 1, 1), date_time_ymd(2021, 1, 1));
    let (root, root_key) = draft("root", &[], true);
    let (leaf, leaf_key) = draft("leaf", &["127.0.0.1"], false);
    let issued = leaf
        .signed_by(&leaf_key, &Issuer::from_params(&root, &root_key))
        .expect("a leaf");
    let cross = root
        .signed_by(&root_key, &Issuer::from_params(&old, &old_key))
        .expect("a cross-signed root");
    let trusted = root.self_signed(&root_key).expect("a root").pem();
    let server = Identity {
        cert: issued.pem() + &cross.pem(),
        key: leaf_key.serialize_pem(),
    };
    is_trusted("cross-signed", &server, &trusted).await;
}
