//! The client: connects, and connects again whenever its stream ends.

use std::time::Duration;

use tokio::time::sleep;

use super::super::settings::XdsSettings;
use super::backoff::Backoff;
use super::connect::Connector;
use super::stream;
use super::update::Update;
use crate::tls::TlsError;

/// A stream that lived this long was a good one: the next wait is short again.
const SETTLED: Duration = Duration::from_secs(60);

/// A client that is ready to run.
#[derive(Debug)]
pub struct XdsClient {
    settings: XdsSettings,
    connector: Connector,
}

impl XdsClient {
    /// Reads the certificates; connects to nothing yet. Needs a tokio runtime.
    ///
    /// # Errors
    /// [`TlsError`] names the file that cannot be used.
    pub fn new(settings: XdsSettings) -> Result<Self, TlsError> {
        let connector = Connector::new(&settings)?;
        Ok(Self { settings, connector })
    }

    /// Connects, and connects again whenever the stream ends; until the future is dropped. `apply` decides on each
    /// update: `Err` with what is wrong refuses it.
    pub async fn run(self, mut apply: impl FnMut(Update) -> Result<(), String>) {
        let Self { settings, connector } = self;
        let mut backoff = Backoff::new(&settings);
        loop {
            let started = tokio::time::Instant::now();
            let end = stream::run(&settings, &connector, &mut apply).await;
            if end.accepted || started.elapsed() >= SETTLED {
                backoff.reset();
            }
            let wait = backoff.next();
            tracing::warn!(
                server = settings.server,
                reason = end.reason,
                retry_in = ?wait,
                "no control plane: the rules that it has sent, if any, stay in force"
            );
            sleep(wait).await;
        }
    }
}
