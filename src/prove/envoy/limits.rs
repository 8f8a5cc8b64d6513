//! Which `rate_limits` apply on a route: its own, its virtual host's, or those of the filter's configuration for it.

use std::sync::Arc;

use serde_json::Value;

use crate::mapping::{Answers, ClientAddress, HitsFrom, List, Mapping, RequestMatcher};

use super::EnvoyError;
use super::actions::{self, Around};
use super::bootstrap::{FoundFilter, is_type};
use super::json::{field, items, number, path, text, truth, unknown};

/// A filter as the connection manager has it.
pub(super) struct Filter<'v> {
    pub found: &'v FoundFilter,
    /// What of it cannot be evaluated, on any route.
    pub unsupported: Option<EnvoyError>,
    pub local_cluster: Option<&'v str>,
}

/// The levels on which a route is configured.
#[derive(Clone, Copy)]
pub(super) struct Levels<'v> {
    pub routes: &'v Value,
    pub host: &'v Value,
    pub route: &'v Value,
}

/// The filter's own configuration for a route: the most specific level wins.
struct PerRoute<'v> {
    config: Option<&'v Value>,
    disabled: bool,
}

/// What a route's requests are limited by through one filter; `None`: it does not ask.
pub(super) fn of_route(
    filter: &Filter<'_>,
    levels: Levels<'_>,
    place: &str,
) -> Result<Option<Arc<Mapping>>, EnvoyError> {
    let Some(action) = field(levels.route, "route") else {
        // A redirect or a direct response: the filter finds no cluster and asks nobody.
        return Ok(None);
    };
    let clusters = path(action, &["weighted_clusters"]).map_or(&[][..], |weighted| items(weighted, "clusters"));
    let is_configured = |cluster: &Value| path(cluster, &["typed_per_filter_config", &filter.found.name]).is_some();
    if clusters.iter().any(is_configured) {
        return Err(EnvoyError::unsupported(
            place,
            "typed_per_filter_config of weighted clusters",
        ));
    }
    let per_route = per_route(filter, levels);
    if per_route.disabled {
        return Ok(None);
    }
    if let Some(unsupported) = &filter.unsupported {
        return Err(unsupported.clone());
    }
    let around = Around {
        local_cluster: filter.local_cluster,
        route: action,
        metadata: field(levels.route, "metadata"),
    };
    let stage = Some(number(&filter.found.config, "stage").unwrap_or_default());
    let mut lists = Vec::new();
    let mut add = |message: &Value, stage: Option<u64>, place: &str| -> Result<(), EnvoyError> {
        for (at, limit) in (1..).zip(items(message, "rate_limits")) {
            lists.extend(list(limit, stage, &around, &format!("{place}, rate_limits #{at}"))?);
        }
        Ok(())
    };
    let own = per_route
        .config
        .filter(|config| !items(config, "rate_limits").is_empty());
    let host_place = format!("virtual host {}", text(levels.host, "name"));
    if let Some(config) = own {
        // These are this filter's own: they have no stages.
        add(config, None, &format!("{place}, typed_per_filter_config"))?;
    } else {
        add(action, stage, place)?;
        if takes_host(action, per_route.config, place)? {
            add(levels.host, stage, &host_place)?;
        }
    }
    let of_route = per_route
        .config
        .map(|config| text(config, "domain"))
        .filter(|domain| !domain.is_empty());
    let domain = of_route.unwrap_or_else(|| text(&filter.found.config, "domain"));
    Ok(Some(Arc::new(Mapping {
        domain: domain.into(),
        // The address has been found before, and every bit of it counts.
        client: ClientAddress {
            ipv6_prefix_len: 128,
            ..ClientAddress::default()
        },
        normalize_path: false,
        lists: lists.into(),
        answers: Answers::default(),
        failure_mode: None,
    })))
}

fn per_route<'v>(filter: &Filter<'_>, levels: Levels<'v>) -> PerRoute<'v> {
    let all = [levels.route, levels.host, levels.routes];
    let found = all
        .iter()
        .find_map(|level| field(level, "typed_per_filter_config")?.get(&filter.found.name));
    let Some(found) = found else {
        return PerRoute {
            config: None,
            disabled: filter.found.disabled,
        };
    };
    if is_type(found, "config.route.v3.FilterConfig") {
        return PerRoute {
            config: field(found, "config"),
            disabled: truth(found, "disabled").unwrap_or_default(),
        };
    }
    PerRoute {
        config: Some(found),
        disabled: false,
    }
}

/// Whether the virtual host's `rate_limits` count beside (or in place of) the route's.
fn takes_host(action: &Value, per_route: Option<&Value>, place: &str) -> Result<bool, EnvoyError> {
    if truth(action, "include_vh_rate_limits") == Some(true) {
        return Ok(true);
    }
    let option = per_route
        .map(|config| text(config, "vh_rate_limits"))
        .unwrap_or_default();
    if let Some(config) = per_route.filter(|config| !matches!(text(config, "override_option").as_str(), "" | "DEFAULT"))
    {
        let option = text(config, "override_option");
        return match option.as_str() {
            "OVERRIDE_POLICY" => Ok(items(action, "rate_limits").is_empty()),
            "INCLUDE_POLICY" => Ok(true),
            "IGNORE_POLICY" => Ok(false),
            _ => Err(EnvoyError::unsupported(place, format!("override_option {option}"))),
        };
    }
    match option.as_str() {
        "" | "OVERRIDE" => Ok(items(action, "rate_limits").is_empty()),
        "INCLUDE" => Ok(true),
        "IGNORE" => Ok(false),
        _ => Err(EnvoyError::unsupported(place, format!("vh_rate_limits {option}"))),
    }
}

fn list(limit: &Value, stage: Option<u64>, around: &Around<'_>, place: &str) -> Result<Option<List>, EnvoyError> {
    if stage.is_some_and(|stage| number(limit, "stage").unwrap_or_default() != stage) {
        return Ok(None);
    }
    if let Some(unknown) = unknown(limit, &["stage", "actions", "hits_addend", "apply_on_stream_done"]) {
        return Err(EnvoyError::unsupported(place, unknown));
    }
    if truth(limit, "apply_on_stream_done") == Some(true) {
        return Err(EnvoyError::unsupported(
            place,
            "apply_on_stream_done: hits that a response costs",
        ));
    }
    let hits = match field(limit, "hits_addend") {
        None => None,
        // Envoy 1.40 reads it in the filter's own configuration of a route only.
        Some(_) if stage.is_some() => None,
        Some(hits) if field(hits, "format").is_none() => Some(HitsFrom::Fixed(number(hits, "number").unwrap_or(1))),
        Some(_) => return Err(EnvoyError::unsupported(place, "hits_addend by a format")),
    };
    let actions = (1..)
        .zip(items(limit, "actions"))
        .map(|(at, action)| actions::action(action, around, &format!("{place}, actions #{at}")));
    Ok(Some(List {
        matcher: RequestMatcher::default(),
        hits,
        actions: actions.collect::<Result<_, _>>()?,
    }))
}
