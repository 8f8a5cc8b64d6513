//! Names in certificates (RFC 5280, 4.2.1.6), and how hosts are written in them. The common name is not one of them.

use std::borrow::Cow;
use std::net::IpAddr;

use rustls_pki_types::{CertificateDer, ServerName};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::parse_x509_certificate;

/// A host as DNS and certificates write it: `bücher.example` is `xn--bcher-kva.example` (IDNA, UTS 46). What is no such
/// name stays as it is.
#[must_use]
pub fn ascii(host: &str) -> Cow<'_, str> {
    if host.is_ascii() {
        return Cow::Borrowed(host);
    }
    idna::domain_to_ascii(host).map_or(Cow::Borrowed(host), Cow::Owned)
}

/// Whether a certificate that is trusted itself is this server's. One without any alternative name may say so by its
/// common name: OpenSSL takes that too, and here no other certificate can be meant.
pub(super) fn names_server(certificate: &CertificateDer<'_>, server: &ServerName<'_>) -> bool {
    let wanted = San::parse(&server.to_str());
    let Ok((_, parsed)) = parse_x509_certificate(certificate) else {
        return false;
    };
    match parsed.subject_alternative_name() {
        Ok(Some(names)) => names.value.general_names.iter().any(|name| wanted.is(name)),
        Ok(None) => common_name(&parsed).is_some_and(|name| wanted.is_written(name)),
        Err(_) => false,
    }
}

/// The names in a certificate, for people.
pub(super) fn listed(certificate: &CertificateDer<'_>) -> String {
    let Ok((_, parsed)) = parse_x509_certificate(certificate) else {
        return String::new();
    };
    match parsed.subject_alternative_name() {
        Ok(Some(names)) => {
            let names = names.value.general_names.iter().map(|name| match name {
                GeneralName::DNSName(name) | GeneralName::URI(name) | GeneralName::RFC822Name(name) => {
                    (*name).to_owned()
                }
                GeneralName::IPAddress(octets) => address(octets).map_or("?".into(), |ip| ip.to_string()),
                _ => "?".into(),
            });
            names.collect::<Vec<_>>().join(", ")
        }
        _ => format!("none but CN={}", common_name(&parsed).unwrap_or_default()),
    }
}

fn address(octets: &[u8]) -> Option<IpAddr> {
    <[u8; 4]>::try_from(octets)
        .map(IpAddr::from)
        .or_else(|_| <[u8; 16]>::try_from(octets).map(IpAddr::from))
        .ok()
}

fn common_name<'a>(certificate: &'a X509Certificate<'_>) -> Option<&'a str> {
    certificate.subject().iter_common_name().next()?.as_str().ok()
}

/// A name that a certificate must carry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum San {
    /// A host; a certificate's `*.example.com` covers one label (RFC 6125).
    Dns(String),
    /// For instance a SPIFFE id; compared as it is.
    Uri(String),
    /// An address.
    Ip(IpAddr),
    /// Compared as it is.
    Email(String),
}

impl San {
    /// What kind of name `text` is: an IP address, a URI (`scheme://…`), an e-mail address, else a host.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        if let Ok(ip) = text.parse() {
            return Self::Ip(ip);
        }
        if text.contains("://") {
            return Self::Uri(text.to_owned());
        }
        if text.contains('@') {
            return Self::Email(text.to_owned());
        }
        Self::Dns(ascii(text.trim_end_matches('.')).to_ascii_lowercase())
    }

    /// Whether a text is this name.
    fn is_written(&self, text: &str) -> bool {
        match self {
            Self::Dns(wanted) => covers(text, wanted),
            Self::Ip(wanted) => text.parse() == Ok(*wanted),
            Self::Uri(_) | Self::Email(_) => false,
        }
    }

    /// Whether the certificate carries this name.
    #[must_use]
    pub fn is_in(&self, certificate: &CertificateDer<'_>) -> bool {
        let Ok((_, certificate)) = parse_x509_certificate(certificate) else {
            return false;
        };
        let Ok(Some(names)) = certificate.subject_alternative_name() else {
            return false;
        };
        names.value.general_names.iter().any(|name| self.is(name))
    }

    fn is(&self, name: &GeneralName<'_>) -> bool {
        match (self, name) {
            (Self::Dns(wanted), GeneralName::DNSName(found)) => covers(found, wanted),
            (Self::Uri(wanted), GeneralName::URI(found)) => wanted == found,
            (Self::Email(wanted), GeneralName::RFC822Name(found)) => wanted == found,
            (Self::Ip(wanted), GeneralName::IPAddress(found)) => address(found) == Some(*wanted),
            _ => false,
        }
    }
}

/// Whether the certificate's `found` covers the host `wanted` (lower case).
fn covers(found: &str, wanted: &str) -> bool {
    let found = found.trim_end_matches('.').to_ascii_lowercase();
    match found.strip_prefix("*.") {
        Some(parent) => wanted
            .split_once('.')
            .is_some_and(|(label, rest)| !label.is_empty() && rest == parent),
        None => found == wanted,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wildcard_covers_one_label() {
        for (found, wanted, expected) in [
            ("envoy.example.com", "envoy.example.com", true),
            ("Envoy.Example.COM.", "envoy.example.com", true),
            ("*.example.com", "envoy.example.com", true),
            ("*.example.com", "a.b.example.com", false),
            ("*.example.com", "example.com", false),
            ("*.example.com", ".example.com", false),
            ("*", "com", false),
            ("example.com", "envoy.example.com", false),
        ] {
            assert_eq!(covers(found, wanted), expected, "{found} covers {wanted}");
        }
    }

    #[test]
    fn kinds_of_names() {
        assert_eq!(San::parse("10.0.0.1"), San::Ip([10, 0, 0, 1].into()));
        assert_eq!(San::parse("spiffe://td/ns/a"), San::Uri("spiffe://td/ns/a".into()));
        assert_eq!(San::parse("a@b.c"), San::Email("a@b.c".into()));
        assert_eq!(San::parse("Envoy."), San::Dns("envoy".into()));
        assert_eq!(
            San::parse("Bücher.example"),
            San::Dns("xn--bcher-kva.example".into()),
            "as certificates write it"
        );
    }
}
