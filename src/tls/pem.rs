//! PEM files.

use std::path::Path;

use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use super::TlsError;
use super::trust::Trust;

/// The certificates of a file, in its order; at least one.
///
/// # Errors
/// [`TlsError`] names the file.
pub fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let file_error = |cause| TlsError::File {
        path: path.to_owned(),
        cause,
    };
    let certs: Vec<_> = CertificateDer::pem_file_iter(path)
        .map_err(file_error)?
        .collect::<Result<_, _>>()
        .map_err(file_error)?;
    if certs.is_empty() {
        return Err(TlsError::Missing {
            path: path.to_owned(),
            what: "certificate (BEGIN CERTIFICATE)",
        });
    }
    Ok(certs)
}

/// The private key of a file: PKCS#8, PKCS#1 or SEC1.
///
/// # Errors
/// [`TlsError`] names the file.
pub fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    PrivateKeyDer::from_pem_file(path).map_err(|cause| match cause {
        rustls_pki_types::pem::Error::NoItemsFound => TlsError::Missing {
            path: path.to_owned(),
            what: "private key (BEGIN PRIVATE KEY)",
        },
        cause => TlsError::File {
            path: path.to_owned(),
            cause,
        },
    })
}

/// The certificates of a file, to be trusted; at least one that can be used.
///
/// # Errors
/// [`TlsError`] names the file.
pub(super) fn trust(path: &Path) -> Result<Trust, TlsError> {
    Trust::new(certificates(path)?).ok_or_else(|| TlsError::Missing {
        path: path.to_owned(),
        what: "usable CA certificate",
    })
}

/// The certificates that the system trusts.
///
/// # Errors
/// [`TlsError::NoSystemRoots`] says why there are none.
pub(super) fn system_trust() -> Result<Trust, TlsError> {
    let found = rustls_native_certs::load_native_certs();
    Trust::new(found.certs).ok_or_else(|| {
        let causes: Vec<_> = found.errors.iter().map(ToString::to_string).collect();
        TlsError::NoSystemRoots(causes.join("; "))
    })
}
