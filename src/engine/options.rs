//! Settings of the engine.

use crate::config::settings::OnOverload;
use crate::model::hold::HoldBits;
use crate::model::{Enforcement, HoldId};
use crate::rules::{Defaults, OnStoreError};

/// Behaviour that holds for every rule.
#[derive(Debug, Clone)]
pub struct EngineOptions {
    /// Before every counter key, so that several installations can share a Redis.
    pub key_prefix: String,
    /// The defaults of rules; also the algorithm of limits that a request brings itself.
    pub defaults: Defaults,
    /// The failure mode of rules without one of their own.
    pub on_store_error: OnStoreError,
    /// Global `SHADOW_MODE`: only the overall code reads OK.
    pub shadow_mode: bool,
    /// Global `QUOTA_MODE`: every rule counts as a quota rule.
    pub quota_mode: bool,
    /// Hits that a descriptor brings are counted even where they do not fit, on rules that requests have checked before with 0
    /// hits or none of their own.
    pub charge_after_peek: bool,
    /// `NEAR_LIMIT_RATIO` in millionths.
    pub near_limit_ppm: u32,
    /// Most counters whose denials the release filter keeps.
    pub max_noted: usize,
    /// Most answers that leaky buckets delay at the same time.
    pub max_waiting: usize,
    /// Whether a leaky bucket delays answers. An engine on a virtual clock does not, and only reports `Outcome::delay_us`.
    pub holds_back: bool,
    /// Most requests that are decided at the same time; more are answered at once, as `on_overload` says.
    pub max_concurrent: usize,
    /// The answer to a request above that number.
    pub on_overload: OnOverload,
    /// Makes the random bits of holds' ids; only simulations set another one.
    pub hold_bits: fn() -> HoldBits,
}

impl EngineOptions {
    /// The default of `max_noted`; only simulations set another one.
    pub const MAX_NOTED: usize = 100_000;

    /// The id of a hold that is made at this time.
    pub(super) fn hold_id(&self, now_us: u64) -> HoldId {
        HoldId::new(now_us, (self.hold_bits)())
    }

    /// A check's enforcement under the global shadow mode.
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
            hold_bits: rand::random,
        }
    }
}
