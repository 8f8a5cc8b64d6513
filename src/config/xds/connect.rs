//! Connections to the control plane.

use std::time::Duration;

use tokio::time::timeout;
use tonic::transport::Channel;

use super::super::settings::XdsSettings;
use crate::tls::dial::{Dialer, with_causes};
use crate::tls::{TlsError, client_config};

/// Opens connections; every new one uses the newest certificates.
#[derive(Debug)]
pub(super) struct Connector {
    dialer: Dialer,
    connect_timeout: Duration,
}

impl Connector {
    /// Reads the certificates.
    pub(super) fn new(settings: &XdsSettings) -> Result<Self, TlsError> {
        let what = "control plane client's certificates";
        Ok(Self {
            dialer: Dialer::new(what, &settings.server, settings.tls.as_ref(), client_config)?,
            connect_timeout: settings.connect_timeout,
        })
    }

    /// One connection; the error says what failed.
    pub(super) async fn connect(&self) -> Result<Channel, String> {
        let endpoint = self.dialer.endpoint()?;
        let connecting = endpoint.connect_with_connector(self.dialer.clone());
        timeout(self.connect_timeout, connecting)
            .await
            .map_err(|_| format!("no connection within {:?}", self.connect_timeout))?
            .map_err(|error| with_causes(&error))
    }
}
