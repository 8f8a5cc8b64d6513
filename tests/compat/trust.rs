//! Which certificates are trusted: those that OpenSSL and Go trust, of servers (Redis, control plane, collector) and of
//! the listener's clients; others are refused with the reason.

use std::sync::Arc;

use rcgen::{
    BasicConstraints, Certificate, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, date_time_ymd,
};
use rustls::pki_types::ServerName;
use sluicegate::tls::{ClientTls, ServerTls, plain_client_config, san, server_config};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::support::certs::{Ca, Identity, Volume, san as alternative_name};

const NAME: &str = "ratelimit.test";

/// A certificate in the making.
struct Draft {
    params: CertificateParams,
    key: KeyPair,
}

impl Draft {
    fn new(common_name: Option<&str>, names: &[&str]) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        if let Some(name) = common_name {
            params.distinguished_name.push(DnType::CommonName, name);
        }
        params.subject_alt_names = names.iter().map(|name| alternative_name(name)).collect();
        Self {
            params,
            key: KeyPair::generate().expect("a key"),
        }
    }

    /// As `openssl req -x509` makes every certificate.
    fn ca(mut self) -> Self {
        self.params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        self
    }

    fn between(mut self, from: i32, until: i32) -> Self {
        self.params.not_before = date_time_ymd(from, 1, 1);
        self.params.not_after = date_time_ymd(until, 1, 1);
        self
    }

    fn only_for(mut self, purpose: ExtendedKeyUsagePurpose) -> Self {
        self.params.extended_key_usages = vec![purpose];
        self
    }

    fn self_signed(&self) -> Certificate {
        self.params.self_signed(&self.key).expect("a certificate")
    }

    fn signed_by(&self, issuer: &Self) -> Certificate {
        let issuer = Issuer::from_params(&issuer.params, &issuer.key);
        self.params.signed_by(&self.key, &issuer).expect("a certificate")
    }

    fn identity(&self, chain: &[&Certificate]) -> Identity {
        Identity {
            cert: chain.iter().map(|certificate| certificate.pem()).collect(),
            key: self.key.serialize_pem(),
        }
    }
}

/// A peer's certificate, who trusts what, and what comes of it.
struct Case {
    what: &'static str,
    peer: Identity,
    trusted: String,
    /// What a server is called.
    name: &'static str,
    /// What a refusal says, of a server and of a client; `None`: trusted.
    refusal: [Option<&'static str>; 2],
}

impl Case {
    fn new(what: &'static str, peer: Identity, trusted: &[&Certificate]) -> Self {
        Self {
            what,
            peer,
            trusted: trusted.iter().map(|certificate| certificate.pem()).collect(),
            name: NAME,
            refusal: [None, None],
        }
    }

    fn called(self, name: &'static str) -> Self {
        Self { name, ..self }
    }

    fn refused(self, reason: &'static str) -> Self {
        self.refused_apart(Some(reason), Some(reason))
    }

    fn refused_apart(self, as_server: Option<&'static str>, as_client: Option<&'static str>) -> Self {
        Self {
            refusal: [as_server, as_client],
            ..self
        }
    }

    fn check(&self, side: usize, found: Result<(), String>) {
        let case = format!("{}, as {}", self.what, ["a server", "a client"][side]);
        match (self.refusal[side], found) {
            (None, Ok(())) => {}
            (None, Err(error)) => panic!("{case}: refused: {error}"),
            (Some(_), Ok(())) => panic!("{case}: trusted"),
            (Some(reason), Err(error)) => assert!(error.contains(reason), "{case}: {error}"),
        }
    }
}

/// A handshake and a byte; the error is that of the side that checks: [the client, the server].
async fn shake(server: &ServerTls, client: &ClientTls, any_name: bool, name: &str) -> [Result<(), String>; 2] {
    let acceptor = TlsAcceptor::from(Arc::new(server_config(server).expect("good files")));
    let connector = TlsConnector::from(Arc::new(plain_client_config(client, any_name).expect("good files")));
    let name = ServerName::try_from(san::ascii(name).into_owned()).expect("a name");
    let (ours, theirs) = tokio::io::duplex(1 << 16);
    let client = async {
        let mut stream = connector.connect(name, ours).await?;
        stream.read_u8().await.map(drop)
    };
    let server = async {
        let mut stream = acceptor.accept(theirs).await?;
        stream.write_u8(1).await?;
        stream.flush().await
    };
    let (client, server) = tokio::join!(client, server);
    [client, server].map(|result| result.map_err(|error| error.to_string()))
}

async fn check(case: &Case) {
    let good = Ca::new("the other side's");
    let other = good.issue(&[NAME]);
    // Both sides' files in one volume.
    let (good_ca, peer) = (good.pem(), &case.peer);
    let volume = Volume::new(&[
        ("peer.crt", &peer.cert),
        ("peer.key", &peer.key),
        ("trusted.crt", &case.trusted),
        ("other.crt", &other.cert),
        ("other.key", &other.key),
        ("good.crt", &good_ca),
    ]);
    let path = |name| volume.path(name);
    let server = ServerTls {
        cert: path("peer.crt"),
        key: path("peer.key"),
        client_ca: None,
        client_sans: Vec::new(),
    };
    let client = ClientTls {
        ca: Some(path("trusted.crt")),
        ..ClientTls::default()
    };
    let [found, _] = shake(&server, &client, false, case.name).await;
    case.check(0, found);

    let server = ServerTls {
        cert: path("other.crt"),
        key: path("other.key"),
        client_ca: Some(path("trusted.crt")),
        client_sans: Vec::new(),
    };
    let client = ClientTls {
        ca: Some(path("good.crt")),
        identity: Some((path("peer.crt"), path("peer.key"))),
        server_name: None,
    };
    let [_, found] = shake(&server, &client, false, NAME).await;
    case.check(1, found);
}

#[tokio::test]
async fn a_certificate_in_the_trusted_file_is_trusted() {
    let own = Draft::new(Some("localhost"), &[NAME, "127.0.0.1", "2001:db8::7"]).ca();
    let pem = own.self_signed();
    let unnamed = Draft::new(None, &[NAME]).ca();
    let by_common_name = Draft::new(Some(NAME), &[]).ca();
    let ca = Draft::new(Some("ours"), &[]).ca();
    let issued = Draft::new(Some("a leaf"), &[NAME]);
    let idn = Draft::new(None, &["xn--bcher-kva.example"]).ca();
    let (a, b, c, d) = (
        unnamed.self_signed(),
        by_common_name.self_signed(),
        issued.signed_by(&ca),
        idn.self_signed(),
    );
    for case in [
        Case::new("self-signed", own.identity(&[&pem]), &[&pem]),
        Case::new("self-signed, by IPv4 address", own.identity(&[&pem]), &[&pem]).called("127.0.0.1"),
        Case::new("self-signed, by IPv6 address", own.identity(&[&pem]), &[&pem]).called("2001:db8::7"),
        Case::new(
            "self-signed, its name not by subjectAltName",
            own.identity(&[&pem]),
            &[&pem],
        )
        .called("localhost")
        .refused_apart(Some("hostname mismatch"), None),
        Case::new("no common name", unnamed.identity(&[&a]), &[&a]),
        Case::new("only a common name", by_common_name.identity(&[&b]), &[&b]),
        Case::new("only another common name", by_common_name.identity(&[&b]), &[&b])
            .called("another.test")
            .refused_apart(Some("hostname mismatch"), None),
        Case::new(
            "issued by somebody, and itself in the file",
            issued.identity(&[&c]),
            &[&c],
        ),
        Case::new("an international name", idn.identity(&[&d]), &[&d]).called("bücher.example"),
        Case::new("self-signed, another in the file", own.identity(&[&pem]), &[&a]).refused("self-signed certificate"),
    ] {
        check(&case).await;
    }
}

#[tokio::test]
async fn dates_and_purpose_count_for_those_in_the_file_too() {
    let expired = Draft::new(None, &[NAME]).ca().between(2010, 2020);
    let not_yet = Draft::new(None, &[NAME]).ca().between(2200, 2210);
    let client = Draft::new(None, &[NAME])
        .ca()
        .only_for(ExtendedKeyUsagePurpose::ClientAuth);
    let (a, b, c) = (expired.self_signed(), not_yet.self_signed(), client.self_signed());
    for case in [
        Case::new("expired", expired.identity(&[&a]), &[&a]).refused("certificate has expired"),
        Case::new("not yet valid", not_yet.identity(&[&b]), &[&b]).refused("certificate is not yet valid"),
        Case::new("for clients", client.identity(&[&c]), &[&c])
            .refused_apart(Some("unsupported certificate purpose"), None),
    ] {
        check(&case).await;
    }
}

/// As with Let's Encrypt in 2021: the root is trusted, and also vouched for by another that has expired.
#[tokio::test]
async fn an_expired_root_vouches_for_nobody_and_spoils_no_other() {
    let old = Draft::new(Some("old root"), &[]).ca().between(2000, 2021);
    let root = Draft::new(Some("root"), &[]).ca();
    let middle = Draft::new(Some("intermediate"), &[]).ca();
    let leaf = Draft::new(Some("leaf"), &[NAME]);
    let (issued, between, cross) = (leaf.signed_by(&middle), middle.signed_by(&root), root.signed_by(&old));
    let (root, old) = (root.self_signed(), old.self_signed());
    let chain = || leaf.identity(&[&issued, &between, &cross]);
    for case in [
        Case::new("the root", chain(), &[&root]),
        Case::new("the expired root and the root", chain(), &[&old, &root]),
        Case::new("the root and the expired root", chain(), &[&root, &old]),
        Case::new("only the expired root", chain(), &[&old]).refused("certificate has expired"),
    ] {
        check(&case).await;
    }
}

#[tokio::test]
async fn refusals_say_why() {
    let ca = Draft::new(Some("ours"), &[]).ca();
    let another = Draft::new(Some("an\u{1b}other"), &[]).ca();
    let leaf = Draft::new(Some("leaf"), &[NAME]);
    let as_ca = Draft::new(Some("leaf"), &[NAME]).ca();
    let unnamed = Draft::new(Some(NAME), &[]);
    let expired = Draft::new(Some("leaf"), &[NAME]).between(2010, 2020);
    let root = ca.self_signed();
    let signed = |draft: &Draft, by: &Draft| draft.identity(&[&draft.signed_by(by)]);
    for case in [
        Case::new("by another CA", signed(&leaf, &another), &[&root]).refused(
            "unable to get local issuer certificate (issuer \"CN=an\\u{1b}other\"): not in the trusted CA file",
        ),
        Case::new("a leaf that is a CA certificate", signed(&as_ca, &ca), &[&root]).refused("basicConstraints CA:TRUE"),
        Case::new("no subjectAltName", signed(&unnamed, &ca), &[&root]).refused_apart(
            Some("hostname mismatch: the certificate names \"none but CN=ratelimit.test\""),
            None,
        ),
        Case::new("expired", signed(&expired, &ca), &[&root]).refused("certificate has expired"),
    ] {
        check(&case).await;
    }
}

#[tokio::test]
async fn a_listeners_names_may_be_written_as_people_do() {
    let ca = Ca::new("ours");
    let (server, envoy) = (ca.issue(&[NAME]), ca.issue(&["xn--bcher-kva.example"]));
    let pem = ca.pem();
    let volume = Volume::new(&[
        ("tls.crt", &server.cert),
        ("tls.key", &server.key),
        ("ca.crt", &pem),
        ("envoy.crt", &envoy.cert),
        ("envoy.key", &envoy.key),
    ]);
    let client = ClientTls {
        ca: Some(volume.path("ca.crt")),
        identity: Some((volume.path("envoy.crt"), volume.path("envoy.key"))),
        server_name: None,
    };
    for (name, served) in [("bücher.example", true), ("bucher.example", false)] {
        let server = ServerTls {
            cert: volume.path("tls.crt"),
            key: volume.path("tls.key"),
            client_ca: Some(volume.path("ca.crt")),
            client_sans: vec![name.into()],
        };
        let [_, found] = shake(&server, &client, false, NAME).await;
        assert_eq!(found.is_ok(), served, "{name}: {found:?}");
        if let Err(error) = found {
            assert!(error.contains("hostname mismatch: the certificate names"), "{error}");
        }
    }
}
