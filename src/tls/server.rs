//! The listener's side, with client certificates if they are asked for.

use std::sync::Arc;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{VerifierBuilderError, WebPkiClientVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, RootCertStore, ServerConfig, SignatureScheme,
};
use rustls_pki_types::{CertificateDer, UnixTime};

use super::refusal::{Refusal, explained};
use super::san::San;
use super::trust::{Purpose, Trust};
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
            let trust = pem::trust(ca)?;
            let inner = verifier(Arc::clone(trust.all())).map_err(|cause| TlsError::ClientCa {
                path: ca.clone(),
                cause,
            })?;
            let sans = tls.client_sans.iter().map(|name| San::parse(name)).collect();
            builder.with_client_cert_verifier(Arc::new(TrustedClients { trust, inner, sans }))
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

/// The same for clients that may speak HTTP/1.1, too.
///
/// # Errors
/// As [`server_config`].
pub fn http_server_config(tls: &ServerTls) -> Result<ServerConfig, TlsError> {
    let mut config = server_config(tls)?;
    config.alpn_protocols.push(b"http/1.1".to_vec());
    Ok(config)
}

fn verifier(roots: Arc<RootCertStore>) -> Result<Arc<dyn ClientCertVerifier>, VerifierBuilderError> {
    WebPkiClientVerifier::builder_with_provider(roots, provider()).build()
}

/// Clients whose certificate is trusted and carries one of the names.
#[derive(Debug)]
struct TrustedClients {
    trust: Trust,
    /// Takes every root, whatever its dates.
    inner: Arc<dyn ClientCertVerifier>,
    /// Empty = any name.
    sans: Vec<San>,
}

impl ClientCertVerifier for TrustedClients {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.inner.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        let explain = |error| explained(error, end_entity);
        if !self.trust.pins(end_entity, Purpose::Client, now).map_err(explain)? {
            self.inner
                .verify_client_cert(end_entity, intermediates, now)
                .map_err(explain)?;
            if let Some(valid) = self.trust.valid_subset(now) {
                verifier(valid)
                    .ok()
                    .and_then(|valid| valid.verify_client_cert(end_entity, intermediates, now).ok())
                    .ok_or_else(|| rustls::Error::from(Refusal::ExpiredRoot))?;
            }
        }
        if self.sans.is_empty() || self.sans.iter().any(|san| san.is_in(end_entity)) {
            Ok(ClientCertVerified::assertion())
        } else {
            Err(explain(CertificateError::NotValidForName.into()))
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
