//! From an HTTP request to descriptors: by the `ext_authz` section of the rules, or by the routes of an Envoy.

use std::path::Path;
use std::sync::Arc;

use crate::mapping::{Attributes, MAX_VALUE_BYTES, NoMapping, TooLong};
use crate::rules::RuleSet;

use super::envoy::{EnvoyError, FilterCall, Routes};

/// Turns HTTP requests into descriptors.
pub struct Mapper {
    rules: Arc<RuleSet>,
    envoy: Option<Routes>,
}

/// Why a request becomes no descriptors where it should.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotMapped {
    /// No mapping answers for it.
    #[error("{0}; or give Envoy's configuration, for the descriptors that its routes make")]
    NoMapping(#[from] NoMapping),
    /// The test names a domain without a mapping.
    #[error("the domain {0:?} has no `ext_authz` section; or give Envoy's configuration, for what its routes make")]
    NoSection(String),
    /// A value is too long to count.
    #[error(transparent)]
    TooLong(#[from] TooLong),
    /// Envoy's configuration has something that cannot be evaluated.
    #[error("Envoy: {0}")]
    Envoy(#[from] EnvoyError),
}

impl Mapper {
    /// A mapper by the rules, or by Envoy's configuration (a bootstrap or a `/config_dump`) if there is one.
    ///
    /// # Errors
    /// When Envoy's configuration has no routes with a rate limit filter.
    pub fn new(rules: Arc<RuleSet>, envoy: Option<&Path>, listener: Option<&str>) -> Result<Self, EnvoyError> {
        let envoy = envoy.map(|path| Routes::read(path, listener)).transpose()?;
        Ok(Self { rules, envoy })
    }

    /// What is asked about a request, call by call, each only if the one before let it pass; `named` = the domain that it is meant for, whatever it says itself (the
    /// `ext_authz` section of the rules only); `client_is_final` = its address is the one that Envoy trusts already.
    ///
    /// # Errors
    /// [`NotMapped`] says what is missing.
    pub fn map<A: Attributes>(
        &self,
        request: &A,
        named: Option<&str>,
        client_is_final: bool,
    ) -> Result<Vec<FilterCall>, NotMapped> {
        if let Some(routes) = &self.envoy {
            return Ok(routes.calls(request, client_is_final, MAX_VALUE_BYTES)?);
        }
        let mapping = match named {
            Some(domain) => {
                let found = self.rules.ext_authz.get(domain);
                found.ok_or_else(|| NotMapped::NoSection(domain.to_owned()))?
            }
            None => self.rules.ext_authz.resolve(request)?,
        };
        let descriptors = mapping.descriptors(request, MAX_VALUE_BYTES)?;
        if descriptors.is_empty() {
            return Ok(Vec::new());
        }
        let domain = Arc::clone(&mapping.domain);
        Ok(vec![FilterCall { domain, descriptors }])
    }

    /// The domain of the rules, if they have only one.
    #[must_use]
    pub fn only_domain(&self) -> Option<String> {
        let mut domains = self.rules.domains.keys();
        let only = domains.next()?;
        domains.next().is_none().then(|| only.to_string())
    }
}
