//! Asks the engine what a test file says, and compares.

use std::collections::BTreeSet;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::config::{ConfigErrors, Place, Source, read_rules};
use crate::model::{Descriptor, Entry};
use crate::prove::envoy::{EnvoyError, FilterCall};
use crate::prove::explain::{self, Micros};
use crate::prove::http::HttpRequest;
use crate::prove::limiter::{VirtualLimiter, unread_plans};
use crate::prove::map::{Mapper, NotMapped};
use crate::rules::{Defaults, RuleSet};

use super::answer::{Answer, compare};
use super::case::{Case, Kind, Question, Step, TestFile};
use super::read;
use super::report::{Coverage, FileReport, Miss, Report, TestReport};

/// Counters of one test, at most.
const MAX_KEYS: NonZeroUsize = match NonZeroUsize::new(1 << 20) {
    Some(keys) => keys,
    None => NonZeroUsize::MIN,
};

/// Why a test file cannot be run.
#[derive(Debug, thiserror::Error)]
pub enum TestError {
    /// The test file itself, or its rules, are wrong.
    #[error("{}", .0.render(false))]
    Config(ConfigErrors),
    /// Envoy's configuration cannot be evaluated.
    #[error("{path}: {error}", path = path.display())]
    Envoy {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        error: EnvoyError,
    },
    /// The engine cannot be set up.
    #[error("the engine cannot be set up: {0}")]
    Engine(#[from] prometheus::Error),
}

/// Runs test files one after the other.
///
/// # Errors
/// The first file that cannot be run.
pub async fn run(paths: &[PathBuf], defaults: &Defaults) -> Result<Report, TestError> {
    let mut report = Report::default();
    for path in paths {
        report.files.push(run_file(path, defaults).await?);
    }
    Ok(report)
}

async fn run_file(path: &Path, defaults: &Defaults) -> Result<FileReport, TestError> {
    let file = read(path).map_err(TestError::Config)?;
    let rules = read_rules(&Source::new(file.rules.clone()), defaults).map_err(TestError::Config)?;
    let rules = Arc::new(rules);
    let mapper = Mapper::new(Arc::clone(&rules), file.envoy.as_deref(), file.listener.as_deref());
    let mapper = mapper.map_err(|error| TestError::Envoy {
        path: file.envoy.clone().unwrap_or_default(),
        error,
    })?;
    let mut reached = BTreeSet::new();
    let mut tests = Vec::with_capacity(file.tests.len());
    for test in &file.tests {
        let limiter = VirtualLimiter::new(Arc::clone(&rules), *defaults, MAX_KEYS, file.start_us)?;
        let mut running = Running {
            file: &file,
            test,
            mapper: &mapper,
            limiter: &limiter,
            reached: &mut reached,
        };
        tests.push(running.run().await);
    }
    Ok(FileReport {
        name: file.name.clone(),
        tests,
        coverage: coverage(&rules, &reached),
        notes: unread_plans(&rules),
    })
}

fn coverage(rules: &RuleSet, reached: &BTreeSet<usize>) -> Coverage {
    let unreached = rules.rules.iter().filter(|rule| !reached.contains(&rule.index));
    Coverage {
        rules: rules.rules.len(),
        reached: reached.len(),
        unreached: unreached.map(|rule| explain::RuleName(rule).to_string()).collect(),
    }
}

/// One test while it runs.
struct Running<'r> {
    file: &'r TestFile,
    test: &'r Case,
    mapper: &'r Mapper,
    limiter: &'r VirtualLimiter,
    reached: &'r mut BTreeSet<usize>,
}

impl Running<'_> {
    async fn run(&mut self) -> TestReport {
        let mut report = TestReport {
            name: self.test.name.clone(),
            line: line(self.test.place),
            requests: 0,
            misses: Vec::new(),
        };
        let mut now_us: u64 = 0;
        for (number, step) in self.test.steps.iter().enumerate() {
            let begin_us = step.at_us.unwrap_or(now_us);
            let mut first: Option<Miss> = None;
            for repetition in 0..step.times {
                now_us = begin_us.saturating_add(step.every_us.saturating_mul(repetition.into()));
                report.requests += 1;
                let at_us = self.file.start_us.saturating_add(now_us);
                let came = self.ask(step, repetition, at_us).await;
                let wrong = match &came {
                    Ok(answer) => compare(&step.expect, answer),
                    Err(reason) => vec![("an answer".to_owned(), reason.clone())],
                };
                match &mut first {
                    _ if wrong.is_empty() => {}
                    Some(miss) => miss.further += 1,
                    None => first = Some(miss(number, step, repetition, now_us, wrong, came.as_ref().ok())),
                }
            }
            report.misses.extend(first);
        }
        report
    }

    /// Whether the question comes by the rate limit service, where an entry may settle a hold, and not by `ext_authz`.
    fn asks_service(&self, question: &Question) -> bool {
        self.file.envoy.is_some() || matches!(question.kind, Kind::Descriptors(_))
    }

    async fn ask(&mut self, step: &Step, repetition: u32, at_us: u64) -> Result<Answer, String> {
        let question = &step.question;
        let named = question.domain.as_ref().or(self.test.domain.as_ref());
        let named = named.or(self.file.domain.as_ref());
        let mut calls = match &question.kind {
            Kind::Http { request, client } => {
                let request = numbered_http(request, client.as_deref(), repetition)?;
                let mapped = self.mapper.map(&request, named.map(String::as_str), false);
                mapped.map_err(|error: NotMapped| error.to_string())?
            }
            Kind::Descriptors(descriptors) => {
                let domain = named.cloned().or_else(|| self.mapper.only_domain()).ok_or(
                    "the request names no domain and the rules have several: give `domain:` in the test or the request",
                )?;
                if !self.limiter.rules().domains.contains_key(domain.as_str()) {
                    return Err(format!("the rules have no domain {domain:?}"));
                }
                let numbered = |descriptor| numbered(descriptor, repetition);
                let descriptors: Vec<Descriptor> = descriptors.iter().map(numbered).collect();
                let domain = domain.into();
                let call = (!descriptors.is_empty()).then_some(FilterCall { domain, descriptors });
                call.into_iter().collect()
            }
        };
        let mut answer = Answer {
            descriptors: Vec::with_capacity(calls.len()),
            decisions: Vec::new(),
        };
        for call in &mut calls {
            price(question, &mut call.descriptors);
            answer.descriptors.push(call.descriptors.clone());
        }
        for call in calls {
            let request = call.into_request(self.asks_service(question));
            let decided = self.limiter.decide_at(at_us, &request).await;
            let decision = decided.map_err(|error| error.to_string())?;
            let rules = decision.statuses.iter().filter_map(|status| decision.rule(status));
            self.reached.extend(rules.map(|rule| rule.index));
            answer.decisions.push(decision);
            if answer.denial().is_some() {
                break;
            }
        }
        Ok(answer)
    }
}

fn price(question: &Question, descriptors: &mut [Descriptor]) {
    let Some(hits) = question.hits else {
        return;
    };
    for descriptor in descriptors {
        descriptor.hits_addend = Some(hits.count.into());
        descriptor.is_negative_hits = hits.is_negative;
    }
}

/// `{i}` in a text is the number of the repetition.
fn filled(text: &str, repetition: u32) -> String {
    text.replace("{i}", &repetition.to_string())
}

fn numbered(descriptor: &Descriptor, repetition: u32) -> Descriptor {
    let entry = |entry: &Entry| Entry {
        key: entry.key.clone(),
        value: filled(&entry.value, repetition),
    };
    Descriptor {
        entries: descriptor.entries.iter().map(entry).collect(),
        ..descriptor.clone()
    }
}

fn numbered_http(request: &HttpRequest, client: Option<&str>, repetition: u32) -> Result<HttpRequest, String> {
    let client = match client.map(|text| filled(text, repetition)) {
        None => None,
        Some(text) => Some(
            text.parse()
                .map_err(|_| format!("`client` {text:?} is no IP address"))?,
        ),
    };
    let pair = |(name, value): &(String, String)| (name.clone(), filled(value, repetition));
    Ok(HttpRequest {
        method: request.method.clone(),
        host: filled(&request.host, repetition),
        path: filled(&request.path, repetition),
        headers: request.headers.iter().map(pair).collect(),
        client,
        extensions: request.extensions.iter().map(pair).collect(),
    })
}

fn line(place: Option<Place>) -> usize {
    place.map_or(0, |place| place.line)
}

fn miss(
    number: usize,
    step: &Step,
    repetition: u32,
    now_us: u64,
    wrong: Vec<(String, String)>,
    answer: Option<&Answer>,
) -> Miss {
    let why = match answer {
        Some(answer) if !answer.decisions.is_empty() => {
            let calls = answer.descriptors.iter().zip(&answer.decisions);
            let lines = calls.flat_map(|(descriptors, decision)| explain::lines(descriptors, decision));
            lines.map(|line| line.to_string()).collect()
        }
        Some(_) => vec!["the request becomes no descriptor, so nothing limits it".to_owned()],
        None => Vec::new(),
    };
    let (expected, came) = wrong.into_iter().unzip();
    Miss {
        line: line(step.expect.place.or(step.place)),
        step: number + 1,
        repetition,
        times: step.times,
        at: Micros(now_us).to_string(),
        expected,
        came,
        why,
        further: 0,
    }
}
