//! What the API's routes share.

use std::sync::Arc;
use std::time::Instant;

use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::rates::Rates;
use super::readers::Readers;
use super::selections::Selections;
use super::token::Token;
use super::view::Masker;
use crate::admin::Health;
use crate::config::settings::Settings;
use crate::engine::Engine;
use crate::model::Clock;
use crate::service::rlqs::QuotaService;
use crate::telemetry::{Activity, Metrics};

/// A handle on the API: what its routes and its sampling share.
#[derive(Clone)]
pub struct Api(pub(super) Arc<Shared>);

/// What the composition root passes in.
pub struct Parts {
    /// The rules in force and their counters.
    pub engine: Arc<Engine>,
    /// The numbers.
    pub metrics: Arc<Metrics>,
    /// The verdict.
    pub health: Health,
    /// Recent traffic.
    pub activity: Arc<Activity>,
    /// The time that decisions are made by.
    pub clock: Arc<dyn Clock>,
    /// Envoys that enforce quotas themselves, and what they hold.
    pub quota: QuotaService,
    /// The bearer token; `None` = none is configured.
    pub token: Option<Token>,
    /// When the process ends: event streams end with it.
    pub stop: CancellationToken,
}

pub(super) struct Shared {
    pub parts: Parts,
    pub settings: Settings,
    pub masker: Masker,
    pub rates: Rates,
    pub readers: Readers,
    /// Held by the one search for counters that may be under way.
    pub search: Semaphore,
    /// Selections of counters that wait to be confirmed.
    pub selections: Selections,
    pub started: Instant,
}

impl Api {
    /// The API of a process with these settings.
    #[must_use]
    pub fn new(parts: Parts, settings: &Settings) -> Self {
        Self(Arc::new(Shared {
            parts,
            masker: Masker::new(settings.telemetry.mask_values),
            settings: settings.clone(),
            rates: Rates::default(),
            readers: Readers::default(),
            search: Semaphore::new(1),
            selections: Selections::default(),
            started: Instant::now(),
        }))
    }
}
