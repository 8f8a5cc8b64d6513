//! Rules from a control plane: an ADS client (xDS, state of the world) for `RateLimitConfig` resources.
//!
//! Each response replaces all rules or, if anything in it is wrong, none (and is refused with the same texts as a
//! file would be). The last good rules stay in force while the control plane is away.

mod backoff;
mod connect;
mod resource;
mod stream;
mod watch;

use std::time::Duration;

use tokio::time::sleep;

use super::compile::compile;
use super::error::{ConfigErrors, Warnings};
use super::settings::XdsSettings;
use crate::proto::ratelimit::config::ratelimit::v3::RateLimitConfig;
use crate::rules::{Defaults, RuleSet};
use crate::tls::TlsError;

pub use watch::{XdsError, XdsWatch, watch_xds};

use backoff::Backoff;
use connect::Connector;

/// The resource type that is asked for.
pub const TYPE_URL: &str = "type.googleapis.com/ratelimit.config.ratelimit.v3.RateLimitConfig";

/// A stream that lived this long was a good one: the next wait is short again.
const SETTLED: Duration = Duration::from_secs(60);

/// What one response says: all rules there are.
#[derive(Debug, Clone, PartialEq)]
pub struct Update {
    /// As the control plane names it.
    pub version: String,
    /// In the order of the response.
    pub configs: Vec<RateLimitConfig>,
}

impl Update {
    /// What it says as rules: all of it or, with everything that is wrong, nothing.
    ///
    /// # Errors
    /// The same that a file of the same rules would cause.
    pub fn compile(self, defaults: &Defaults) -> Result<(RuleSet, Warnings), ConfigErrors> {
        let mut errors = ConfigErrors::default();
        let numbered = (1..).zip(self.configs);
        let raw: Vec<_> = numbered
            .map(|(number, config)| resource::raw(number, config, &mut errors))
            .collect();
        compile(&raw, defaults, errors)
    }
}

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
                "no control plane: the last good rules stay in force"
            );
            sleep(wait).await;
        }
    }
}
