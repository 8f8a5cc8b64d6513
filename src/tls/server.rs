//! The listener's side, with client certificates if they are asked for.

use std::sync::Arc;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, ServerConfig, SignatureScheme};
use rustls_pki_types::{CertificateDer, UnixTime};

use super::san::San;
use super::{ServerTls, TlsError, pem, provider};

/// Reads the files into a configuration that speaks HTTP/2.
///
/// # Errors
/// [`TlsError`] names the file.
pub fn server_config(tls: &ServerTls) -> Result<ServerConfig, TlsError> {
    let builder = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(TlsError::Setup)?;
    let builder = match &tls.client_ca {
        Some(ca) => {
            let inner = WebPkiClientVerifier::builder_with_provider(pem::roots(ca)?, provider())
                .build()
                .map_err(|cause| TlsError::ClientCa {
                    path: ca.clone(),
                    cause,
                })?;
            let sans = tls.client_sans.iter().map(|name| San::parse(name)).collect();
            builder.with_client_cert_verifier(Arc::new(NamedClients { inner, sans }))
        }
        None => builder.with_no_client_auth(),
    };
    let mut config = builder
        .with_single_cert(pem::certificates(&tls.cert)?, pem::private_key(&tls.key)?)
        .map_err(|cause| TlsError::Unusable {
            path: tls.cert.clone(),
            cause,
        })?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(config)
}

/// Clients whose certificate is in order and carries one of the names.
#[derive(Debug)]
struct NamedClients {
    inner: Arc<dyn ClientCertVerifier>,
    /// Empty = any name.
    sans: Vec<San>,
}

impl ClientCertVerifier for NamedClients {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.inner.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        let verified = self.inner.verify_client_cert(end_entity, intermediates, now)?;
        if self.sans.is_empty() || self.sans.iter().any(|san| san.is_in(end_entity)) {
            Ok(verified)
        } else {
            Err(CertificateError::NotValidForName.into())
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}
