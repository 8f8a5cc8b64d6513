//! A `CheckRequest` as Envoy sends it for a browser's GET, with the load's own headers in it.

use crate::proto::envoy::config::core::v3::{Address, SocketAddress, address, socket_address};
use crate::proto::envoy::service::auth::v3::{
    AttributeContext, CheckRequest,
    attribute_context::{HttpRequest, Peer, Request},
};

/// What stands in every request besides the load's own headers.
const HEADERS: [(&str, &str); 11] = [
    (":authority", "shop.example:443"),
    (":method", "GET"),
    (":path", "/api/v1/items/1234?page=2"),
    (":scheme", "https"),
    ("accept", "*/*"),
    ("accept-encoding", "gzip, deflate, br"),
    (
        "user-agent",
        "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0",
    ),
    ("x-envoy-external-address", "203.0.113.7"),
    ("x-forwarded-for", "203.0.113.7"),
    ("x-forwarded-proto", "https"),
    ("x-request-id", "f4727f62-7936-4654-a1f6-a0783cb87ce5"),
];

/// A request of this domain with these headers.
pub(super) fn request(domain: &str, headers: impl IntoIterator<Item = (String, String)>) -> CheckRequest {
    let standing = HEADERS.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let http = HttpRequest {
        id: "8194900691814799166".into(),
        method: "GET".into(),
        headers: standing.into_iter().chain(headers).collect(),
        path: "/api/v1/items/1234?page=2".into(),
        host: "shop.example:443".into(),
        scheme: "https".into(),
        protocol: "HTTP/2".into(),
        ..HttpRequest::default()
    };
    CheckRequest {
        attributes: Some(AttributeContext {
            source: Some(peer("203.0.113.7", 56_304)),
            destination: Some(peer("192.0.2.2", 443)),
            request: Some(Request {
                time: Some(prost_types::Timestamp {
                    seconds: 1_795_210_729,
                    nanos: 298_138_000,
                }),
                http: Some(http),
            }),
            context_extensions: [("domain".to_owned(), domain.to_owned())].into(),
            ..AttributeContext::default()
        }),
    }
}

fn peer(address: &str, port: u32) -> Peer {
    let socket = SocketAddress {
        address: address.into(),
        port_specifier: Some(socket_address::PortSpecifier::PortValue(port)),
        ..SocketAddress::default()
    };
    Peer {
        address: Some(Address {
            address: Some(address::Address::SocketAddress(socket)),
        }),
        ..Peer::default()
    }
}
