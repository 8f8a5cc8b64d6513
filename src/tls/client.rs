//! The client's side.

use rustls::ClientConfig;

use super::any_name::AnyName;
use super::{ClientTls, TlsError, pem, provider};

/// Reads the files into a configuration that offers HTTP/2.
///
/// # Errors
/// [`TlsError`] names the file.
pub fn client_config(tls: &ClientTls) -> Result<ClientConfig, TlsError> {
    let mut config = plain_client_config(tls, false)?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(config)
}

/// The same without a protocol on top; with `any_name` the server's certificate may carry any name (it must still
/// be signed by the CA).
///
/// # Errors
/// [`TlsError`] names the file.
pub fn plain_client_config(tls: &ClientTls, any_name: bool) -> Result<ClientConfig, TlsError> {
    let roots = match &tls.ca {
        Some(ca) => pem::roots(ca)?,
        None => pem::system_roots()?,
    };
    let builder = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(TlsError::Setup)?;
    let builder = if any_name {
        builder
            .dangerous()
            .with_custom_certificate_verifier(AnyName::new(roots)?)
    } else {
        builder.with_root_certificates(roots)
    };
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
