//! All lists of one domain, and how their answers look.

use std::sync::Arc;

use crate::model::{Descriptor, Entry};

use super::{Absent, Action, Attributes, ClientAddress, HitsFrom, RequestMatcher, Subject};

/// Most lists of a domain: the descriptors that one request can ask about.
pub const MAX_LISTS: usize = 256;
/// Most actions of a list.
pub const MAX_ACTIONS: usize = 32;

/// Longest value of a descriptor's entry in bytes; longer ones are refused, whoever asks.
pub const MAX_VALUE_BYTES: usize = 128 << 10;

/// How the requests of one domain become descriptors.
#[derive(Debug, Clone)]
pub struct Mapping {
    /// Whose rules apply.
    pub domain: Arc<str>,
    /// How the client's address is found.
    pub client: ClientAddress,
    /// Whether paths are brought into one spelling first.
    pub normalize_path: bool,
    /// At most [`MAX_LISTS`], in the order of the file.
    pub lists: Box<[List]>,
    /// How answers look.
    pub answers: Answers,
    /// What happens to requests that cannot be mapped; `None` = the global setting.
    pub failure_mode: Option<FailureMode>,
}

/// A list of actions: one descriptor, if it applies.
#[derive(Debug, Clone)]
pub struct List {
    /// Which requests it is for.
    pub matcher: RequestMatcher,
    /// What they cost.
    pub hits: Option<HitsFrom>,
    /// At most [`MAX_ACTIONS`].
    pub actions: Box<[Action]>,
}

/// What becomes of a request that nothing can be decided about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailureMode {
    /// It passes.
    Allow,
    /// It is turned away.
    Deny,
}

impl FailureMode {
    /// The word in rules files.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Deny => "deny",
        }
    }
}

/// How answers look.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answers {
    /// HTTP status of a denial; one that Envoy knows.
    pub denied_status: u16,
    /// `x-ratelimit-limit`, `-remaining`, `-reset` (or the names that are set globally).
    pub x_ratelimit: bool,
    /// IETF `ratelimit` and `ratelimit-policy`.
    pub ietf: bool,
    /// `retry-after` on a denial.
    pub retry_after: bool,
    /// A problem+json body on a denial.
    pub body: bool,
    /// Tells the upstream how the client stands, in the form of the IETF `ratelimit` header, under this lower-case name.
    pub upstream_header: Option<Box<str>>,
    /// Dynamic metadata on every answer, not on denials only.
    pub dynamic_metadata: bool,
}

impl Default for Answers {
    fn default() -> Self {
        Self {
            denied_status: 429,
            x_ratelimit: true,
            ietf: true,
            retry_after: true,
            body: true,
            upstream_header: None,
            dynamic_metadata: false,
        }
    }
}

/// What a request became.
#[derive(Debug)]
pub struct Mapped {
    /// In the order of the lists that apply; none when none does.
    pub descriptors: Vec<Descriptor>,
    /// The client's address was asked for, and is not the one that X-Forwarded-For should name.
    pub client_not_named: Option<super::NotNamed>,
}

/// A value that is too long to count.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the value of `{key}` has {found} bytes, at most {max} are allowed")]
pub struct TooLong {
    /// Key of the entry.
    pub key: String,
    /// Bytes that it has.
    pub found: usize,
    /// Bytes that it may have.
    pub max: usize,
}

impl Mapping {
    /// The descriptors of a request, in the order of the lists that apply; none when none does.
    ///
    /// # Errors
    /// When a value has more than `max_value_bytes`.
    pub fn descriptors<A: Attributes>(
        &self,
        attributes: &A,
        max_value_bytes: usize,
    ) -> Result<Vec<Descriptor>, TooLong> {
        self.map(attributes, max_value_bytes).map(|mapped| mapped.descriptors)
    }

    /// The same, with what was remarkable about it.
    ///
    /// # Errors
    /// As [`descriptors`](Self::descriptors).
    pub fn map<A: Attributes>(&self, attributes: &A, max_value_bytes: usize) -> Result<Mapped, TooLong> {
        let subject = Subject::new(attributes, self.client, self.normalize_path);
        let mut descriptors = Vec::new();
        for list in &self.lists {
            if !list.matcher.matches(&subject) {
                continue;
            }
            if let Some(entries) = list.entries(&subject, max_value_bytes)? {
                descriptors.push(Descriptor {
                    entries,
                    hits_addend: list.hits.as_ref().map(|hits| hits.hits(&subject)),
                    ..Descriptor::default()
                });
            }
        }
        Ok(Mapped {
            descriptors,
            client_not_named: subject.not_named(),
        })
    }
}

impl List {
    /// The entries; `None` when a value is absent that has to be there, or nothing is left.
    fn entries<A: Attributes>(
        &self,
        subject: &Subject<'_, A>,
        max_value_bytes: usize,
    ) -> Result<Option<Vec<Entry>>, TooLong> {
        let mut entries = Vec::with_capacity(self.actions.len());
        for action in &self.actions {
            let value = match (action.source.value(subject), &action.absent) {
                (Some(value), _) => value.into_owned(),
                (None, Absent::SkipList) => return Ok(None),
                (None, Absent::SkipEntry) => continue,
                (None, Absent::Value(value)) => String::from(&**value),
            };
            if value.len() > max_value_bytes {
                return Err(TooLong {
                    key: action.key.to_string(),
                    found: value.len(),
                    max: max_value_bytes,
                });
            }
            entries.push(Entry {
                key: String::from(&*action.key),
                value,
            });
        }
        Ok((!entries.is_empty()).then_some(entries))
    }
}
