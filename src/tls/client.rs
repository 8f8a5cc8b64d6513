//! The client's side.

use rustls::ClientConfig;

use super::{ClientTls, TlsError, pem, provider};

/// Reads the files into a configuration that offers HTTP/2.
///
/// # Errors
/// [`TlsError`] names the file.
pub fn client_config(tls: &ClientTls) -> Result<ClientConfig, TlsError> {
    let roots = match &tls.ca {
        Some(ca) => pem::roots(ca)?,
        None => pem::system_roots()?,
    };
    let builder = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(TlsError::Setup)?
        .with_root_certificates(roots);
    let mut config = match &tls.identity {
        Some((cert, key)) => builder
            .with_client_auth_cert(pem::certificates(cert)?, pem::private_key(key)?)
            .map_err(|cause| TlsError::Unusable {
                path: cert.clone(),
                cause,
            })?,
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(config)
}
