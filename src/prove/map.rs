//! From an HTTP request to descriptors: by the `ext_authz` section of the rules, or by the routes of an Envoy.

use std::path::Path;
use std::sync::Arc;

use crate::mapping::{NoMapping, TooLong};
use crate::model::Descriptor;
use crate::rules::RuleSet;

use super::http::HttpRequest;
use super::rule_tests::run::TestError;

/// Longest value of an entry in bytes, as the service bounds it.
const MAX_VALUE_BYTES: usize = 4096;

/// Turns HTTP requests into descriptors.
pub struct Mapper {
    rules: Arc<RuleSet>,
}

/// Why a request becomes no descriptors where it should.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotMapped {
    /// No mapping answers for it.
    #[error(transparent)]
    NoMapping(#[from] NoMapping),
    /// The test names a domain without a mapping.
    #[error("the domain {0:?} has no `ext_authz` section: give one, or `envoy:` for the routes of an Envoy")]
    NoSection(String),
    /// A value is too long to count.
    #[error(transparent)]
    TooLong(#[from] TooLong),
}

impl Mapper {
    /// A mapper by the rules, or by Envoy's configuration if there is one.
    ///
    /// # Errors
    /// What of Envoy's configuration cannot be evaluated.
    pub fn new(rules: Arc<RuleSet>, envoy: Option<&Path>) -> Result<Self, TestError> {
        match envoy {
            None => Ok(Self { rules }),
            Some(path) => Err(TestError::Envoy {
                path: path.to_owned(),
                reason: "this version evaluates the `ext_authz` section of the rules only".to_owned(),
            }),
        }
    }

    /// The domain and descriptors of a request; `named` = the domain that it is meant for, whatever its attributes say.
    ///
    /// # Errors
    /// [`NotMapped`] says what is missing.
    pub fn map(&self, request: &HttpRequest, named: Option<&str>) -> Result<(String, Vec<Descriptor>), NotMapped> {
        let mapping = match named {
            Some(domain) => {
                let found = self.rules.ext_authz.get(domain);
                found.ok_or_else(|| NotMapped::NoSection(domain.to_owned()))?
            }
            None => self.rules.ext_authz.resolve(request)?,
        };
        let descriptors = mapping.descriptors(request, MAX_VALUE_BYTES)?;
        Ok((mapping.domain.to_string(), descriptors))
    }

    /// The domain of the rules, if they have only one.
    #[must_use]
    pub fn only_domain(&self) -> Option<String> {
        let mut domains = self.rules.domains.keys();
        let only = domains.next()?;
        domains.next().is_none().then(|| only.to_string())
    }
}
