//! One set of rules at work: records → descriptors → decisions, planned together and decided in order.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use smallvec::SmallVec;

use crate::config::{Source, read_rules};
use crate::engine::{Decision, Planned};
use crate::model::{Algorithm, Descriptor, Limit, Request};
use crate::prove::envoy::FilterCall;
use crate::prove::explain;
use crate::prove::limiter::{VirtualLimiter, unread_plans};
use crate::prove::map::Mapper;

use super::change::Answer;
use super::error::ReplayError;
use super::keys;
use super::options::Options;
use super::record::Record;
use super::tally::Tally;

/// Requests under way whose permits of `concurrency` limits are held.
const MAX_UNDER_WAY: usize = 1_000_000;

/// One set of rules at work.
pub(super) struct Side {
    mapper: Mapper,
    pub limiter: VirtualLimiter,
    pub tally: Tally,
    /// Releases of permits of `concurrency` limits, by when and in which order.
    under_way: BTreeMap<(u64, u64), Request>,
    count: u64,
    /// Requests whose permits found no room there.
    unreleased: u64,
    has_concurrency: bool,
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
        let tally = Tally::new(&rules);
        let is_concurrency = |limit: &Limit| limit.algorithm == Algorithm::Concurrency;
        let has_concurrency = rules.rules.iter().any(|rule| rule.limits().iter().any(is_concurrency));
        let limiter = VirtualLimiter::new(rules, options.defaults, options.max_keys, start_us);
        Ok(Self {
            mapper,
            limiter: limiter.map_err(|error| ReplayError::Engine(error.to_string()))?,
            tally,
            under_way: BTreeMap::new(),
            count: 0,
            unreleased: 0,
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

    fn plan_call(&mut self, call: FilterCall) -> Result<PlannedCall, String> {
        let request = call.into_request(self.asks_service);
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
        if taken.is_empty() {
            return;
        }
        if self.under_way.len() >= MAX_UNDER_WAY {
            self.unreleased += 1;
            return;
        }
        let end_us = record.at_us.saturating_add(record.duration_us.unwrap_or_default());
        self.count += 1;
        let release = Request {
            descriptors: taken,
            ..request.clone()
        };
        self.under_way.insert((end_us, self.count), release);
    }

    async fn release_until(&mut self, at_us: u64) {
        while let Some(next) = self.under_way.first_entry()
            && next.key().0 <= at_us
        {
            let ((end_us, _), release) = next.remove_entry();
            // The memory store has no errors, and the request was decided before.
            let _ = self.limiter.decide_at(end_us, &release).await;
        }
    }

    /// What to know about its numbers.
    pub fn notes(&self, has_durations: bool) -> Vec<String> {
        let mut notes = Vec::new();
        if self.has_concurrency && !has_durations {
            notes.push(
                "`concurrency` limits: the log does not say how long requests took, so none was ever full".to_owned(),
            );
        }
        if self.unreleased > 0 {
            notes.push(format!(
                "`concurrency` limits: more than {MAX_UNDER_WAY} requests were under way; the permits of {} stay taken until \
                 their windows end, so some denials are none of a server's",
                self.unreleased
            ));
        }
        if self.limiter.evicted() > 0 {
            notes.push(format!(
                "{} counters were dropped for want of room: give more with --max-keys",
                self.limiter.evicted()
            ));
        }
        if self.tally.keys.overflowed {
            notes.push("more keys than are followed: numbers of keys and worst keys are lower bounds".to_owned());
        }
        let rules = self.limiter.rules();
        if rules.rules.iter().any(|rule| rule.plan_from.is_some()) {
            notes.push(
                "limits by plan: what keys ask for, and the limit that is advised, are of all values together, whatever \
                 their plan"
                    .to_owned(),
            );
        }
        notes.extend(unread_plans(rules));
        notes
    }
}

/// The keys that deny.
fn deniers(request: &Request, decision: &Decision) -> Vec<Box<str>> {
    let denied = explain::pairs(&request.descriptors, decision).filter(|(_, status)| status.over_limit);
    let named = denied.filter_map(|(descriptor, status)| Some(keys::name(decision.rule(status)?, descriptor)));
    named.collect()
}
