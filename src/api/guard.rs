//! Who may ask. Reading is open to loopback; everything else, and every change, needs the bearer token. What decides is
//! the peer's address, never what a request says of itself.

use std::net::{IpAddr, SocketAddr};

use axum::extract::{ConnectInfo, Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::Api;
use super::problem::Problem;

/// Nothing from elsewhere, no scripts but our own, in nobody's frame.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// Lets a call in or refuses it, and gives every answer the headers that keep browsers strict.
pub(super) async fn guard(State(api): State<Api>, request: Request, next: Next) -> Response {
    let mut response = match admit(&api, &request) {
        Ok(()) => next.run(request).await,
        Err(problem) => problem.into_response(),
    };
    strict(response.headers_mut());
    response
}

/// Headers of every answer of the API and the console.
pub(crate) fn strict(headers: &mut HeaderMap) {
    for (name, value) in [
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::REFERRER_POLICY, "no-referrer"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers
        .entry(header::CACHE_CONTROL)
        .or_insert(HeaderValue::from_static("no-store"));
}

fn admit(api: &Api, request: &Request) -> Result<(), Problem> {
    let headers = request.headers();
    same_origin(headers, request.uri())?;
    let peer = request.extensions().get::<ConnectInfo<SocketAddr>>();
    let peer = peer.map(|ConnectInfo(address)| address.ip().to_canonical());
    let given = bearer(headers);
    let token = api.0.parts.token.as_ref();
    let has_token = match (token, given) {
        (Some(token), Some(given)) if token.is(given) => true,
        (Some(_), Some(_)) => return Err(Problem::new(StatusCode::UNAUTHORIZED, "this is not the admin token")),
        _ => false,
    };
    // A proxy on this machine carries others' requests.
    let is_forwarded = headers.contains_key("x-forwarded-for") || headers.contains_key(header::FORWARDED);
    let is_local = !is_forwarded && peer.is_some_and(|peer| peer.is_loopback());
    if has_token {
        return Ok(());
    }
    if is_local {
        local_host(headers, request.uri())?;
    } else {
        return Err(needs_token(token.is_some(), "from off loopback"));
    }
    let is_read = matches!(*request.method(), Method::GET | Method::HEAD) || request.uri().path() == "/api/v1/explain";
    if is_read {
        Ok(())
    } else {
        Err(needs_token(token.is_some(), "for a change"))
    }
}

fn needs_token(configured: bool, what: &str) -> Problem {
    if configured {
        let detail = format!("{what} the admin token is needed: Authorization: Bearer …");
        return Problem::new(StatusCode::UNAUTHORIZED, detail);
    }
    let detail = format!("{what} a token is needed, and none is configured: --admin-token-file");
    Problem::new(StatusCode::FORBIDDEN, detail)
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// A page of another site must not ask in its visitor's name.
fn same_origin(headers: &HeaderMap, uri: &Uri) -> Result<(), Problem> {
    let refuse = || Problem::new(StatusCode::FORBIDDEN, "a page of another site must not ask here");
    let site = headers.get("sec-fetch-site").map(HeaderValue::as_bytes);
    if matches!(site, Some(b"cross-site" | b"same-site")) {
        return Err(refuse());
    }
    let Some(origin) = headers.get(header::ORIGIN) else {
        return Ok(());
    };
    let origin = origin.to_str().ok().and_then(|origin| origin.split_once("://"));
    match (origin, authority(headers, uri)) {
        (Some((_, origin)), Some(own)) if origin.eq_ignore_ascii_case(own) => Ok(()),
        _ => Err(refuse()),
    }
}

/// Without a token the name asked for must be this machine's own: a foreign name that was made to point here would let
/// its owner's pages in.
fn local_host(headers: &HeaderMap, uri: &Uri) -> Result<(), Problem> {
    let host = authority(headers, uri).map(host_of);
    let is_ours = host.is_some_and(|host| {
        host.eq_ignore_ascii_case("localhost") || host.trim_matches(['[', ']']).parse::<IpAddr>().is_ok()
    });
    if is_ours {
        return Ok(());
    }
    let detail = "without a token ask by an IP address or as localhost, not by another name";
    Err(Problem::new(StatusCode::FORBIDDEN, detail))
}

fn authority<'r>(headers: &'r HeaderMap, uri: &'r Uri) -> Option<&'r str> {
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    host.or_else(|| uri.authority().map(http::uri::Authority::as_str))
}

/// Without the port.
fn host_of(authority: &str) -> &str {
    match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        _ => authority,
    }
}
