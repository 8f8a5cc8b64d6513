//! What may be asked of `/explain` and `/counters`: descriptors, or an HTTP request that the rules' `ext_authz` section
//! maps to them.

use std::collections::BTreeMap;
use std::net::IpAddr;

use axum::http::StatusCode;
use serde::de::Error;
use serde::{Deserialize, Deserializer};

use crate::engine::Active;
use crate::mapping::MAX_VALUE_BYTES;
use crate::model::time::MAX_EXACT;
use crate::model::{Descriptor, Entry, HOLD_ENTRY, Request, Settles};
use crate::prove::http::HttpRequest;

use super::problem::Problem;

/// Descriptors of a question, and entries of each.
const MAX_DESCRIPTORS: usize = 16;
const MAX_ENTRIES: usize = 16;
/// Longest text, in characters.
const MAX_CHARS: usize = 4096;
/// Headers of an HTTP request, and context extensions.
const MAX_HEADERS: usize = 100;
/// Most hits of a descriptor: what every part of the pipeline counts exactly.
const MAX_HITS: u64 = MAX_EXACT - 1;

/// Most entries of a list in an answer, and how many where the question does not say.
const MAX_LIST: usize = 200;
const USUAL_LIST: usize = 20;

/// How many entries a list in an answer has at most.
pub(super) fn list_limit(asked: Option<usize>) -> Result<usize, Problem> {
    let limit = asked.unwrap_or(USUAL_LIST);
    if (1..=MAX_LIST).contains(&limit) {
        Ok(limit)
    } else {
        Err(Problem::bad(format!("limit: allowed are 1 to {MAX_LIST}")))
    }
}

/// The body of `/explain`: either `descriptors` of a `domain`, or `http`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Question {
    /// With `http`: instead of the domain that the request's context extensions name.
    domain: Option<String>,
    descriptors: Option<Vec<Asked>>,
    #[serde(default, deserialize_with = "whole")]
    hits_addend: Option<u64>,
    http: Option<Http>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Asked {
    pub entries: Vec<AskedEntry>,
    #[serde(default, deserialize_with = "whole")]
    pub hits_addend: Option<u64>,
}

/// A whole number, also as JSON writes it with a fraction of zero: to JSON Schema `3.0` is an integer.
fn whole<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    let Some(number) = Option::<serde_json::Number>::deserialize(deserializer)? else {
        return Ok(None);
    };
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "whole, not negative and exact in a double"
    )]
    let of_fraction = |n: f64| (n.fract() == 0.0 && (0.0..MAX_EXACT as f64).contains(&n)).then_some(n as u64);
    let whole = number.as_u64().or_else(|| number.as_f64().and_then(of_fraction));
    whole
        .map(Some)
        .ok_or_else(|| D::Error::custom("a whole number is needed"))
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
        match (self.domain, self.descriptors, self.hits_addend, self.http) {
            (Some(domain), Some(descriptors), hits, None) => {
                let hits = u32::try_from(hits.unwrap_or(0));
                let hits = hits.map_err(|_| Problem::bad(format!("hits_addend: allowed are 0 to {}", u32::MAX)))?;
                by_descriptors(domain, descriptors, hits)
            }
            (domain, None, None, Some(http)) => http.request(domain.as_deref(), active),
            _ => Err(Problem::bad("give a domain and descriptors, or http")),
        }
    }
}

/// The request of these descriptors; `hits_addend` = hits of those that bring none, 0 means 1.
pub(super) fn by_descriptors(domain: String, descriptors: Vec<Asked>, hits_addend: u32) -> Result<Request, Problem> {
    text("domain", &domain)?;
    if !(1..=MAX_DESCRIPTORS).contains(&descriptors.len()) {
        return Err(Problem::bad(format!("descriptors: allowed are 1 to {MAX_DESCRIPTORS}")));
    }
    let descriptors = descriptors.into_iter().map(descriptor);
    Ok(Request {
        domain,
        descriptors: descriptors.collect::<Result<_, _>>()?,
        hits_addend,
        releases_all: false,
    })
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
    let mut entries = asked.entries.into_iter().map(entry).collect::<Result<_, _>>()?;
    let settles = Settles::take(&mut entries);
    if entries.is_empty() {
        return Err(Problem::bad(format!("entries: at least one beside {HOLD_ENTRY}")));
    }
    Ok(Descriptor {
        entries,
        hits_addend: asked.hits_addend,
        settles,
        ..Descriptor::default()
    })
}

/// Not empty and not too long.
pub(super) fn text(what: &str, text: &str) -> Result<(), Problem> {
    if text.is_empty() {
        return Err(Problem::bad(format!("{what}: must not be empty")));
    }
    short(what, text)
}

pub(super) fn short(what: &str, text: &str) -> Result<(), Problem> {
    if text.chars().nth(MAX_CHARS).is_none() {
        Ok(())
    } else {
        Err(Problem::bad(format!("{what}: allowed are {MAX_CHARS} characters")))
    }
}

impl Http {
    fn request(self, domain: Option<&str>, active: &Active) -> Result<Request, Problem> {
        let http = self;
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
        domain.map_or(Ok(()), |domain| text("domain", domain))?;
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
        let mapping = match domain {
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
