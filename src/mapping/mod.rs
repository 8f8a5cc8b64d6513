//! From the attributes of an HTTP request (`ext_authz`) to descriptors: what Envoy's route rate limits do inside Envoy,
//! done here, so that no route has to be touched. Pure: what a request holds comes through [`Attributes`].
//!
//! | file | what is in it |
//! |---|---|
//! | [`attributes`] | what is asked of a request |
//! | [`action`] | one entry of a descriptor |
//! | [`address`] | the client's address behind proxies, and masks |
//! | [`spelling`] | one spelling for one path |
//! | [`path`], [`template`] | values from a path; templates |
//! | [`query`] | query parameters |
//! | [`matcher`] | texts and headers; which lists apply |
//! | [`hits`] | what a request costs |
//! | [`lists`] | all of it for one domain |

pub mod action;
pub mod address;
pub mod attributes;
pub mod hits;
pub mod lists;
pub mod matcher;
pub mod path;
pub mod query;
pub mod spelling;
mod subject;
pub mod template;

use std::collections::HashMap;
use std::sync::Arc;

pub use action::{Absent, Action, Source};
pub use address::{ClientAddress, Masks, Network, Networks, NotNamed};
pub use attributes::Attributes;
pub use hits::HitsFrom;
pub use lists::{Answers, FailureMode, List, MAX_VALUE_BYTES, Mapped, Mapping, TooLong};
pub use matcher::{HeaderMatcher, RequestMatcher, StringMatcher};
pub use path::PathShape;
pub use subject::Subject;
pub use template::{Template, TemplateError};

/// The mappings of all domains; part of the rule set, so that a request is mapped and decided by one configuration.
#[derive(Debug, Default)]
pub struct Mappings {
    /// Context extensions that name a domain, and the domains that each may name.
    by_extension: Vec<(Box<str>, ByDomain)>,
    /// For requests whose context extensions name no domain.
    default: Option<Arc<Mapping>>,
}

type ByDomain = HashMap<Arc<str>, Arc<Mapping>>;

/// Why no mapping answers for a request.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoMapping {
    /// No file has an `ext_authz` section.
    #[error("no rules file has an `ext_authz` section")]
    NoSections,
    /// The request names no domain and none is the default.
    #[error("no context extension names a domain, and no `ext_authz` section says `default: true`")]
    NoDomain,
    /// The request names a domain without a section.
    #[error("the context extension `{extension}` names the domain {domain:?}, which has no `ext_authz` section")]
    UnknownDomain {
        /// The extension's key.
        extension: String,
        /// Its value, cut to a length that logs bear.
        domain: String,
    },
}

impl NoMapping {
    /// A fixed word for metrics.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::NoSections => "no_ext_authz",
            Self::NoDomain => "no_domain",
            Self::UnknownDomain { .. } => "unknown_domain",
        }
    }
}

/// Two mappings that cannot stand together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Clash {
    /// The domain has a mapping already.
    Domain,
    /// Another one is the default already.
    Default,
}

/// Characters of a request's text that an error repeats.
const SHOWN_CHARS: usize = 64;

impl Mappings {
    /// Adds a domain's mapping; requests name it by the context extension `extension`.
    ///
    /// # Errors
    /// [`Clash`] when it cannot stand beside those that are there.
    pub fn insert(&mut self, mapping: Arc<Mapping>, extension: &str, default: bool) -> Result<(), Clash> {
        if self.get(&mapping.domain).is_some() {
            return Err(Clash::Domain);
        }
        if default {
            if self.default.is_some() {
                return Err(Clash::Default);
            }
            self.default = Some(Arc::clone(&mapping));
        }
        let named = (Arc::clone(&mapping.domain), mapping);
        match self.by_extension.iter_mut().find(|(key, _)| **key == *extension) {
            Some((_, domains)) => {
                domains.insert(named.0, named.1);
            }
            None => self.by_extension.push((extension.into(), HashMap::from([named]))),
        }
        Ok(())
    }

    /// The only mapping there is needs no `default: true`.
    pub fn settle(&mut self) {
        if self.default.is_none() && self.len() == 1 {
            let only = self.iter().next().cloned();
            self.default = only;
        }
    }

    /// How many domains have a mapping.
    #[must_use]
    pub fn len(&self) -> usize {
        self.by_extension.iter().map(|(_, domains)| domains.len()).sum()
    }

    /// Whether none has.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_extension.is_empty()
    }

    /// All mappings, in no order.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Mapping>> {
        self.by_extension.iter().flat_map(|(_, domains)| domains.values())
    }

    /// Each mapping, in order of domains, with the context extension that names it, and whether it is the default.
    #[must_use]
    pub fn named(&self) -> Vec<(&str, &Arc<Mapping>, bool)> {
        let default = |mapping| {
            self.default
                .as_ref()
                .is_some_and(|default| Arc::ptr_eq(default, mapping))
        };
        let mut all: Vec<_> = self
            .by_extension
            .iter()
            .flat_map(|(extension, domains)| domains.values().map(move |mapping| (&**extension, mapping)))
            .map(|(extension, mapping)| (extension, mapping, default(mapping)))
            .collect();
        all.sort_by(|(_, one, _), (_, other, _)| one.domain.cmp(&other.domain));
        all
    }

    /// A domain's mapping.
    #[must_use]
    pub fn get(&self, domain: &str) -> Option<&Arc<Mapping>> {
        self.by_extension.iter().find_map(|(_, domains)| domains.get(domain))
    }

    /// The mapping that a request asks for: by the first context extension that is there, else the default.
    ///
    /// # Errors
    /// [`NoMapping`] says what is missing.
    pub fn resolve(&self, attributes: &impl Attributes) -> Result<&Arc<Mapping>, NoMapping> {
        for (extension, domains) in &self.by_extension {
            if let Some(domain) = attributes.context_extension(extension) {
                return domains.get(domain).ok_or_else(|| NoMapping::UnknownDomain {
                    extension: extension.to_string(),
                    domain: domain.chars().take(SHOWN_CHARS).collect(),
                });
            }
        }
        self.default.as_ref().ok_or(if self.is_empty() {
            NoMapping::NoSections
        } else {
            NoMapping::NoDomain
        })
    }
}
