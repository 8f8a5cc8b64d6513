//! The attributes of a CheckRequest, borrowed.

use std::borrow::Cow;
use std::net::IpAddr;

use prost_types::value::Kind;

use crate::mapping::Attributes;
use crate::proto::envoy::config::core::v3 as core;
use crate::proto::envoy::service::auth::v3 as wire;
use crate::service::convert;
use wire::attribute_context::HttpRequest;

/// Integers up to here are exact in a double, so they can be written without a fraction.
const MAX_EXACT: f64 = crate::model::time::MAX_EXACT as f64;

/// A CheckRequest that has an HTTP part.
pub struct View<'a> {
    context: &'a wire::AttributeContext,
    http: &'a HttpRequest,
    /// Headers as bytes, where the filter's `encode_raw_headers` is set.
    raw: &'a [core::HeaderValue],
}

/// What is missing in a CheckRequest, or too much.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoView {
    /// `attributes` is not set.
    #[error("the request has no attributes")]
    NoAttributes,
    /// `attributes.request.http` is not set.
    #[error("the attributes have no HTTP request: ext_authz is an HTTP filter here, not a network filter")]
    NoHttp,
    /// More headers than the bound.
    #[error("the request has {found} headers, at most {max} are allowed")]
    TooManyHeaders {
        /// How many it has.
        found: usize,
        /// How many it may have.
        max: usize,
    },
}

impl NoView {
    /// A fixed word for metrics.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::NoAttributes => "no_attributes",
            Self::NoHttp => "no_http",
            Self::TooManyHeaders { .. } => "too_large",
        }
    }
}

impl<'a> View<'a> {
    /// The view of a request.
    ///
    /// # Errors
    /// [`NoView`] when there is nothing to view, or more than `max_headers`.
    pub fn of(request: &'a wire::CheckRequest, max_headers: usize) -> Result<Self, NoView> {
        let context = request.attributes.as_ref().ok_or(NoView::NoAttributes)?;
        let http = context
            .request
            .as_ref()
            .and_then(|request| request.http.as_ref())
            .ok_or(NoView::NoHttp)?;
        let raw = http.header_map.as_ref().map_or(&[][..], |map| &map.headers);
        // Raw ones are searched from end to end for every name.
        let found = http.headers.len().saturating_add(raw.len());
        if found > max_headers {
            return Err(NoView::TooManyHeaders {
                found,
                max: max_headers,
            });
        }
        Ok(Self { context, http, raw })
    }

    /// Names of all headers, as they were sent.
    pub(super) fn header_names(&self) -> impl Iterator<Item = &'a str> {
        let raw = self.raw.iter().map(|header| header.key.as_str());
        self.http.headers.keys().map(String::as_str).chain(raw)
    }

    /// Whether the caller speaks gRPC and reads trailers rather than a status and a body.
    pub(super) fn is_grpc(&self) -> bool {
        let Some(content_type) = self.header("content-type") else {
            return false;
        };
        content_type
            .strip_prefix("application/grpc")
            .is_some_and(|rest| rest.is_empty() || rest.starts_with(['+', ';']))
    }
}

impl Attributes for View<'_> {
    fn method(&self) -> &str {
        &self.http.method
    }

    fn host(&self) -> &str {
        &self.http.host
    }

    fn path(&self) -> &str {
        &self.http.path
    }

    fn header(&self, name: &str) -> Option<Cow<'_, str>> {
        if let Some(value) = self.http.headers.get(name) {
            return Some(Cow::Borrowed(value));
        }
        let mut values = self
            .raw
            .iter()
            .filter(|header| header.key.eq_ignore_ascii_case(name))
            .map(value);
        let first = values.next()?;
        // Joined as Envoy joins them where it sends text.
        Some(values.fold(first, |joined, next| Cow::Owned(format!("{joined},{next}"))))
    }

    fn source_address(&self) -> Option<IpAddr> {
        let address = self.context.source.as_ref()?.address.as_ref()?.address.as_ref()?;
        match address {
            core::address::Address::SocketAddress(socket) => socket.address.parse().ok(),
            core::address::Address::Pipe(_) => None,
        }
    }

    fn source_principal(&self) -> &str {
        self.context.source.as_ref().map_or("", |source| &source.principal)
    }

    fn context_extension(&self, key: &str) -> Option<&str> {
        self.context.context_extensions.get(key).map(String::as_str)
    }

    fn metadata(&self, namespace: &str, path: &[Box<str>]) -> Option<Cow<'_, str>> {
        let metadata = self.context.metadata_context.as_ref()?;
        let mut fields = &metadata.filter_metadata.get(namespace)?.fields;
        let (last, outer) = path.split_last()?;
        for key in outer {
            let Some(Kind::StructValue(inner)) = &fields.get(&**key)?.kind else {
                return None;
            };
            fields = &inner.fields;
        }
        scalar(fields.get(&**last)?.kind.as_ref()?)
    }

    fn size(&self) -> Option<u64> {
        // Envoy says 0 when it has not seen the body, -1 when it does not know.
        u64::try_from(self.http.size).ok().filter(|size| *size > 0)
    }
}

fn scalar(kind: &Kind) -> Option<Cow<'_, str>> {
    match kind {
        Kind::StringValue(text) => Some(Cow::Borrowed(text)),
        Kind::BoolValue(value) => Some(Cow::Borrowed(if *value { "true" } else { "false" })),
        #[allow(clippy::cast_possible_truncation, reason = "whole and within 2^53")]
        Kind::NumberValue(n) if n.fract() == 0.0 && n.abs() <= MAX_EXACT => Some((*n as i64).to_string().into()),
        Kind::NumberValue(n) => Some(n.to_string().into()),
        Kind::NullValue(_) | Kind::StructValue(_) | Kind::ListValue(_) => None,
    }
}

/// A raw header's text. Bytes that are no UTF-8 are written as `\xHH`, so that different ones stay different.
fn value(header: &core::HeaderValue) -> Cow<'_, str> {
    if header.raw_value.is_empty() {
        return Cow::Borrowed(&header.value);
    }
    match std::str::from_utf8(&header.raw_value) {
        Ok(text) if !convert::looks_escaped(text) => Cow::Borrowed(text),
        Ok(_) | Err(_) => Cow::Owned(convert::escaped(&header.raw_value)),
    }
}
