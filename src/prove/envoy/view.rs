//! A request as Envoy's HTTP filters see it: the client's address is the trusted one.

use std::borrow::Cow;
use std::net::IpAddr;

use serde_json::Value;
use smallvec::SmallVec;

use crate::mapping::Attributes;

use super::EnvoyError;
use super::json::{field, items, number, text, truth};

/// How the connection manager changes requests before its filters see them.
pub(super) struct Manager {
    use_remote_address: bool,
    hops: usize,
    /// Paths that are not in this spelling already are refused.
    normalizes: bool,
    strips_port: bool,
    /// What of it cannot be evaluated.
    unsupported: Option<EnvoyError>,
}

/// Whether Envoy writes or removes this header before its filters see it, so that what a client sent is not what counts.
pub(super) fn written_by_envoy(name: &str) -> bool {
    name.starts_with("x-envoy-")
        || matches!(
            name,
            "x-forwarded-for" | "x-forwarded-proto" | "x-request-id" | ":scheme"
        )
}

impl Manager {
    pub(super) fn read(manager: &Value, routes: &Value) -> Self {
        let place = "http_connection_manager";
        let escaped = text(manager, "path_with_escaped_slashes_action");
        let unsupported = [
            (
                !items(manager, "original_ip_detection_extensions").is_empty(),
                "original_ip_detection_extensions",
            ),
            (
                !items(manager, "early_header_mutation_extensions").is_empty(),
                "early_header_mutation_extensions",
            ),
        ];
        let unsupported = unsupported.iter().find(|(is_set, _)| *is_set);
        Self {
            use_remote_address: truth(manager, "use_remote_address").unwrap_or_default(),
            hops: number(manager, "xff_num_trusted_hops")
                .and_then(|hops| usize::try_from(hops).ok())
                .unwrap_or_default(),
            normalizes: truth(manager, "normalize_path").unwrap_or_default()
                || truth(manager, "merge_slashes").unwrap_or_default()
                || !matches!(
                    escaped.as_str(),
                    "" | "KEEP_UNCHANGED" | "IMPLEMENTATION_SPECIFIC_DEFAULT"
                ),
            strips_port: truth(manager, "strip_matching_host_port").unwrap_or_default()
                || truth(manager, "strip_any_host_port").unwrap_or_default()
                || truth(routes, "ignore_port_in_host_matching").unwrap_or_default()
                || field(manager, "strip_port_mode").is_some(),
            unsupported: unsupported.map(|(_, name)| EnvoyError::unsupported(place, *name)),
        }
    }

    /// The request with the client's address found. `is_final` = its address is the trusted one already, as access logs
    /// have it.
    pub(super) fn view<'a, A: Attributes>(&self, request: &'a A, is_final: bool) -> Result<View<'a, A>, EnvoyError> {
        if let Some(unsupported) = &self.unsupported {
            return Err(unsupported.clone());
        }
        let path = request.path();
        if self.normalizes && !is_normal(path) {
            let reason = format!(
                "Envoy would normalize its path {:?}",
                path.chars().take(80).collect::<String>()
            );
            return Err(EnvoyError::Request(reason));
        }
        let peer = request.source_address();
        let client = if is_final {
            peer
        } else {
            self.forwarded(request).or(peer)
        };
        Ok(View { request, client })
    }

    fn forwarded<A: Attributes>(&self, request: &A) -> Option<IpAddr> {
        let skip = match (self.use_remote_address, self.hops) {
            (true, hops) => hops.checked_sub(1)?,
            (false, hops) => hops,
        };
        let header = request.header("x-forwarded-for")?;
        header.rsplit(',').nth(skip)?.trim_matches([' ', '\t']).parse().ok()
    }

    /// The authority as virtual hosts are compared with it.
    pub(super) fn host(&self, authority: &str) -> String {
        let host = match authority.rsplit_once(':') {
            Some((host, port)) if self.strips_port && port.bytes().all(|b| b.is_ascii_digit()) => host,
            _ => authority,
        };
        host.to_ascii_lowercase()
    }
}

/// Whether no way of normalizing changes a path.
fn is_normal(path: &str) -> bool {
    let path = path.split(['?', '#']).next().unwrap_or_default();
    !path.contains("//") && !path.contains(['%', '\\']) && !path.split('/').any(|segment| matches!(segment, "." | ".."))
}

/// A request with another address.
pub(super) struct View<'a, A> {
    request: &'a A,
    client: Option<IpAddr>,
}

impl<A: Attributes> Attributes for View<'_, A> {
    fn method(&self) -> &str {
        self.request.method()
    }

    fn host(&self) -> &str {
        self.request.host()
    }

    fn path(&self) -> &str {
        self.request.path()
    }

    fn header(&self, name: &str) -> Option<Cow<'_, str>> {
        self.request.header(name)
    }

    fn header_values(&self, name: &str) -> SmallVec<[Cow<'_, str>; 1]> {
        self.request.header_values(name)
    }

    fn source_address(&self) -> Option<IpAddr> {
        self.client
    }

    fn source_principal(&self) -> &str {
        self.request.source_principal()
    }

    fn context_extension(&self, key: &str) -> Option<&str> {
        self.request.context_extension(key)
    }

    fn metadata(&self, namespace: &str, path: &[Box<str>]) -> Option<Cow<'_, str>> {
        self.request.metadata(namespace, path)
    }

    fn size(&self) -> Option<u64> {
        self.request.size()
    }
}
