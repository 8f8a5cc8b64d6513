//! Names in certificates (RFC 5280, 4.2.1.6). The common name is not one of them.

use std::net::IpAddr;

use rustls_pki_types::CertificateDer;
use x509_parser::extensions::GeneralName;
use x509_parser::parse_x509_certificate;

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
        Self::Dns(text.trim_end_matches('.').to_ascii_lowercase())
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
            (Self::Ip(IpAddr::V4(wanted)), GeneralName::IPAddress(found)) => wanted.octets() == *found,
            (Self::Ip(IpAddr::V6(wanted)), GeneralName::IPAddress(found)) => wanted.octets() == *found,
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
    }
}
