//! Why a certificate is refused, in words that say how to fix it, where rustls has no more than a variant's name.

use std::fmt;
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::{CertificateError, Error, OtherError};
use x509_parser::parse_x509_certificate;
use x509_parser::x509::X509Version;

/// Bytes of a peer's certificate that an error shows at most.
const MAX_SHOWN: usize = 120;

/// A reason, each as OpenSSL names it; short, since logs cut what servers make them say.
#[derive(thiserror::Error)]
pub(super) enum Refusal {
    #[error("self-signed certificate ({0}), not in the trusted CA file")]
    SelfSigned(String),
    #[error("unable to get local issuer certificate (issuer {0}): not in the trusted CA file")]
    UnknownIssuer(String),
    #[error("CA certificate as a server's or client's own (basicConstraints CA:TRUE): add it to the trusted CA file")]
    CaAsLeaf,
    #[error("certificate has expired: that of the trusted CA")]
    ExpiredRoot,
    #[error("certificate has expired")]
    Expired,
    #[error("certificate is not yet valid")]
    NotValidYet,
    #[error("unsupported certificate purpose: see its extended key usage")]
    Purpose,
    #[error("hostname mismatch: the certificate names {0}")]
    Name(String),
    #[error("X.509 version 1 certificate, which has no subjectAltName: issue version 3")]
    Version,
}

/// rustls prints the `Debug` form of what it does not know.
impl fmt::Debug for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        CertificateError::Other(OtherError(Arc::new(refusal))).into()
    }
}

/// The same error with a reason where it had none; `certificate` is the peer's own.
pub(super) fn explained(error: Error, certificate: &CertificateDer<'_>) -> Error {
    let Error::InvalidCertificate(cause) = &error else {
        return error;
    };
    match cause {
        CertificateError::UnknownIssuer => unknown_issuer(certificate).into(),
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => Refusal::Expired.into(),
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => Refusal::NotValidYet.into(),
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => Refusal::Purpose.into(),
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            Refusal::Name(shown(&super::san::listed(certificate))).into()
        }
        // webpki's own errors, which rustls does not name.
        CertificateError::Other(_) => match parse_x509_certificate(certificate) {
            Ok((_, parsed)) if parsed.version() != X509Version::V3 => Refusal::Version.into(),
            Ok((_, parsed)) if parsed.is_ca() => match unknown_issuer(certificate) {
                Refusal::UnknownIssuer(_) => Refusal::CaAsLeaf.into(),
                self_signed => self_signed.into(),
            },
            _ => error,
        },
        _ => error,
    }
}

fn unknown_issuer(certificate: &CertificateDer<'_>) -> Refusal {
    let (subject, issuer) = names(certificate);
    if subject == issuer {
        Refusal::SelfSigned(subject)
    } else {
        Refusal::UnknownIssuer(issuer)
    }
}

/// Subject and issuer, fit for a log.
fn names(certificate: &CertificateDer<'_>) -> (String, String) {
    match parse_x509_certificate(certificate) {
        Ok((_, parsed)) => (
            shown(&parsed.subject().to_string()),
            shown(&parsed.issuer().to_string()),
        ),
        Err(_) => ("?".into(), "unreadable".into()),
    }
}

/// What a peer wrote: short, and without characters that a terminal obeys.
fn shown(text: &str) -> String {
    let text = &text[..text.floor_char_boundary(MAX_SHOWN)];
    format!("\"{}\"", text.escape_debug())
}
