//! The routes of one listener: virtual hosts by domain, routes in order.

use std::path::Path;
use std::sync::Arc;

use serde_json::Value;

use crate::mapping::{Attributes, ClientAddress, Mapping, Subject};
use crate::model::{Descriptor, Request, Settles};

use super::EnvoyError;
use super::bootstrap;
use super::json::{field, items, text};
use super::limits::{self, Filter, Levels};
use super::route::RouteMatcher;
use super::view::Manager;

/// How an Envoy turns requests into descriptors.
pub struct Routes {
    manager: Manager,
    hosts: Vec<Host>,
    /// What of the routes as a whole cannot be evaluated.
    unsupported: Option<EnvoyError>,
}

/// What one rate limit filter asks about a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FilterCall {
    /// The filter's domain, or its route's.
    pub domain: Arc<str>,
    /// At least one.
    pub descriptors: Vec<Descriptor>,
}

impl FilterCall {
    /// The request; through the rate limit service (`by_service`) an entry may settle a hold, through `ext_authz` not.
    #[must_use]
    pub fn into_request(mut self, by_service: bool) -> Request {
        if by_service {
            for descriptor in &mut self.descriptors {
                descriptor.settles = Settles::take(&mut descriptor.entries);
            }
        }
        Request {
            domain: String::from(&*self.domain),
            descriptors: self.descriptors,
            hits_addend: 1,
            releases_all: false,
        }
    }
}

struct Host {
    domains: Vec<HostName>,
    routes: Vec<Route>,
}

enum HostName {
    Any,
    Exact(String),
    /// `*.example.com`: ends so, with something in front.
    Suffix(String),
    /// `example.*`: begins so, with something behind.
    Prefix(String),
}

struct Route {
    matcher: Result<RouteMatcher, EnvoyError>,
    /// For each filter; `None`: it does not ask.
    limits: Vec<Result<Option<Arc<Mapping>>, EnvoyError>>,
}

impl Routes {
    /// Reads a bootstrap or the output of `/config_dump`, as YAML or JSON; `listener` names the listener where more than
    /// one has a rate limit filter.
    ///
    /// # Errors
    /// [`EnvoyError`] when there are no routes with a rate limit filter in it. What cannot be evaluated is told by
    /// [`calls`](Self::calls), for the requests that need it.
    pub fn read(file: &Path, listener: Option<&str>) -> Result<Self, EnvoyError> {
        let found = bootstrap::read(file, listener)?;
        let filter = |filter| Filter {
            found: filter,
            unsupported: unsupported(&filter.config),
            local_cluster: found.local_cluster.as_deref(),
        };
        let filters: Vec<Filter<'_>> = found.filters.iter().map(filter).collect();
        let hosts = items(&found.routes, "virtual_hosts").iter();
        Ok(Self {
            manager: Manager::read(&found.manager, &found.routes),
            hosts: hosts.map(|host| Host::read(&filters, &found.routes, host)).collect(),
            unsupported: field(&found.routes, "vhds").map(|_| EnvoyError::unsupported("route_config", "vhds")),
        })
    }

    /// What Envoy asks about a request, filter by filter; the next one asks only if the request passed the one before.
    /// `client_is_final` = the request's address is the one that Envoy trusts, as access logs have it; else it is the
    /// connection's other end.
    ///
    /// # Errors
    /// [`EnvoyError`] names what cannot be evaluated.
    pub fn calls<A: Attributes>(
        &self,
        request: &A,
        client_is_final: bool,
        max_value_bytes: usize,
    ) -> Result<Vec<FilterCall>, EnvoyError> {
        if let Some(unsupported) = &self.unsupported {
            return Err(unsupported.clone());
        }
        let view = self.manager.view(request, client_is_final)?;
        let Some(host) = self.host(&self.manager.host(request.host())) else {
            return Ok(Vec::new());
        };
        let subject = Subject::new(&view, ClientAddress::default(), false);
        for route in &host.routes {
            if !route.matcher.as_ref().map_err(Clone::clone)?.matches(&subject) {
                continue;
            }
            let mut calls = Vec::new();
            for limits in &route.limits {
                let Some(mapping) = limits.as_ref().map_err(Clone::clone)? else {
                    continue;
                };
                let descriptors = mapping.descriptors(&view, max_value_bytes);
                let descriptors = descriptors.map_err(|error| EnvoyError::Request(error.to_string()))?;
                if !descriptors.is_empty() {
                    let domain = Arc::clone(&mapping.domain);
                    calls.push(FilterCall { domain, descriptors });
                }
            }
            return Ok(calls);
        }
        Ok(Vec::new())
    }

    /// The host whose domain is the most specific one.
    fn host(&self, name: &str) -> Option<&Host> {
        let ranked = self
            .hosts
            .iter()
            .flat_map(|host| host.domains.iter().map(move |domain| (domain, host)));
        let matching = ranked.filter_map(|(domain, host)| Some((domain.rank(name)?, host)));
        matching.max_by_key(|(rank, _)| *rank).map(|(_, host)| host)
    }
}

/// What of a filter is not known here.
fn unsupported(filter: &Value) -> Option<EnvoyError> {
    let place = format!("the rate limit filter of the domain {}", text(filter, "domain"));
    let request_type = text(filter, "request_type");
    if !matches!(request_type.as_str(), "" | "both") {
        return Some(EnvoyError::unsupported(&place, format!("request_type {request_type}")));
    }
    let named = ["rate_limits", "filter_enabled", "filter_enforced"];
    let set = named.into_iter().find(|name| field(filter, name).is_some())?;
    Some(EnvoyError::unsupported(&place, set))
}

impl Host {
    fn read(filters: &[Filter<'_>], routes: &Value, host: &Value) -> Self {
        let name = text(host, "name");
        let domain = |domain: &Value| HostName::read(&domain.as_str().unwrap_or_default().to_ascii_lowercase());
        let matcher = field(host, "matcher").map(|_| EnvoyError::unsupported(&name, "a matcher tree"));
        let route = |(number, route): (usize, &Value)| {
            let place = format!("virtual host {name}, route #{number}");
            let levels = Levels { routes, host, route };
            let empty = Value::Null;
            Route {
                matcher: match &matcher {
                    Some(unsupported) => Err(unsupported.clone()),
                    None => RouteMatcher::read(field(route, "match").unwrap_or(&empty), &place),
                },
                limits: filters
                    .iter()
                    .map(|filter| limits::of_route(filter, levels, &place))
                    .collect(),
            }
        };
        Self {
            domains: items(host, "domains").iter().map(domain).collect(),
            routes: (1..).zip(items(host, "routes")).map(route).collect(),
        }
    }
}

impl HostName {
    fn read(domain: &str) -> Self {
        if domain == "*" {
            return Self::Any;
        }
        match (domain.strip_prefix('*'), domain.strip_suffix('*')) {
            (Some(suffix), _) => Self::Suffix(suffix.to_owned()),
            (None, Some(prefix)) => Self::Prefix(prefix.to_owned()),
            (None, None) => Self::Exact(domain.to_owned()),
        }
    }

    /// How specific it is for this host, if it matches: exact before suffix before prefix before any, longer first.
    fn rank(&self, host: &str) -> Option<(u8, usize)> {
        match self {
            Self::Exact(name) => (name == host).then_some((3, name.len())),
            Self::Suffix(suffix) => (host.len() > suffix.len() && host.ends_with(suffix)).then_some((2, suffix.len())),
            Self::Prefix(prefix) => {
                (host.len() > prefix.len() && host.starts_with(prefix)).then_some((1, prefix.len()))
            }
            Self::Any => Some((0, 0)),
        }
    }
}
