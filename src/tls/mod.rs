//! Certificates: read from PEM files, checked, and read again when the files change. For the listeners of gRPC and of
//! operators, and for connections to a control plane, to a trace collector and to Redis.

pub mod client;
pub mod dial;
pub mod pem;
mod refusal;
pub mod reload;
pub mod san;
pub mod server;
mod trust;
mod verifier;

use std::path::PathBuf;
use std::sync::Arc;

use rustls::crypto::CryptoProvider;

pub use client::{client_config, plain_client_config, watched_client_config};
pub use reload::Reloaded;
pub use server::{http_server_config, server_config};

/// TLS on a listener. Files are PEM; they are read again when they change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerTls {
    /// Certificate chain, leaf first.
    pub cert: PathBuf,
    /// Its private key.
    pub key: PathBuf,
    /// Clients must show a certificate that one of these signed, or one of these.
    pub client_ca: Option<PathBuf>,
    /// … and that carries at least one of these names (DNS, URI, IP address or e-mail); empty = any. Needs `client_ca`.
    pub client_sans: Vec<String>,
}

/// TLS towards a server. Files are PEM; they are read again when they change.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ClientTls {
    /// Who may have signed the server's certificate, or that certificate itself; `None` = the system's roots.
    pub ca: Option<PathBuf>,
    /// Our certificate chain and its private key, if the server wants one.
    pub identity: Option<(PathBuf, PathBuf)>,
    /// The name that the server's certificate must carry, if it is not the host's.
    pub server_name: Option<String>,
}

impl ServerTls {
    /// Every file that is read.
    #[must_use]
    pub fn files(&self) -> Vec<PathBuf> {
        let mut files = vec![self.cert.clone(), self.key.clone()];
        files.extend(self.client_ca.clone());
        files
    }
}

impl ClientTls {
    /// Every file that is read.
    #[must_use]
    pub fn files(&self) -> Vec<PathBuf> {
        let mut files: Vec<PathBuf> = self.ca.iter().cloned().collect();
        if let Some((cert, key)) = &self.identity {
            files.extend([cert.clone(), key.clone()]);
        }
        files
    }
}

/// Why certificates cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read, or holds no PEM.
    #[error("{}: {cause}", path.display())]
    File {
        /// Which one.
        path: PathBuf,
        /// Why.
        cause: rustls_pki_types::pem::Error,
    },
    /// A file holds PEM, but not what is needed of it.
    #[error("{}: no {what} in it", path.display())]
    Missing {
        /// Which one.
        path: PathBuf,
        /// What it should hold.
        what: &'static str,
    },
    /// A file with a password cannot be read, or is empty.
    #[error("{}: {cause}", path.display())]
    Login {
        /// Which one.
        path: PathBuf,
        /// Why.
        cause: String,
    },
    /// The system's own roots cannot be read.
    #[error("no usable root certificates on this system ({0}); name a CA file")]
    NoSystemRoots(String),
    /// The certificate does not fit its key, or is not to be used.
    #[error("{}: {cause}", path.display())]
    Unusable {
        /// The certificate's file.
        path: PathBuf,
        /// Why.
        cause: rustls::Error,
    },
    /// The CA cannot check clients.
    #[error("{}: {cause}", path.display())]
    ClientCa {
        /// The CA's file.
        path: PathBuf,
        /// Why.
        cause: rustls::server::VerifierBuilderError,
    },
    /// The protocol versions do not fit the provider; a fault of the build.
    #[error("TLS cannot be set up: {0}")]
    Setup(rustls::Error),
}

/// The one cryptography provider that is built in.
fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}
