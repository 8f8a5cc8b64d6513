//! What one response of a control plane says.

use super::super::compile::compile;
use super::super::error::{ConfigErrors, Warnings};
use super::resource;
use crate::proto::ratelimit::config::ratelimit::v3::RateLimitConfig;
use crate::rules::{Defaults, RuleSet};

/// The resource type that is asked for.
pub const TYPE_URL: &str = "type.googleapis.com/ratelimit.config.ratelimit.v3.RateLimitConfig";

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
