//! One entry of a descriptor: its key, and where its value comes from.

use std::borrow::Cow;

use super::address::{Networks, masked};
use super::matcher::QueryMatcher;
use super::{Attributes, HeaderMatcher, Masks, PathShape, Subject, query};

/// Makes an entry.
#[derive(Debug, Clone)]
pub struct Action {
    /// The entry's key.
    pub key: Box<str>,
    /// Where its value comes from.
    pub source: Source,
    /// What to do when there is none.
    pub absent: Absent,
}

/// What a missing value means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Absent {
    /// The whole list does not apply, as in Envoy.
    SkipList,
    /// The list goes without this entry (`skip_if_absent`).
    SkipEntry,
    /// This stands in for it (`default_value`).
    Value(Box<str>),
}

/// Where a value comes from.
#[derive(Debug, Clone)]
pub enum Source {
    /// A request header, by its lower-case name.
    Header(Box<str>),
    /// The first value of a request header, by its lower-case name, as Envoy's own action has it.
    FirstHeader(Box<str>),
    /// The client's address.
    RemoteAddress,
    /// The client's network.
    MaskedRemoteAddress(Masks),
    /// The client's address, or a fixed value in place of it, if the address is in one of the networks.
    RemoteAddressMatch {
        /// In place of the address.
        value: Option<Box<str>>,
        /// Where the address has to be.
        networks: Networks,
    },
    /// Always the same (`generic_key`).
    Fixed(Box<str>),
    /// The same, if the headers are (or are not) as wanted.
    HeaderMatch {
        /// The value.
        value: Box<str>,
        /// Whether they are to match.
        expect_match: bool,
        /// All of them.
        headers: Box<[HeaderMatcher]>,
    },
    /// A query parameter.
    Query(Box<str>),
    /// The same, if the query parameters are (or are not) as wanted.
    QueryMatch {
        /// The value.
        value: Box<str>,
        /// Whether they are to match.
        expect_match: bool,
        /// All of them.
        parameters: Box<[QueryMatcher]>,
    },
    /// The path, or a part of it.
    Path(PathShape),
    /// The method.
    Method,
    /// The authority without its port, in lower case.
    Host,
    /// The identity that mTLS proved.
    SourcePrincipal,
    /// A value in a filter's metadata, for instance a claim of a token.
    Metadata {
        /// The filter.
        namespace: Box<str>,
        /// Keys from the outside in.
        path: Box<[Box<str>]>,
    },
    /// What the route's configuration says.
    ContextExtension(Box<str>),
}

impl Source {
    /// The value for a request; `None` where it has none.
    pub fn value<'s, A: Attributes>(&'s self, subject: &'s Subject<'_, A>) -> Option<Cow<'s, str>> {
        let attributes = subject.attributes();
        let present = |text: &'s str| (!text.is_empty()).then_some(Cow::Borrowed(text));
        match self {
            Self::Header(name) => subject.header(name),
            Self::FirstHeader(name) => subject.header_values(name).into_iter().next(),
            Self::RemoteAddress => Some(subject.client().show(subject.address()?).into()),
            Self::MaskedRemoteAddress(masks) => Some(masked(subject.address()?, masks).into()),
            Self::RemoteAddressMatch { value, networks } => {
                let address = subject.address().filter(|address| networks.matches(*address))?;
                Some(match value {
                    Some(value) => Cow::Borrowed(value),
                    None => subject.client().show(address).into(),
                })
            }
            Self::Fixed(value) => Some(Cow::Borrowed(value)),
            Self::HeaderMatch {
                value,
                expect_match,
                headers,
            } => {
                let matched = headers.iter().all(|header| header.matches(subject));
                (matched == *expect_match).then_some(Cow::Borrowed(value))
            }
            Self::Query(name) => query::parameter(attributes.path(), name),
            Self::QueryMatch {
                value,
                expect_match,
                parameters,
            } => {
                let matched = parameters.iter().all(|wanted| wanted.matches(attributes.path()));
                (matched == *expect_match).then_some(Cow::Borrowed(value))
            }
            Self::Path(shape) => shape.value(subject.path()).map(Cow::Borrowed),
            Self::Method => present(attributes.method()),
            Self::Host => present(subject.host()),
            Self::SourcePrincipal => present(attributes.source_principal()),
            Self::Metadata { namespace, path } => attributes.metadata(namespace, path).filter(|text| !text.is_empty()),
            Self::ContextExtension(key) => attributes.context_extension(key).map(Cow::Borrowed),
        }
    }
}
