//! Callers: what they ask, by when they must be answered, and what they do with the answer.

use sluicegate::engine::{Decision, RequestError, StatusLimit};
use sluicegate::model::{Descriptor, Entry, HoldId, Request, Settles};

use super::{Happens, World};
use crate::oracle::{Asked, How, others_gave_back};
use crate::replica::Answered;
use crate::rules::{DOMAIN, versions};
use crate::script::{Call, Settling, Small, VALUES, What};

/// A last call is asked so often.
const MOST_ASKED: i64 = 10;
/// Late for so long is in time: timers go by them.
const ROUNDING_MS: u64 = 2;

/// A request that is to be put to a replica.
pub(in crate::world) struct Asking {
    pub replica: usize,
    pub version: usize,
    /// Rule, value, hits; negative ones are released.
    pub parts: Vec<(usize, usize, i64)>,
    pub deadline_ms: Option<u64>,
    pub leaves_ms: Option<u64>,
    pub is_last: bool,
    /// The hold that it settles.
    pub settles: Option<HoldId>,
    /// How what it holds is settled.
    pub settlements: Vec<Settling>,
    /// What its negative hits are.
    pub how: How,
}

impl Asking {
    pub const fn new(replica: usize, version: usize, parts: Vec<(usize, usize, i64)>) -> Self {
        Self {
            replica,
            version,
            parts,
            deadline_ms: None,
            leaves_ms: None,
            is_last: false,
            settles: None,
            settlements: Vec::new(),
            how: How::Exact,
        }
    }

    fn request(&self, releases_all: bool) -> Request {
        let known = &versions()[self.version].known;
        let descriptor = |&(rule, value, hits): &(usize, usize, i64)| Descriptor {
            entries: vec![Entry {
                key: known[rule].name.to_owned(),
                value: VALUES[value].to_owned(),
            }],
            hits_addend: Some(hits.unsigned_abs() + if hits < 0 { self.how.tag() } else { 0 }),
            is_negative_hits: hits < 0,
            settles: self.settles.map_or(Settles::Nothing, Settles::Hold),
            ..Descriptor::default()
        };
        Request {
            domain: DOMAIN.to_owned(),
            descriptors: self.parts.iter().map(descriptor).collect(),
            releases_all: releases_all && self.parts.iter().any(|part| known[part.0].is_permit()),
            ..Request::default()
        }
    }
}

impl World<'_> {
    pub(super) fn call(&mut self, call: &Call) {
        let parts = call
            .parts
            .iter()
            .map(|&(rule, value, hits)| (rule, value, i64::try_from(hits).unwrap_or(1)));
        self.ask(Asking {
            deadline_ms: call.deadline_ms,
            leaves_ms: call.leaves_ms,
            settlements: call.settles.clone(),
            ..Asking::new(call.replica, self.version, parts.collect())
        });
    }

    /// Puts a request to a replica; where there is no process, its caller hears so at once.
    pub(super) fn ask(&mut self, asking: Asking) {
        let process = &self.processes[asking.replica];
        if process.replica.is_none() || process.resumes_ms > self.now_ms {
            self.nobody_hears(asking);
            return;
        }
        if asking.how.is_for_another(process.number) {
            self.filter_is_gone(&asking);
            return;
        }
        let Some(replica) = &process.replica else { return };
        let (number, start_ms) = (self.asked.len(), replica.now_ms());
        let request = asking.request(self.setup.releases_all);
        replica.ask(number, request, asking.deadline_ms, asking.leaves_ms);
        let asked = Asked {
            replica: asking.replica,
            process: process.number,
            version: self.version,
            parts: asking.parts,
            from_us: self
                .servers
                .iter()
                .map(|server| server.steady_us(self.now_ms))
                .collect(),
            asked_ms: start_ms,
            deadline_ms: asking.deadline_ms,
            answered: false,
            is_last: asking.is_last,
            settles: asking.settles,
            settlements: asking.settlements,
            how: asking.how,
        };
        self.oracle.asked(&asked);
        self.trace
            .note(start_ms, "asks", &[asked.replica as u64, number as u64], || {
                let settles = if asked.settles.is_some() { " settle" } else { "" };
                format!("?{number} {}: {:?}{settles}", asked.replica, asked.parts)
            });
        let due_ms = start_ms + self.longest_ms(asked.deadline_ms);
        self.asked.push(asked);
        self.at(due_ms, Happens::Overdue(number));
    }

    /// How long a caller waits at most: the store's timeout and what a leaky bucket holds back, where it has no deadline.
    fn longest_ms(&self, deadline_ms: Option<u64>) -> u64 {
        deadline_ms.unwrap_or(self.setup.timeout_ms + 110) + ROUNDING_MS
    }

    pub(super) fn overdue(&mut self, call: usize) -> Result<(), String> {
        let asked = &self.asked[call];
        if asked.answered {
            return Ok(());
        }
        // It may have come to a process that was paused only when that went on: its time then began.
        let came_ms = asked.asked_ms.max(self.processes[asked.replica].resumes_ms + 1);
        let due_ms = came_ms + self.longest_ms(asked.deadline_ms);
        if self.now_ms < due_ms {
            self.at(due_ms, Happens::Overdue(call));
            return Ok(());
        }
        Err(format!(
            "?{call} was not answered by its deadline, {:?}",
            asked.deadline_ms
        ))
    }

    pub(super) fn answers(&mut self, answered: Answered) -> Result<(), String> {
        let number = answered.call;
        let asked = &mut self.asked[number];
        asked.answered = true;
        let asked = &self.asked[number];
        let Some(decision) = answered.decision else {
            self.oracle.unanswered(asked);
            return Ok(());
        };
        if matches!(decision, Err(RequestError::Overloaded)) {
            self.overloaded(number);
            return Ok(());
        }
        let decision = decision.map_err(|error| format!("?{number}: {error:?}"))?;
        let codes = [
            number as u64,
            u64::from(decision.over_limit),
            u64::from(decision.failure.is_some()),
        ];
        self.trace.note(answered.at_ms, "answers", &codes, || {
            format!(
                "?{number}: over {}, failure {:?}",
                decision.over_limit, decision.failure
            )
        });
        if asked.is_last && decision.failure.is_some() && self.again(number) {
            return Err(format!("?{number}: the store does not decide long after the faults"));
        }
        self.has_its_reason(number, &decision)?;
        let asked = &self.asked[number];
        let permits = self
            .oracle
            .decided(asked, &decision, self.now_ms, &self.servers, &self.sent)?;
        self.will_release(number, &permits);
        self.will_settle(number, &decision);
        Ok(())
    }

    /// A last call is not denied from memory where the server would let it pass.
    fn has_its_reason(&self, number: usize, decision: &Decision) -> Result<(), String> {
        let asked = &self.asked[number];
        if !asked.is_last || self.setup.leases {
            // Leased hits may have come back since.
            return Ok(());
        }
        for (&(rule, value, hits), status) in asked.parts.iter().zip(&decision.statuses) {
            let known = &versions()[asked.version].known[rule];
            let StatusLimit::Counted(counted) = &status.limit else {
                continue;
            };
            let key = known.key(VALUES[value]);
            let server = &self.servers[self.oracle.server_of(&key)];
            let (in_use, _) = server.look(self.now_ms, &key, &known.limit);
            let fits = in_use + hits.unsigned_abs() <= known.limit.hits;
            if others_gave_back(&key, asked, &self.sent) {
                // Which ends their denials, and no others.
                continue;
            }
            if server.lost_data {
                // What was denied before stands until it is asked again, 10 s later at most: nobody need notice a loss.
                continue;
            }
            if counted.denied && counted.outcome.cached && known.lasts() && fits {
                return Err(format!(
                    "?{number}: {key} is denied from memory, and {in_use} hits are in use"
                ));
            }
        }
        Ok(())
    }

    /// A caller settles what it holds as its script says.
    fn will_settle(&mut self, number: usize, decision: &Decision) {
        let asked = &self.asked[number];
        let (Some(id), None) = (decision.hold, asked.settles) else {
            return;
        };
        let (version, known) = (asked.version, &versions()[asked.version].known);
        let held = asked.parts.iter().filter(|part| known[part.0].is_held());
        let held: Vec<_> = held.copied().collect();
        for settling in asked.settlements.clone() {
            let cost = |hits: i64| hits * i64::try_from(settling.percent).unwrap_or(0) / 100;
            let parts = held.iter().map(|&(rule, value, hits)| (rule, value, cost(hits)));
            let asking = Asking {
                deadline_ms: Some(60),
                settles: Some(id),
                ..Asking::new(settling.replica, version, parts.collect())
            };
            self.at(self.now_ms + settling.after_ms, Happens::Asks(Box::new(asking)));
        }
    }

    /// Asks a last call again where bounds are so small that others can be in its way; `true` if it was asked often enough.
    fn again(&mut self, number: usize) -> bool {
        let asked = &self.asked[number];
        let replica = asked.replica;
        let is_enough = self.setup.small == Small::default() || asked.parts.iter().any(|part| part.2 >= MOST_ASKED);
        if !is_enough {
            // The hits count how often.
            let (rule, value, hits) = asked.parts[0];
            let part = (rule, value, hits + 1);
            self.at(self.now_ms + 5, Happens::Last { replica, part });
        }
        is_enough
    }

    /// Every replica is asked for every rule of the run once more; one after the other where few can be under way.
    pub(super) fn last_calls(&mut self) {
        let mut rules: Vec<usize> = Vec::new();
        for event in &self.script.events {
            if let What::Call(call) = &event.what {
                rules.extend(call.parts.iter().map(|part| part.0));
            }
        }
        rules.sort_unstable();
        rules.dedup();
        let pause_ms = if self.setup.small == Small::default() { 0 } else { 8 };
        let mut at_ms = self.now_ms;
        for replica in 0..self.processes.len() {
            for &rule in &rules {
                for value in [0, 2] {
                    let part = (rule, value, 1);
                    self.at(at_ms, Happens::Last { replica, part });
                    at_ms += pause_ms;
                }
            }
        }
    }
}
