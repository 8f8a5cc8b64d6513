//! What may be asked of `/explain` and `/counters`: descriptors, or an HTTP request that the rules' `ext_authz` section
//! maps to them.

use std::collections::BTreeMap;
use std::net::IpAddr;

use axum::http::StatusCode;
use serde::Deserialize;

use crate::engine::Active;
use crate::model::time::MAX_EXACT;
use crate::model::{Descriptor, Entry, Request};
use crate::prove::http::HttpRequest;

use super::problem::Problem;

/// Descriptors of a question, and entries of each.
const MAX_DESCRIPTORS: usize = 16;
const MAX_ENTRIES: usize = 16;
/// Longest text, in characters.
const MAX_CHARS: usize = 4096;
/// Longest value that a mapping makes, in bytes; as the service bounds it.
const MAX_VALUE_BYTES: usize = 4096;
/// Headers of an HTTP request, and context extensions.
const MAX_HEADERS: usize = 100;
/// Most hits of a descriptor: what every part of the pipeline counts exactly.
const MAX_HITS: u64 = MAX_EXACT - 1;

/// The body of `/explain`.
#[derive(Deserialize)]
#[serde(untagged)]
pub(super) enum Question {
    Descriptors(ByDescriptors),
    Http(ByHttp),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ByDescriptors {
    pub domain: String,
    pub descriptors: Vec<Asked>,
    #[serde(default)]
    pub hits_addend: u32,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Asked {
    pub entries: Vec<AskedEntry>,
    pub hits_addend: Option<u64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct AskedEntry {
    pub key: String,
    #[serde(default)]
    pub value: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ByHttp {
    pub http: Http,
    /// Instead of the domain that the request's context extensions name.
    pub domain: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Http {
    method: String,
    path: String,
    #[serde(default)]
    host: String,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    client: Option<IpAddr>,
    #[serde(default)]
    context_extensions: BTreeMap<String, String>,
}

impl Question {
    /// The request that the services would make of it.
    pub fn request(self, active: &Active) -> Result<Request, Problem> {
        match self {
            Self::Descriptors(asked) => asked.request(),
            Self::Http(asked) => asked.request(active),
        }
    }
}

impl ByDescriptors {
    pub fn request(self) -> Result<Request, Problem> {
        text("domain", &self.domain)?;
        if !(1..=MAX_DESCRIPTORS).contains(&self.descriptors.len()) {
            return Err(Problem::bad(format!("descriptors: allowed are 1 to {MAX_DESCRIPTORS}")));
        }
        let descriptors = self.descriptors.into_iter().map(descriptor);
        Ok(Request {
            domain: self.domain,
            descriptors: descriptors.collect::<Result<_, _>>()?,
            hits_addend: self.hits_addend,
            releases_all: false,
        })
    }
}

fn descriptor(asked: Asked) -> Result<Descriptor, Problem> {
    if !(1..=MAX_ENTRIES).contains(&asked.entries.len()) {
        return Err(Problem::bad(format!("entries: allowed are 1 to {MAX_ENTRIES}")));
    }
    if asked.hits_addend.is_some_and(|hits| hits > MAX_HITS) {
        return Err(Problem::bad(format!("hits_addend: allowed are 0 to {MAX_HITS}")));
    }
    let entry = |asked: AskedEntry| {
        text("key", &asked.key)?;
        short("value", &asked.value)?;
        Ok(Entry {
            key: asked.key,
            value: asked.value,
        })
    };
    Ok(Descriptor {
        entries: asked.entries.into_iter().map(entry).collect::<Result<_, _>>()?,
        hits_addend: asked.hits_addend,
        ..Descriptor::default()
    })
}

/// Not empty and not too long.
fn text(what: &str, text: &str) -> Result<(), Problem> {
    if text.is_empty() {
        return Err(Problem::bad(format!("{what}: must not be empty")));
    }
    short(what, text)
}

fn short(what: &str, text: &str) -> Result<(), Problem> {
    if text.chars().nth(MAX_CHARS).is_none() {
        Ok(())
    } else {
        Err(Problem::bad(format!("{what}: allowed are {MAX_CHARS} characters")))
    }
}

impl ByHttp {
    fn request(self, active: &Active) -> Result<Request, Problem> {
        let http = self.http;
        for (what, texts) in [
            ("headers", &http.headers),
            ("context_extensions", &http.context_extensions),
        ] {
            if texts.len() > MAX_HEADERS {
                return Err(Problem::bad(format!("{what}: allowed are {MAX_HEADERS}")));
            }
            texts.values().try_for_each(|value| short(what, value))?;
        }
        short("method", &http.method)?;
        short("path", &http.path)?;
        short("host", &http.host)?;
        self.domain.as_deref().map_or(Ok(()), |domain| text("domain", domain))?;
        let headers = http.headers.into_iter();
        let request = HttpRequest {
            method: http.method,
            host: http.host,
            path: http.path,
            headers: headers
                .map(|(name, value)| (name.to_ascii_lowercase(), value))
                .collect(),
            client: http.client,
            extensions: http.context_extensions.into_iter().collect(),
        };
        let mappings = &active.rules.ext_authz;
        let mapping = match &self.domain {
            Some(domain) => mappings
                .get(domain)
                .ok_or_else(|| Problem::new(StatusCode::NOT_FOUND, "the domain has no `ext_authz` section"))?,
            None => mappings
                .resolve(&request)
                .map_err(|error| Problem::new(StatusCode::NOT_FOUND, error.to_string()))?,
        };
        let descriptors = mapping.descriptors(&request, MAX_VALUE_BYTES);
        Ok(Request {
            domain: mapping.domain.to_string(),
            descriptors: descriptors.map_err(|error| Problem::bad(error.to_string()))?,
            hits_addend: 1,
            releases_all: false,
        })
    }
}

/// `user=alice|path=/x`, with `%`, `|` and `=` in keys and values percent-encoded.
pub(super) fn parse_descriptor(text: &str) -> Asked {
    let decode = |text: &str| {
        percent_encoding::percent_decode_str(text)
            .decode_utf8_lossy()
            .into_owned()
    };
    let entry = |part: &str| {
        let (key, value) = part.split_once('=').unwrap_or((part, ""));
        AskedEntry {
            key: decode(key),
            value: decode(value),
        }
    };
    Asked {
        entries: text.split('|').map(entry).collect(),
        hits_addend: None,
    }
}
