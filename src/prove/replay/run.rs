//! Records → descriptors → decisions, in order of time, by one or two sets of rules.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::path::PathBuf;
use std::sync::Arc;

use crate::config::{ConfigErrors, Source, read_rules};
use crate::engine::Decision;
use crate::mapping::Attributes;
use crate::model::{Descriptor, Request};
use crate::prove::envoy::EnvoyError;
use crate::prove::explain;
use crate::prove::limiter::VirtualLimiter;
use crate::prove::map::Mapper;

use super::format::Format;
use super::input::{InputError, Merged, first_line};
use super::keys;
use super::options::Options;
use super::order::Reorder;
use super::record::Record;
use super::report::{Answer, Change, Report};
use super::tally::Tally;
use super::unreadable::Unreadable;

/// Lines between two looks at the progress.
const PROGRESS_LINES: u64 = 1 << 15;
/// Requests under way whose permits of `concurrency` limits are held.
const MAX_UNDER_WAY: usize = 1_000_000;

/// Why nothing was replayed.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// The rules are wrong.
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
    /// The format is wrong.
    #[error("--format: {0}")]
    Format(String),
    /// A log cannot be read.
    #[error(transparent)]
    Input(#[from] InputError),
    /// The engine cannot be set up.
    #[error("the engine cannot be set up: {0}")]
    Engine(String),
}

/// How far a replay is.
#[derive(Debug, Clone, Copy)]
pub struct Progress {
    /// Lines read.
    pub lines: u64,
    /// Bytes read of the files.
    pub bytes: u64,
    /// All bytes, where they are known.
    pub total_bytes: Option<u64>,
}

/// Replays the logs. `progress` is called now and then.
///
/// # Errors
/// [`ReplayError`] when there is nothing to replay by, or a log cannot be read to its end.
pub async fn run(options: &Options, mut progress: impl FnMut(Progress)) -> Result<Report, ReplayError> {
    let format = Format::new(options.format.as_deref(), &options.fields, &first_line(&options.logs)?);
    let format = format.map_err(ReplayError::Format)?;
    let mut logs = Merged::open(&options.logs, &format)?;
    let mut record = Record::default();
    let mut order = Reorder::new(options.window_us);
    let mut replay: Option<Replay> = None;
    let mut ended = false;
    while !ended {
        ended = !logs.next(&mut record)?;
        if !ended {
            let at_us = record.at_us;
            if replay.is_none() {
                replay = Some(Replay::new(
                    options,
                    format.client_is_final(),
                    at_us.saturating_sub(options.window_us),
                )?);
            }
            if !order.push(&mut record) {
                logs.unreadable.add("later than the reorder window", || {
                    format!("at {at_us} µs since the epoch")
                });
            }
            if logs.lines.is_multiple_of(PROGRESS_LINES) {
                progress(Progress {
                    lines: logs.lines,
                    bytes: logs.read_bytes(),
                    total_bytes: logs.total_bytes,
                });
            }
        }
        while let Some(replay) = replay.as_mut().filter(|_| order.pop(ended, &mut record)) {
            replay.take(&record, &mut logs.unreadable).await;
        }
    }
    let replay = match replay {
        Some(replay) => replay,
        None => Replay::new(options, true, 0)?,
    };
    let (lines, unreadable) = (logs.lines, std::mem::take(&mut logs.unreadable));
    Ok(replay.finish(options, lines, unreadable))
}

/// One set of rules at work.
struct Side {
    mapper: Mapper,
    limiter: VirtualLimiter,
    tally: Tally,
    /// Releases of permits of `concurrency` limits: when, in which order, what.
    under_way: BinaryHeap<Reverse<(u64, u64)>>,
    releases: std::collections::HashMap<u64, Request>,
    count: u64,
    has_concurrency: bool,
    /// Answers name the keys that denied, for a comparison.
    names_keys: bool,
}

/// The sides, and how they differ.
struct Replay {
    new: Side,
    old: Option<Side>,
    change: Change,
    client_is_final: bool,
    host: Option<String>,
    first_us: u64,
    last_us: u64,
    has_durations: bool,
}

impl Replay {
    fn new(options: &Options, client_is_final: bool, start_us: u64) -> Result<Self, ReplayError> {
        let old = (!options.against.is_empty())
            .then(|| Side::new(options, &options.against, start_us))
            .transpose()?;
        Ok(Self {
            new: Side::new(options, &options.rules, start_us)?,
            old,
            change: Change::default(),
            client_is_final,
            host: options.host.clone(),
            first_us: 0,
            last_us: 0,
            has_durations: false,
        })
    }

    async fn take(&mut self, record: &Record, unreadable: &mut Unreadable) {
        let with_host;
        let record = match &self.host {
            Some(host) if record.host().is_empty() => {
                let mut copy = record.clone();
                let _ = copy.set(super::record::Target::Host, host);
                with_host = copy;
                &with_host
            }
            _ => record,
        };
        if self.first_us == 0 {
            self.first_us = record.at_us;
        }
        self.last_us = record.at_us;
        self.has_durations |= record.duration_us.is_some();
        let new = self.new.take(record, self.client_is_final).await;
        let old = match &mut self.old {
            Some(old) => Some(old.take(record, self.client_is_final).await),
            None => None,
        };
        match (new, old) {
            (Err(reason), _) | (_, Some(Err(reason))) => {
                unreadable.add(&reason, || format!("{} {}", record.method(), record.path()));
            }
            (Ok(new), Some(Ok(old))) => self.change.add(&new, &old),
            (Ok(_), None) => {}
        }
    }

    fn finish(mut self, options: &Options, lines: u64, unreadable: Unreadable) -> Report {
        self.new.tally.finish();
        let mut notes = Vec::new();
        if self.new.has_concurrency && !self.has_durations {
            notes.push(
                "`concurrency` limits: the log does not say how long requests took, so none was ever full".to_owned(),
            );
        }
        if self.new.limiter.evicted() > 0 {
            notes.push(format!(
                "{} counters were dropped for want of room: give more with --max-keys",
                self.new.limiter.evicted()
            ));
        }
        if self.new.tally.keys.overflowed {
            notes.push("more keys than are followed: numbers of keys and worst keys are lower bounds".to_owned());
        }
        let old = self.old.as_mut().map(|old| {
            old.tally.finish();
            &old.tally
        });
        let span = (self.first_us, self.last_us);
        Report::new(
            options,
            lines,
            unreadable,
            span,
            &self.new.tally,
            old.map(|old| (old, &self.change)),
            notes,
        )
    }
}

impl Side {
    fn new(options: &Options, rules: &[PathBuf], start_us: u64) -> Result<Self, ReplayError> {
        let rules = read_rules(&Source::new(rules.to_vec()), &options.defaults).map_err(ReplayError::Config)?;
        let rules = Arc::new(rules);
        let envoy = options.envoy.as_deref();
        let mapper = Mapper::new(Arc::clone(&rules), envoy, options.listener.as_deref());
        let mapper = mapper.map_err(|error| ReplayError::Envoy {
            path: options.envoy.clone().unwrap_or_default(),
            error,
        })?;
        let tally = Tally::new(&rules).ok_or_else(|| ReplayError::Engine("no histogram".to_owned()))?;
        let is_concurrency = |limit: &crate::model::Limit| limit.algorithm == crate::model::Algorithm::Concurrency;
        let has_concurrency = rules
            .rules
            .iter()
            .any(|rule| rule.limit.as_ref().is_some_and(is_concurrency));
        let limiter = VirtualLimiter::new(rules, options.defaults, options.max_keys, start_us);
        Ok(Self {
            mapper,
            limiter: limiter.map_err(|error| ReplayError::Engine(error.to_string()))?,
            tally,
            under_way: BinaryHeap::new(),
            releases: std::collections::HashMap::new(),
            count: 0,
            has_concurrency,
            names_keys: !options.against.is_empty(),
        })
    }

    /// Decides one request; an error says why it could not be asked about.
    async fn take(&mut self, record: &Record, client_is_final: bool) -> Result<Answer, String> {
        let at_us = record.at_us;
        self.release_until(at_us).await;
        let mapped = self.mapper.map(record, None, client_is_final);
        let (domain, descriptors) = mapped.map_err(|error| error.to_string())?;
        let (denied, mut by) = (false, Vec::new());
        if descriptors.is_empty() {
            self.tally.add_unlimited(at_us);
            return Ok(Answer { denied, by });
        }
        let request = Request {
            domain: domain.to_string(),
            descriptors,
            hits_addend: 1,
            releases_all: false,
        };
        let decided = self.limiter.decide_at(at_us, &request).await;
        let decision = decided.map_err(|error| error.to_string())?;
        self.tally.add(at_us, &request.descriptors, &decision);
        let denied = decision.over_limit;
        if denied && self.names_keys {
            let pairs = explain::pairs(&request.descriptors, &decision).filter(|(_, status)| status.over_limit);
            let named = pairs.filter_map(|(descriptor, status)| {
                let rule = decision.rule(status)?;
                Some(keys::name(rule, descriptor))
            });
            by = named.collect();
        }
        if self.has_concurrency {
            self.hold(record, &request, &decision);
        }
        Ok(Answer { denied, by })
    }

    /// The permits of a request are released when it ends, once for each descriptor.
    fn hold(&mut self, record: &Record, request: &Request, decision: &Decision) {
        let mut permits: BTreeMap<usize, u64> = BTreeMap::new();
        for (status, held) in decision.permits().filter(|(_, held)| *held > 0) {
            permits.insert(status.descriptor, held);
        }
        let release = |(at, permits): (usize, u64)| {
            Some(Descriptor {
                hits_addend: Some(permits),
                is_negative_hits: true,
                ..request.descriptors.get(at)?.clone()
            })
        };
        let taken: Vec<Descriptor> = permits.into_iter().filter_map(release).collect();
        if taken.is_empty() || self.under_way.len() >= MAX_UNDER_WAY {
            return;
        }
        let end_us = record.at_us.saturating_add(record.duration_us.unwrap_or_default());
        self.count += 1;
        self.under_way.push(Reverse((end_us, self.count)));
        let release = Request {
            descriptors: taken,
            ..request.clone()
        };
        self.releases.insert(self.count, release);
    }

    async fn release_until(&mut self, at_us: u64) {
        while let Some(Reverse((end_us, number))) = self.under_way.peek().copied() {
            if end_us > at_us {
                return;
            }
            self.under_way.pop();
            if let Some(release) = self.releases.remove(&number) {
                // The memory store has no errors, and the request was decided before.
                let _ = self.limiter.decide_at(end_us, &release).await;
            }
        }
    }
}
