//! Where certificates are.

use std::path::PathBuf;

/// TLS on a listener. Files are PEM; they are read again when they change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerTls {
    /// Certificate chain, leaf first.
    pub cert: PathBuf,
    /// Its private key.
    pub key: PathBuf,
    /// Clients must show a certificate that one of these signed.
    pub client_ca: Option<PathBuf>,
    /// … and that carries at least one of these names (DNS, URI, IP address or e-mail); empty = any. Needs `client_ca`.
    pub client_sans: Vec<String>,
}

/// TLS towards a server. Files are PEM; they are read again when they change.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ClientTls {
    /// Who may have signed the server's certificate; `None` = the system's roots.
    pub ca: Option<PathBuf>,
    /// Our certificate chain and its private key, if the server wants one.
    pub identity: Option<(PathBuf, PathBuf)>,
    /// The name that the server's certificate must carry, if it is not the host's.
    pub server_name: Option<String>,
}
