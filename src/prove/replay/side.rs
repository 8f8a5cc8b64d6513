//! One set of rules at work: records → descriptors → decisions, planned together and decided in order.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap};
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use smallvec::SmallVec;

use crate::config::{Source, read_rules};
use crate::engine::{Decision, Planned};
use crate::model::{Algorithm, Descriptor, Limit, Request, Settles};
use crate::prove::envoy::FilterCall;
use crate::prove::explain;
use crate::prove::limiter::VirtualLimiter;
use crate::prove::map::Mapper;

use super::error::ReplayError;
use super::keys;
use super::options::Options;
use super::record::Record;
use super::report::Answer;
use super::tally::Tally;

/// Requests under way whose permits of `concurrency` limits are held.
const MAX_UNDER_WAY: usize = 1_000_000;

/// One set of rules at work.
pub(super) struct Side {
    mapper: Mapper,
    pub limiter: VirtualLimiter,
    pub tally: Tally,
    /// Releases of permits of `concurrency` limits: when, in which order, what.
    under_way: BinaryHeap<Reverse<(u64, u64)>>,
    releases: HashMap<u64, Request>,
    count: u64,
    pub has_concurrency: bool,
    /// Descriptors come by the rate limit service, where an entry may settle a hold, and not by `ext_authz`.
    asks_service: bool,
    /// Answers name the keys that denied, for a comparison.
    names_keys: bool,
    /// What is asked about the records that wait, in their order; an error says why one could not be.
    planned: Vec<Result<PlannedCalls, String>>,
    /// Hashes of their counters.
    hashes: Vec<u64>,
}

/// What is asked about a record, call by call; none: nothing is limited.
type PlannedCalls = SmallVec<[PlannedCall; 1]>;

/// One call.
struct PlannedCall {
    request: Request,
    plan: Planned,
    /// Where the hashes of its counters are.
    hashes: Range<usize>,
}

impl Side {
    pub fn new(options: &Options, rules: &[PathBuf], start_us: u64) -> Result<Self, ReplayError> {
        let rules = read_rules(&Source::new(rules.to_vec()), &options.defaults).map_err(ReplayError::Config)?;
        let rules = Arc::new(rules);
        let envoy = options.envoy.as_deref();
        let mapper = Mapper::new(Arc::clone(&rules), envoy, options.listener.as_deref());
        let mapper = mapper.map_err(|error| ReplayError::Envoy {
            path: options.envoy.clone().unwrap_or_default(),
            error,
        })?;
        let tally = Tally::new(&rules).ok_or_else(|| ReplayError::Engine("no histogram".to_owned()))?;
        let is_concurrency = |limit: &Limit| limit.algorithm == Algorithm::Concurrency;
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
            releases: HashMap::new(),
            count: 0,
            has_concurrency,
            asks_service: options.envoy.is_some(),
            names_keys: !options.against.is_empty(),
            planned: Vec::new(),
            hashes: Vec::new(),
        })
    }

    /// Finds the counters of these records, and brings them near.
    pub fn plan(&mut self, records: &[Box<Record>], client_is_final: bool) {
        self.planned.clear();
        self.hashes.clear();
        for record in records {
            let planned = self.plan_one(record, client_is_final);
            self.planned.push(planned);
        }
        let calls = self.planned.iter().flatten().flatten();
        self.limiter.warm(calls.map(|call| &call.plan));
        self.tally.keys.warm(&self.hashes);
    }

    /// An error says why a record could not be asked about.
    fn plan_one(&mut self, record: &Record, client_is_final: bool) -> Result<PlannedCalls, String> {
        let mapped = self.mapper.map(record, None, client_is_final);
        let calls = mapped.map_err(|error| error.to_string())?;
        calls.into_iter().map(|call| self.plan_call(call)).collect()
    }

    fn plan_call(&mut self, mut call: FilterCall) -> Result<PlannedCall, String> {
        if self.asks_service {
            for descriptor in &mut call.descriptors {
                descriptor.settles = Settles::take(&mut descriptor.entries);
            }
        }
        let request = Request {
            domain: String::from(&*call.domain),
            descriptors: call.descriptors,
            hits_addend: 1,
            releases_all: false,
        };
        let plan = self.limiter.plan(&request).map_err(|error| error.to_string())?;
        let start = self.hashes.len();
        self.tally.hash(&request.descriptors, plan.rules(), &mut self.hashes);
        Ok(PlannedCall {
            request,
            plan,
            hashes: start..self.hashes.len(),
        })
    }

    /// Decides the planned request of this number: its calls in order, up to one that is denied.
    pub async fn decide(&mut self, number: usize, record: &Record) -> Result<Answer, String> {
        let at_us = record.at_us;
        self.release_until(at_us).await;
        let planned = self.planned.get_mut(number).ok_or("not planned")?;
        let calls = std::mem::replace(planned, Ok(PlannedCalls::new()))?;
        let mut answer = Answer {
            denied: false,
            by: Vec::new(),
        };
        let mut is_limited = false;
        for PlannedCall { request, plan, hashes } in calls {
            let decided = self.limiter.decide_planned_at(at_us, plan, &request).await;
            let decision = decided.map_err(|error| error.to_string())?;
            let hashes = self.hashes.get(hashes).unwrap_or_default();
            is_limited |= self.tally.add_call(at_us, &request.descriptors, hashes, &decision);
            if self.has_concurrency {
                self.hold(record, &request, &decision);
            }
            if decision.over_limit {
                answer.denied = true;
                if self.names_keys {
                    answer.by = deniers(&request, &decision);
                }
                break;
            }
        }
        self.tally.add(at_us, answer.denied, is_limited);
        Ok(answer)
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

/// The keys that deny.
fn deniers(request: &Request, decision: &Decision) -> Vec<Box<str>> {
    let denied = explain::pairs(&request.descriptors, decision).filter(|(_, status)| status.over_limit);
    let named = denied.filter_map(|(descriptor, status)| Some(keys::name(decision.rule(status)?, descriptor)));
    named.collect()
}
