//! A request while it is mapped: what several lists ask for is worked out once.

use std::borrow::Cow;
use std::cell::OnceCell;
use std::net::IpAddr;

use smallvec::SmallVec;

use super::address::NotNamed;
use super::path;
use super::spelling::normalize;
use super::{Attributes, ClientAddress};

/// A request and the settings by which it is read.
pub struct Subject<'a, A> {
    attributes: &'a A,
    client: ClientAddress,
    normalize_path: bool,
    path: OnceCell<Cow<'a, str>>,
    address: OnceCell<(Option<IpAddr>, Option<NotNamed>)>,
    host: OnceCell<Cow<'a, str>>,
}

impl<'a, A: Attributes> Subject<'a, A> {
    /// Nothing is worked out yet.
    #[must_use]
    pub const fn new(attributes: &'a A, client: ClientAddress, normalize_path: bool) -> Self {
        Self {
            attributes,
            client,
            normalize_path,
            path: OnceCell::new(),
            address: OnceCell::new(),
            host: OnceCell::new(),
        }
    }

    /// The request as it came.
    pub const fn attributes(&self) -> &'a A {
        self.attributes
    }

    /// How the client's address is read and shown.
    pub const fn client(&self) -> &ClientAddress {
        &self.client
    }

    /// The path without its query, in one spelling unless that is switched off.
    pub fn path(&self) -> &str {
        self.path.get_or_init(|| {
            let path = path::without_query(self.attributes.path());
            if self.normalize_path {
                normalize(path)
            } else {
                Cow::Borrowed(path)
            }
        })
    }

    /// The client's address behind the trusted proxies.
    pub fn address(&self) -> Option<IpAddr> {
        self.address.get_or_init(|| self.client.look(self.attributes)).0
    }

    /// Why that is not the one that the header should name, if it was asked for and is not.
    pub fn not_named(self) -> Option<NotNamed> {
        self.address.into_inner()?.1
    }

    /// The authority without its port, in lower case.
    pub fn host(&self) -> &str {
        self.host.get_or_init(|| host(self.attributes.host()))
    }

    /// Each value of a header, where they are known apart; pseudo-headers too.
    pub fn header_values(&self, name: &str) -> SmallVec<[Cow<'a, str>; 1]> {
        let values = self.attributes.header_values(name);
        if values.is_empty() {
            self.header(name).into_iter().collect()
        } else {
            values
        }
    }

    /// A header; HTTP/2's pseudo-headers too, because Envoy's users name them like headers.
    pub fn header(&self, name: &str) -> Option<Cow<'a, str>> {
        if let Some(value) = self.attributes.header(name) {
            return Some(value);
        }
        let value = match name {
            ":path" => self.attributes.path(),
            ":method" => self.attributes.method(),
            ":authority" | "host" => self.attributes.host(),
            _ => return None,
        };
        (!value.is_empty()).then_some(Cow::Borrowed(value))
    }
}

/// Clients may write one host in many ways: with any port, in any case, with the root's dot.
fn host(authority: &str) -> Cow<'_, str> {
    // The port follows the last colon, unless that stands inside an IPv6 literal.
    let host = match authority.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => host,
        _ => authority,
    };
    let host = host.strip_suffix('.').unwrap_or(host);
    if host.bytes().any(|b| b.is_ascii_uppercase()) {
        Cow::Owned(host.to_ascii_lowercase())
    } else {
        Cow::Borrowed(host)
    }
}

#[cfg(test)]
mod tests {
    use super::host;

    #[test]
    fn a_host_has_one_spelling() {
        for spelling in [
            "shop.example",
            "Shop.Example:443",
            "shop.example.",
            "SHOP.example.:80",
            "shop.example:",
        ] {
            assert_eq!(host(spelling), "shop.example", "{spelling}");
        }
        assert_eq!(host("[::1]:8080"), "[::1]");
        assert_eq!(host("[::1]"), "[::1]");
        assert_eq!(host(""), "");
    }
}
