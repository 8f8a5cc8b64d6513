//! The client's side.

use rustls::ClientConfig;

use super::verifier::TrustedServers;
use super::{ClientTls, Reloaded, TlsError, pem, provider, reload};

/// Reads the files into a configuration that offers HTTP/2.
///
/// # Errors
/// [`TlsError`] names the file.
pub fn client_config(tls: &ClientTls) -> Result<ClientConfig, TlsError> {
    let mut config = plain_client_config(tls, false)?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(config)
}

/// The same without a protocol on top; with `any_name` the server's certificate may carry any name (it must still be
/// trusted).
///
/// # Errors
/// [`TlsError`] names the file.
pub fn plain_client_config(tls: &ClientTls, any_name: bool) -> Result<ClientConfig, TlsError> {
    let trust = match &tls.ca {
        Some(ca) => pem::trust(ca)?,
        None => pem::system_trust()?,
    };
    let builder = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(TlsError::Setup)?
        .dangerous()
        .with_custom_certificate_verifier(TrustedServers::new(trust, any_name));
    match &tls.identity {
        Some((cert, key)) => builder
            .with_client_auth_cert(pem::certificates(cert)?, pem::private_key(key)?)
            .map_err(|cause| TlsError::Unusable {
                path: cert.clone(),
                cause,
            }),
        None => Ok(builder.with_no_client_auth()),
    }
}

/// [`plain_client_config`], read now and again whenever a file changes, never on the thread that asks for it: a connection
/// takes [`Reloaded::get`]. `what` names the certificates in logs. Needs a tokio runtime.
///
/// # Errors
/// [`TlsError`] names the file.
pub fn watched_client_config(
    what: &'static str,
    tls: &ClientTls,
    any_name: bool,
) -> Result<Reloaded<ClientConfig>, TlsError> {
    let owned = tls.clone();
    Reloaded::start(what, tls.files(), reload::EVERY, move || {
        plain_client_config(&owned, any_name)
    })
}
