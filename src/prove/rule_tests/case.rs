//! A test file as data.

use std::path::PathBuf;

use crate::config::Place;
use crate::model;
use crate::prove::http::HttpRequest;

use super::range::Range;

/// One test file.
#[derive(Debug, Clone)]
pub struct TestFile {
    /// As it was named on the command line.
    pub name: String,
    /// The virtual clock when each test begins, in microseconds since the Unix epoch.
    pub start_us: u64,
    /// Rules files, relative to the test file's directory made relative to the working directory.
    pub rules: Vec<PathBuf>,
    /// Envoy's configuration, if HTTP requests become descriptors by its routes.
    pub envoy: Option<PathBuf>,
    /// Its listener, where more than one has a rate limit filter.
    pub listener: Option<String>,
    /// The domain of requests that name none.
    pub domain: Option<String>,
    /// In the order of the file.
    pub tests: Vec<Case>,
}

/// One test: its counters start empty.
#[derive(Debug, Clone)]
pub struct Case {
    /// For people.
    pub name: String,
    /// Where it begins.
    pub place: Option<Place>,
    /// Overrides the file's.
    pub domain: Option<String>,
    /// In order of time.
    pub steps: Vec<Step>,
}

/// One request or several equal ones, and what they must be answered.
#[derive(Debug, Clone)]
pub struct Step {
    /// Where it begins.
    pub place: Option<Place>,
    /// Microseconds since the test's start; `None` = when the step before it ended.
    pub at_us: Option<u64>,
    /// At least 1.
    pub times: u32,
    /// Microseconds between two of them.
    pub every_us: u64,
    /// What is asked.
    pub question: Question,
    /// What must come.
    pub expect: Expect,
}

/// What a step asks.
#[derive(Debug, Clone)]
pub struct Question {
    /// Where it begins.
    pub place: Option<Place>,
    /// Overrides the test's.
    pub domain: Option<String>,
    /// What it costs; `None` = what the mapping says, else 1.
    pub hits: Option<Hits>,
    /// Of which kind.
    pub kind: Kind,
}

/// Hits of a question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hits {
    /// How many; 0 = a peek.
    pub count: u32,
    /// Given back instead of taken.
    pub is_negative: bool,
}

/// The two kinds of questions. `{i}` in their values stands for the number of the repetition, from 0.
#[derive(Debug, Clone)]
pub enum Kind {
    /// Becomes descriptors by the `ext_authz` section of the rules, or by Envoy's routes.
    Http {
        /// The request without its client.
        request: HttpRequest,
        /// The text of the client's address.
        client: Option<String>,
    },
    /// Descriptors as a client of the service sends them.
    Descriptors(Vec<model::Descriptor>),
}

/// What must come; what is `None` is not looked at.
#[derive(Debug, Clone, Default)]
pub struct Expect {
    /// Where it stands.
    pub place: Option<Place>,
    /// Whether the request passes.
    pub allowed: Option<bool>,
    /// Rules that must all deny: names, paths, or `domain/path`.
    pub denied_by: Vec<String>,
    /// Rules that must all be over without denying the request, in shadow mode or as one of several quotas.
    pub shadow_denied_by: Vec<String>,
    /// Microseconds until the same request would pass.
    pub retry_after: Option<Range>,
    /// Hits left of the tightest limit.
    pub remaining: Option<Range>,
    /// Microseconds for which a leaky bucket holds the answer back.
    pub delay: Option<Range>,
    /// The descriptors that an HTTP request becomes.
    pub descriptors: Option<Vec<model::Descriptor>>,
}
