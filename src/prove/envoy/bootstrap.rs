//! Finds in a bootstrap, or in what `/config_dump` says, the connection manager with the rate limit filter, and its routes.

use std::path::Path;

use serde_json::Value;

use crate::config::Source;

use super::EnvoyError;
use super::json::{field, items, path, text, truth};

/// Suffixes of the types that are looked for.
const MANAGER: &str = "http_connection_manager.v3.HttpConnectionManager";
const FILTER: &str = "filters.http.ratelimit.v3.RateLimit";

/// Names of listeners that an error lists.
const MAX_NAMES: usize = 20;

/// What is needed of an Envoy's configuration.
pub(super) struct Found {
    /// The connection manager.
    pub manager: Value,
    /// Its rate limit filters, in the order in which requests pass them.
    pub filters: Vec<FoundFilter>,
    /// Its routes.
    pub routes: Value,
    /// `node.cluster`: the value of `source_cluster`.
    pub local_cluster: Option<String>,
}

/// A rate limit filter.
pub(super) struct FoundFilter {
    /// Its name, by which routes configure it.
    pub name: String,
    /// Its configuration.
    pub config: Value,
    /// It asks only where a route's configuration enables it.
    pub disabled: bool,
}

/// Reads a file; `listener` names the listener where more than one has a rate limit filter.
pub(super) fn read(file: &Path, listener: Option<&str>) -> Result<Found, EnvoyError> {
    let snapshot = Source::new(vec![file.to_owned()]).read();
    let Some(text) = snapshot.texts.first() else {
        return Err(EnvoyError::Unreadable(snapshot.errors.to_string()));
    };
    let parsed = if text.text.trim_start().starts_with('{') {
        serde_json::from_str(&text.text).map_err(|error| error.to_string())
    } else {
        serde_yaml::from_str(&text.text).map_err(|error| error.without_snippet().to_string())
    };
    let root: Value = parsed.map_err(EnvoyError::Unreadable)?;
    find(&Parts::of(&root), listener)
}

/// Listeners, route configurations and the node, wherever they stand.
#[derive(Default)]
struct Parts<'v> {
    listeners: Vec<&'v Value>,
    routes: Vec<&'v Value>,
    node: Option<&'v Value>,
}

impl<'v> Parts<'v> {
    fn of(root: &'v Value) -> Self {
        let mut parts = Self::default();
        if field(root, "configs").is_none() {
            parts.add_bootstrap(root);
            return parts;
        }
        for dump in items(root, "configs") {
            if let Some(bootstrap) = field(dump, "bootstrap") {
                // Its listeners come again among the static ones.
                parts.node = field(bootstrap, "node");
            }
            for item in items(dump, "static_listeners") {
                parts.listeners.extend(field(item, "listener"));
            }
            for item in items(dump, "dynamic_listeners") {
                parts.listeners.extend(path(item, &["active_state", "listener"]));
            }
            let dynamic = items(dump, "dynamic_route_configs");
            for item in items(dump, "static_route_configs").iter().chain(dynamic) {
                parts.routes.extend(field(item, "route_config"));
            }
        }
        parts
    }

    fn add_bootstrap(&mut self, bootstrap: &'v Value) {
        self.node = field(bootstrap, "node");
        if let Some(resources) = field(bootstrap, "static_resources") {
            self.listeners.extend(items(resources, "listeners"));
        }
    }
}

fn find(parts: &Parts<'_>, wanted: Option<&str>) -> Result<Found, EnvoyError> {
    let mut found = Vec::new();
    for listener in &parts.listeners {
        let name = text(listener, "name");
        if wanted.is_some_and(|wanted| wanted != name) {
            continue;
        }
        let chains = items(listener, "filter_chains").iter();
        for chain in chains.chain(field(listener, "default_filter_chain")) {
            for network in items(chain, "filters") {
                let Some(manager) = field(network, "typed_config").filter(|config| is_type(config, MANAGER)) else {
                    continue;
                };
                let filters = items(manager, "http_filters");
                if let Some(discovered) = filters.iter().find(|filter| is_discovered(filter)) {
                    return Err(EnvoyError::unsupported(&text(discovered, "name"), "config_discovery"));
                }
                let filters: Vec<FoundFilter> = filters.iter().filter_map(filter).collect();
                if !filters.is_empty() {
                    found.push((name.clone(), manager, filters));
                }
            }
        }
    }
    let names: Vec<String> = found.iter().map(|(name, ..)| name.clone()).collect();
    let (manager, filters) = match (found.pop(), found.is_empty()) {
        (Some((_, manager, filters)), true) => (manager, filters),
        (None, _) => return Err(EnvoyError::wrong("listeners", none_found(parts, wanted))),
        _ => {
            let reason = format!(
                "several connection managers with a rate limit filter, in the listeners {}: name one listener",
                names.join(", ")
            );
            return Err(EnvoyError::wrong("listeners", reason));
        }
    };
    let routes = match (
        field(manager, "route_config"),
        path(manager, &["rds", "route_config_name"]),
    ) {
        (Some(inline), _) => inline.clone(),
        (None, Some(name)) => {
            let by_name = parts
                .routes
                .iter()
                .find(|routes| text(routes, "name") == name.as_str().unwrap_or_default());
            let missing = || {
                let reason = format!("the routes {name} come by RDS: give the output of /config_dump, which has them");
                EnvoyError::wrong("rds", reason)
            };
            (*by_name.ok_or_else(missing)?).clone()
        }
        (None, None) => return Err(EnvoyError::unsupported("http_connection_manager", "scoped routes")),
    };
    let local_cluster = parts
        .node
        .map(|node| text(node, "cluster"))
        .filter(|cluster| !cluster.is_empty());
    Ok(Found {
        manager: manager.clone(),
        filters,
        routes,
        local_cluster,
    })
}

/// Why there is no rate limit filter.
fn none_found(parts: &Parts<'_>, wanted: Option<&str>) -> String {
    let Some(wanted) = wanted else {
        return "none has an HTTP filter of the type RateLimit".to_owned();
    };
    let mut names: Vec<String> = parts.listeners.iter().map(|listener| text(listener, "name")).collect();
    if names.iter().any(|name| name == wanted) {
        return format!("{wanted:?} has no HTTP filter of the type RateLimit");
    }
    names.truncate(MAX_NAMES);
    format!("none is named {wanted:?}; there are {}", names.join(", "))
}

/// A rate limit filter whose configuration comes by ECDS, which is not in the file.
fn is_discovered(filter: &Value) -> bool {
    let types = path(filter, &["config_discovery", "type_urls"]).and_then(Value::as_array);
    let is_ours = |name: &Value| name.as_str().is_some_and(|name| ends_with_type(name, FILTER));
    types.is_some_and(|types| types.iter().any(is_ours))
}

/// An HTTP filter, if it is a rate limit filter.
fn filter(filter: &Value) -> Option<FoundFilter> {
    let config = field(filter, "typed_config").filter(|config| is_type(config, FILTER))?;
    Some(FoundFilter {
        name: text(filter, "name"),
        config: config.clone(),
        disabled: truth(filter, "disabled").unwrap_or_default(),
    })
}

pub(super) fn is_type(config: &Value, suffix: &str) -> bool {
    let name = config.get("@type").and_then(Value::as_str).unwrap_or_default();
    ends_with_type(name, suffix)
}

fn ends_with_type(name: &str, suffix: &str) -> bool {
    name.strip_suffix(suffix).is_some_and(|rest| rest.ends_with('.'))
}
