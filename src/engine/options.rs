//! Settings of the engine.

use crate::config::settings::OnOverload;
use crate::model::Enforcement;
use crate::rules::{Defaults, OnStoreError};

/// Behaviour that holds for every rule.
#[derive(Debug, Clone)]
pub struct EngineOptions {
    /// Before every counter key, so that several installations can share a Redis.
    pub key_prefix: String,
    /// What a rule's silence means; also the algorithm of limits that a request brings itself.
    pub defaults: Defaults,
    /// What happens when the store cannot answer, where a rule does not say.
    pub on_store_error: OnStoreError,
    /// Global `SHADOW_MODE`: only the overall code reads OK.
    pub shadow_mode: bool,
    /// Global `QUOTA_MODE`: every rule counts as a quota rule.
    pub quota_mode: bool,
    /// Hits that a descriptor brings are charged, fit or not, on rules that requests ask first with 0 hits or none of
    /// their own.
    pub charge_after_peek: bool,
    /// `NEAR_LIMIT_RATIO` in millionths.
    pub near_limit_ppm: u32,
    /// Counters of which the release filter notes what they have denied, at most.
    pub max_noted: usize,
    /// Leaky-bucket answers held back at the same time, at most.
    pub max_waiting: usize,
    /// Whether a leaky bucket's answers wait for their turn; without, `Outcome::delay_us` only says how long they would:
    /// for an engine on a virtual clock.
    pub holds_back: bool,
    /// Requests worked on at the same time, at most; more are answered at once, as `on_overload` says.
    pub max_concurrent: usize,
    /// What a request above that gets.
    pub on_overload: OnOverload,
}

impl EngineOptions {
    /// Counters that the release filter notes, unless a simulation wants it to be full.
    pub const MAX_NOTED: usize = 100_000;

    /// What a check's verdict means under the global modes.
    pub(super) const fn in_force(&self, enforcement: Enforcement) -> Enforcement {
        if self.shadow_mode {
            Enforcement::Shadow
        } else {
            enforcement
        }
    }
}

impl Default for EngineOptions {
    fn default() -> Self {
        Self {
            key_prefix: "sg:".into(),
            defaults: Defaults::default(),
            on_store_error: OnStoreError::Local,
            shadow_mode: false,
            quota_mode: false,
            charge_after_peek: false,
            near_limit_ppm: 800_000,
            max_noted: Self::MAX_NOTED,
            max_waiting: 10_000,
            holds_back: true,
            max_concurrent: 10_000,
            on_overload: OnOverload::Unavailable,
        }
    }
}
