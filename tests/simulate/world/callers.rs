//! Callers: what they ask, by when they must be answered, and what they do with the answer.

use rand::Rng;
use sluicegate::engine::RequestError;
use sluicegate::model::{Descriptor, Entry, Request};

use super::{Happens, World};
use crate::oracle::Asked;
use crate::replica::Answered;
use crate::rules::{DOMAIN, RULES, versions};
use crate::script::{Call, Small, VALUES, What};

/// A last call is asked so often.
const MOST_ASKED: i64 = 10;
/// Late for so long is in time: timers go by them.
const ROUNDING_MS: u64 = 2;

impl World<'_> {
    pub(super) fn call(&mut self, call: &Call) {
        let parts: Vec<_> = call
            .parts
            .iter()
            .map(|&(rule, value, hits)| (rule, value, i64::try_from(hits).unwrap_or(1)))
            .collect();
        self.ask(
            call.replica,
            self.version,
            parts,
            call.deadline_ms,
            call.leaves_ms,
            false,
        );
    }

    /// Puts a request to a replica; where there is no process, its caller hears so at once.
    pub(super) fn ask(
        &mut self,
        at: usize,
        version: usize,
        parts: Vec<(usize, usize, i64)>,
        deadline_ms: Option<u64>,
        leaves_ms: Option<u64>,
        is_last: bool,
    ) {
        let release = parts.iter().any(|part| part.2 < 0);
        let process = &self.processes[at];
        let known = &versions()[version].known;
        if process.replica.is_none() || process.resumes_ms > self.now_ms {
            if let (true, Some(part)) = (release, parts.first().copied()) {
                // It is said again until somebody hears it.
                let next = (at + 1) % self.processes.len();
                self.at(
                    self.now_ms + 20,
                    Happens::Releases {
                        replica: next,
                        part,
                        version,
                    },
                );
            }
            return;
        }
        for &(rule, value, hits) in parts.iter().filter(|part| part.2 < 0) {
            self.oracle.released(&known[rule].key(VALUES[value]), -hits);
        }
        let descriptor = |&(rule, value, hits): &(usize, usize, i64)| Descriptor {
            entries: vec![Entry {
                key: known[rule].name.to_owned(),
                value: VALUES[value].to_owned(),
            }],
            hits_addend: Some(hits.unsigned_abs()),
            is_negative_hits: hits < 0,
            ..Descriptor::default()
        };
        let request = Request {
            domain: DOMAIN.to_owned(),
            descriptors: parts.iter().map(descriptor).collect(),
            ..Request::default()
        };
        let Some(replica) = &process.replica else { return };
        let (number, start_ms) = (self.asked.len(), replica.now_ms());
        replica.ask(number, request, deadline_ms, leaves_ms);
        let parts_now = &parts;
        self.trace.note(start_ms, "asks", &[at as u64, number as u64], || {
            format!("?{number} {at}: {parts_now:?}")
        });
        self.asked.push(Asked {
            replica: at,
            process: process.number,
            version: self.version,
            parts,
            from_us: self
                .servers
                .iter()
                .map(|server| server.steady_us(self.now_ms))
                .collect(),
            asked_ms: start_ms,
            deadline_ms,
            answered: false,
            is_last,
        });
        self.at(start_ms + self.longest_ms(deadline_ms), Happens::Overdue(number));
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
        let asked = &self.asked[number];
        let permits = self
            .oracle
            .decided(asked, &decision, self.now_ms, &self.servers, &self.sent)?;
        let version = asked.version;
        for (rule, value, hits) in permits {
            let part = (rule, value, -i64::try_from(hits).unwrap_or(0));
            let (after_ms, replica) = (
                self.random.random_range(0..300),
                self.random.random_range(0..self.processes.len()),
            );
            self.at(self.now_ms + after_ms, Happens::Releases { replica, part, version });
        }
        Ok(())
    }

    /// What else the request of a release asks for, if anything.
    pub(super) fn beside_release(&mut self, release: (usize, usize, i64)) -> Option<(usize, usize, i64)> {
        let is_over = self.now_ms >= self.setup.active_ms;
        if !self.setup.mixed_releases || is_over || self.random.random_bool(0.5) {
            return None;
        }
        let (rule, value) = (self.random.random_range(0..RULES), self.random.random_range(0..2));
        ((rule, value) != (release.0, release.1)).then_some((rule, value, 1))
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

    /// The engine had too many requests. A release and a last call come again, since they must be heard.
    fn overloaded(&mut self, number: usize) {
        self.reached.add("requests under way", 1);
        let asked = &self.asked[number];
        let (replica, version, is_last) = (asked.replica, asked.version, asked.is_last);
        for part in asked.parts.clone() {
            let (rule, value, hits) = part;
            if hits < 0 {
                self.oracle
                    .released(&versions()[version].known[rule].key(VALUES[value]), hits);
                self.at(self.now_ms + 5, Happens::Releases { replica, part, version });
            } else if is_last {
                self.at(self.now_ms + 5, Happens::Last { replica, part });
            }
        }
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
