//! The routes of one listener: virtual hosts by domain, routes in order.

use std::path::Path;
use std::sync::Arc;

use serde_json::Value;

use crate::mapping::{Attributes, ClientAddress, Mapping, Subject};
use crate::model::Descriptor;

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
    /// What of the filter cannot be evaluated.
    unsupported: Option<EnvoyError>,
    /// The filter's `domain`.
    domain: String,
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
    /// `None`: Envoy does not ask.
    limits: Result<Option<Arc<Mapping>>, EnvoyError>,
}

impl Routes {
    /// Reads a bootstrap or the output of `/config_dump`, as YAML or JSON; `listener` names the listener where more than
    /// one has a rate limit filter.
    ///
    /// # Errors
    /// [`EnvoyError`] when there are no routes with a rate limit filter in it. What cannot be evaluated is told by
    /// [`descriptors`](Self::descriptors), for the requests that need it.
    pub fn read(file: &Path, listener: Option<&str>) -> Result<Self, EnvoyError> {
        let found = bootstrap::read(file, listener)?;
        let filter = Filter {
            name: &found.filter_name,
            config: &found.filter,
            local_cluster: found.local_cluster.as_deref(),
        };
        let hosts = items(&found.routes, "virtual_hosts");
        Ok(Self {
            manager: Manager::read(&found.manager, &found.routes),
            hosts: hosts
                .iter()
                .map(|host| Host::read(&filter, &found.routes, host))
                .collect(),
            unsupported: unsupported(&found.filter, &found.routes),
            domain: text(&found.filter, "domain"),
        })
    }

    /// The filter's domain.
    #[must_use]
    pub fn domain(&self) -> &str {
        &self.domain
    }

    /// The domain and descriptors of a request, none if Envoy does not ask about it. `client_is_final` = the request's
    /// address is the one that Envoy trusts, as access logs have it; else it is the connection's other end.
    ///
    /// # Errors
    /// [`EnvoyError`] names what cannot be evaluated.
    pub fn descriptors<A: Attributes>(
        &self,
        request: &A,
        client_is_final: bool,
        max_value_bytes: usize,
    ) -> Result<(Arc<str>, Vec<Descriptor>), EnvoyError> {
        if let Some(unsupported) = &self.unsupported {
            return Err(unsupported.clone());
        }
        let view = self.manager.view(request, client_is_final)?;
        let nobody = || (Arc::from(self.domain.as_str()), Vec::new());
        let Some(host) = self.host(&self.manager.host(request.host())) else {
            return Ok(nobody());
        };
        let subject = Subject::new(&view, ClientAddress::default(), false);
        for route in &host.routes {
            if !route.matcher.as_ref().map_err(Clone::clone)?.matches(&subject) {
                continue;
            }
            let Some(mapping) = route.limits.as_ref().map_err(Clone::clone)? else {
                return Ok(nobody());
            };
            let descriptors = mapping.descriptors(&view, max_value_bytes);
            let descriptors = descriptors.map_err(|error| EnvoyError::Request(error.to_string()))?;
            return Ok((Arc::clone(&mapping.domain), descriptors));
        }
        Ok(nobody())
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

/// What of the filter or of the routes as a whole is not known here.
fn unsupported(filter: &Value, routes: &Value) -> Option<EnvoyError> {
    let place = "the rate limit filter";
    let request_type = text(filter, "request_type");
    if !matches!(request_type.as_str(), "" | "both") {
        return Some(EnvoyError::unsupported(place, format!("request_type {request_type}")));
    }
    for name in ["rate_limits", "filter_enabled", "filter_enforced"] {
        if field(filter, name).is_some() {
            return Some(EnvoyError::unsupported(place, name));
        }
    }
    field(routes, "vhds").map(|_| EnvoyError::unsupported("route_config", "vhds"))
}

impl Host {
    fn read(filter: &Filter<'_>, routes: &Value, host: &Value) -> Self {
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
                limits: limits::of_route(filter, levels, &place),
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
