//! The certificates of a CA file, and how a peer's certificate is checked against them: as OpenSSL and Go do where
//! webpki is stricter.
//!
//! - A certificate that stands in the file itself is trusted, whoever signed it and also if it is a CA certificate, as
//!   `openssl req -x509` makes them. Its dates and its purpose still count.
//! - A root that has expired vouches for nobody; for webpki a root has no dates.

use std::sync::Arc;

use rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::WebPkiSupportedAlgorithms;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, Error, RootCertStore};
use x509_parser::parse_x509_certificate;

use super::refusal::{Refusal, explained};
use super::san;

/// What a certificate is to be used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    Server,
    Client,
}

/// The certificates that are trusted.
#[derive(Debug)]
pub(super) struct Trust {
    anchors: Vec<Anchor>,
    /// All of them, whatever their dates.
    all: Arc<RootCertStore>,
}

#[derive(Debug)]
struct Anchor {
    certificate: CertificateDer<'static>,
    /// Seconds since 1970; `None` where they cannot be read.
    dates_s: Option<(i64, i64)>,
}

impl Trust {
    /// Those of these certificates that can be read; `None` if none can.
    pub fn new(certificates: Vec<CertificateDer<'static>>) -> Option<Self> {
        let mut all = RootCertStore::empty();
        let mut anchors = Vec::with_capacity(certificates.len());
        for certificate in certificates {
            if all.add(certificate.clone()).is_ok() {
                let dates_s = parse_x509_certificate(&certificate).ok().map(|(_, parsed)| {
                    let dates = parsed.validity();
                    (dates.not_before.timestamp(), dates.not_after.timestamp())
                });
                anchors.push(Anchor { certificate, dates_s });
            }
        }
        (!anchors.is_empty()).then(|| Self {
            anchors,
            all: Arc::new(all),
        })
    }

    /// All of them, whatever their dates.
    pub fn all(&self) -> &Arc<RootCertStore> {
        &self.all
    }

    /// Those that are valid now, if not all are.
    pub fn valid_subset(&self, now: UnixTime) -> Option<Arc<RootCertStore>> {
        if self.anchors.iter().all(|anchor| anchor.is_valid(now)) {
            return None;
        }
        let mut valid = RootCertStore::empty();
        for anchor in self.anchors.iter().filter(|anchor| anchor.is_valid(now)) {
            // Could be read when the file was.
            let _ = valid.add(anchor.certificate.clone());
        }
        Some(Arc::new(valid))
    }

    /// Whether the certificate itself is among them and may be used so now; an error where it is, but may not.
    pub fn pins(&self, certificate: &CertificateDer<'_>, purpose: Purpose, now: UnixTime) -> Result<bool, Error> {
        let Some(anchor) = self.anchors.iter().find(|anchor| anchor.certificate == *certificate) else {
            return Ok(false);
        };
        if let Some((not_before, not_after)) = anchor.dates_s {
            let time = seconds(now);
            if time < not_before {
                return Err(CertificateError::NotValidYet.into());
            }
            if time > not_after {
                return Err(CertificateError::Expired.into());
            }
        }
        if allows(certificate, purpose) {
            Ok(true)
        } else {
            Err(CertificateError::InvalidPurpose.into())
        }
    }

    /// Checks a server's certificate, and its name if one is wanted.
    pub fn check_server(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: Option<&ServerName<'_>>,
        now: UnixTime,
        algorithms: &WebPkiSupportedAlgorithms,
    ) -> Result<(), Error> {
        let explain = |error| explained(error, certificate);
        if self.pins(certificate, Purpose::Server, now).map_err(explain)? {
            return match name {
                Some(name) if !san::names_server(certificate, name) => {
                    Err(explain(CertificateError::NotValidForName.into()))
                }
                _ => Ok(()),
            };
        }
        let parsed = ParsedCertificate::try_from(certificate).map_err(explain)?;
        let signed_by = |roots: &RootCertStore| {
            verify_server_cert_signed_by_trust_anchor(&parsed, roots, intermediates, now, algorithms.all)
        };
        match self.valid_subset(now) {
            None => signed_by(&self.all).map_err(explain)?,
            Some(valid) => signed_by(&valid).map_err(|error| match signed_by(&self.all) {
                Ok(()) => Refusal::ExpiredRoot.into(),
                Err(_) => explain(error),
            })?,
        }
        name.map_or(Ok(()), |name| verify_server_name(&parsed, name).map_err(explain))
    }
}

impl Anchor {
    fn is_valid(&self, now: UnixTime) -> bool {
        self.dates_s
            .is_none_or(|(not_before, not_after)| (not_before..=not_after).contains(&seconds(now)))
    }
}

fn seconds(now: UnixTime) -> i64 {
    i64::try_from(now.as_secs()).unwrap_or(i64::MAX)
}

/// Whether the extended key usage allows it; a certificate without one is for everything.
fn allows(certificate: &CertificateDer<'_>, purpose: Purpose) -> bool {
    let Ok((_, parsed)) = parse_x509_certificate(certificate) else {
        return false;
    };
    match parsed.extended_key_usage() {
        Ok(None) => true,
        Ok(Some(usage)) => {
            let usage = usage.value;
            usage.any
                || match purpose {
                    Purpose::Server => usage.server_auth,
                    Purpose::Client => usage.client_auth,
                }
        }
        Err(_) => false,
    }
}
