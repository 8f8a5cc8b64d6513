//! The world of one run: time, network, servers, processes and callers, all decided by the script and its seed.
//!
//! Each process has a runtime of its own, which is let work up to the world's next event; it stops early when it has sent
//! something. A message travels for a millisecond at least, so that a process that is ahead of the others cannot have
//! missed anything. All times are whole milliseconds, as the timers of tokio are.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::sync::atomic::{AtomicBool, Ordering};

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use sluicegate::model::{Descriptor, Entry, Request};
use sluicegate::store::StoreError;
use sluicegate::store::remote::transport::Delivery;
use tokio::sync::oneshot;

use crate::network::{Message, shard_of};
use crate::oracle::{Asked, Oracle, Sent};
use crate::replica::{Answered, Replica, bounds, by_window};
use crate::rules::{DOMAIN, versions};
use crate::script::{Call, Script, Setup, VALUES, What};
use crate::server::Server;
use crate::trace::Trace;

/// After the load: corrections, leases and circuits have so long to settle; then once more after the last calls.
const SETTLES_MS: u64 = 4500;
/// What a message takes once the faults have ended.
const CALM_DELAY_MS: (u64, u64) = (1, 2);
/// Late for a millisecond is in time: timers go by them.
const ROUNDING_MS: u64 = 2;

/// How a run ended.
pub struct Outcome {
    /// What was violated, if anything.
    pub violation: Option<String>,
    pub hash: u64,
    pub lines: Vec<String>,
    pub reached: Reached,
}

/// Which bounds were reached.
#[derive(Debug, Clone, Copy, Default)]
pub struct Reached {
    pub corrections: bool,
    pub lease_keys: bool,
    pub denials: bool,
}

enum Happens {
    Script(usize),
    Arrives(usize),
    Delivers(usize, Box<Delivery>),
    Answers(Box<Answered>),
    Releases {
        replica: usize,
        part: (usize, usize, i64),
        version: usize,
    },
    Overdue(usize),
    Resumes(usize),
    Restarts(usize),
    Up(usize),
    Obeys(usize),
    LastCalls,
    End,
}

/// What the network does between a replica and a server.
#[derive(Debug, Clone, Copy, Default)]
struct Link {
    slow_until_ms: u64,
    slow_by_ms: u64,
    lossy_until_ms: u64,
    loses_requests: bool,
    percent: u32,
    tell_ms: Option<u64>,
    /// When the last message of each connection arrives, there and back.
    last: [[u64; 2]; 3],
}

struct Flight {
    replica: usize,
    server: usize,
    life: u64,
    connection: usize,
    reply: Option<oneshot::Sender<Delivery>>,
}

struct Process {
    replica: Option<Replica>,
    /// How many there have been.
    number: u64,
    resumes_ms: u64,
    messages_first: bool,
    clock_us: u64,
}

struct World<'s> {
    script: &'s Script,
    setup: &'s Setup,
    now_ms: u64,
    queue: BinaryHeap<Reverse<(u64, u64)>>,
    happens: BTreeMap<u64, Happens>,
    next: u64,
    random: SmallRng,
    processes: Vec<Process>,
    servers: Vec<Server>,
    links: Vec<Link>,
    flights: Vec<Flight>,
    sent: Vec<Sent>,
    asked: Vec<Asked>,
    version: usize,
    oracle: Oracle,
    trace: Trace,
    reached: Reached,
}

/// Runs a script to its end or its first violation.
pub fn run(script: &Script, is_shown: bool) -> Outcome {
    let mut world = World::new(script, is_shown);
    let violation = world.run().err();
    Outcome {
        violation,
        hash: world.trace.hash(),
        reached: world.reached,
        lines: std::mem::take(&mut world.trace).lines(),
    }
}

impl<'s> World<'s> {
    fn new(script: &'s Script, is_shown: bool) -> Self {
        let setup = &script.setup;
        let mut random = SmallRng::seed_from_u64(setup.seed ^ 0x5eed);
        let processes = (0..setup.replicas).map(|_| Process {
            replica: None,
            number: 0,
            resumes_ms: 0,
            messages_first: false,
            clock_us: random.random_range(0..90_000_000_000),
        });
        let processes = processes.collect();
        let servers: Vec<Server> = (0..setup.servers).map(|_| Server::new()).collect();
        let server_of = |key: &_, limit: &_| match (setup.servers, setup.cluster) {
            (1, _) => 0,
            (servers, true) => shard_of(key, servers),
            (_, false) => by_window(limit),
        };
        let mut world = Self {
            script,
            setup,
            now_ms: 0,
            queue: BinaryHeap::new(),
            happens: BTreeMap::new(),
            next: 0,
            random,
            processes,
            links: vec![Link::default(); setup.replicas * setup.servers],
            servers,
            flights: Vec::new(),
            sent: Vec::new(),
            asked: Vec::new(),
            version: 0,
            oracle: Oracle::new(setup, server_of),
            trace: Trace::new(is_shown),
            reached: Reached::default(),
        };
        for replica in 0..setup.replicas {
            world.start(replica);
        }
        for (number, event) in script.events.iter().enumerate() {
            world.at(event.at_ms, Happens::Script(number));
        }
        world.at(setup.active_ms + SETTLES_MS, Happens::LastCalls);
        world.at(setup.active_ms + 2 * SETTLES_MS, Happens::End);
        world
    }

    fn at(&mut self, at_ms: u64, what: Happens) {
        let number = self.next;
        self.next += 1;
        self.queue.push(Reverse((at_ms.max(self.now_ms), number)));
        self.happens.insert(number, what);
    }

    fn start(&mut self, replica: usize) {
        let away = self
            .servers
            .iter()
            .map(|server| AtomicBool::new(server.is_down && !server.is_silent));
        let process = &mut self.processes[replica];
        process.replica = Some(Replica::start(
            self.setup,
            self.now_ms,
            process.clock_us,
            self.version,
            away.collect(),
        ));
    }

    fn run(&mut self) -> Result<(), String> {
        loop {
            self.let_work();
            let Some(Reverse((at_ms, number))) = self.queue.pop() else {
                return Ok(());
            };
            let Some(what) = self.happens.remove(&number) else {
                continue;
            };
            self.now_ms = at_ms;
            if matches!(what, Happens::End) {
                return self.end();
            }
            self.happen(what)?;
            self.check_bounds()?;
        }
    }

    /// Lets every process come to the time of the next event.
    fn let_work(&mut self) {
        let mut number = 0;
        while number < self.processes.len() {
            let Some(Reverse((until_ms, _))) = self.queue.peek() else {
                return;
            };
            let until_ms = *until_ms;
            let working = self.processes[number].replica.as_ref();
            let Some(replica) = working.filter(|replica| !replica.is_paused && replica.now_ms() < until_ms) else {
                number += 1;
                continue;
            };
            let messages = replica.run_until(until_ms);
            let (at_ms, answers) = (replica.now_ms(), replica.take_answers());
            for answer in answers {
                self.at(answer.at_ms, Happens::Answers(Box::new(answer)));
            }
            if !messages.is_empty() {
                // Their arrival may be the next event, for which those before need not have come as far.
                for message in messages {
                    self.send(number, at_ms, message);
                }
            }
        }
    }

    fn link(&mut self, replica: usize, server: usize) -> &mut Link {
        &mut self.links[replica * self.setup.servers + server]
    }

    /// How long a message travels, and whether it is lost.
    fn travels(&mut self, flight: usize, at_ms: u64, back: bool) -> Result<u64, Option<u64>> {
        let Flight {
            replica,
            server,
            connection,
            ..
        } = self.flights[flight];
        let (low, high) = match at_ms < self.setup.active_ms {
            true => self.setup.delay_ms,
            false => CALM_DELAY_MS,
        };
        let delay_ms = self.random.random_range(low..=high);
        let percent = self.random.random_range(0..100);
        let link = self.link(replica, server);
        if at_ms < link.lossy_until_ms && link.loses_requests != back && percent < link.percent {
            return Err(link.tell_ms);
        }
        let slow_ms = if at_ms < link.slow_until_ms { link.slow_by_ms } else { 0 };
        let last = &mut link.last[connection][usize::from(back)];
        *last = (*last).max(at_ms + delay_ms + slow_ms);
        Ok(*last)
    }

    fn send(&mut self, replica: usize, at_ms: u64, message: Message) {
        let number = self.flights.len();
        let server = message.server;
        self.flights.push(Flight {
            replica,
            server,
            life: self.servers[server].life,
            connection: self.random.random_range(0..self.setup.connections),
            reply: Some(message.reply),
        });
        let checks: usize = message.calls.iter().map(|call| call.checks.len()).sum();
        let calls = &message.calls;
        self.trace
            .note(at_ms, "sends", &[replica as u64, server as u64, checks as u64], || {
                let checks = calls.iter().flat_map(|call| &call.checks);
                let all: Vec<_> = checks.map(|check| format!("{} {:?}", check.key, check.hits)).collect();
                format!("#{number} {replica} to {server}: {}", all.join(", "))
            });
        self.sent.push(Sent {
            replica,
            process: self.processes[replica].number,
            calls: message.calls,
            answers: None,
            heard: message.heard,
            refused: false,
        });
        match self.travels(number, at_ms, false) {
            Ok(arrives_ms) => self.at(arrives_ms, Happens::Arrives(number)),
            Err(tell_ms) => self.lost(number, at_ms, tell_ms),
        }
    }

    /// A message is lost; whether and when its sender finds the connection broken.
    fn lost(&mut self, number: usize, at_ms: u64, tell_ms: Option<u64>) {
        self.oracle.is_unheard(&self.sent[number]);
        if let Some(tell_ms) = tell_ms {
            let broken = StoreError::Broken("reset".into());
            self.at(
                at_ms + tell_ms,
                Happens::Delivers(number, Box::new(Delivery::Indeterminate(broken))),
            );
        }
    }

    fn arrives(&mut self, number: usize) {
        let Flight { server: at, life, .. } = self.flights[number];
        let (now_ms, server) = (self.now_ms, &mut self.servers[at]);
        if server.is_down || server.life != life {
            let tell_ms = (!server.is_silent).then_some(1);
            self.lost(number, now_ms, tell_ms);
            return;
        }
        let delivery = if server.refuses {
            self.sent[number].refused = true;
            Delivery::Answered(Err(StoreError::refused("OOM command not allowed")))
        } else {
            let answers = server.run(now_ms, &self.sent[number].calls);
            self.sent[number].answers = Some(answers.clone());
            Delivery::Answered(Ok(answers))
        };
        let sent = &self.sent[number];
        let allowed = sent
            .answers
            .iter()
            .flatten()
            .flatten()
            .map(|answer| u64::from(answer.outcome.allowed));
        let allowed: Vec<u64> = [number as u64].into_iter().chain(allowed).collect();
        self.trace.note(now_ms, "decides", &allowed, || {
            format!("#{number}: {:?}", &allowed[1..])
        });
        match self.travels(number, now_ms, true) {
            Ok(at_ms) => self.at(at_ms, Happens::Delivers(number, Box::new(delivery))),
            Err(tell_ms) => self.lost(number, now_ms, tell_ms),
        }
    }

    fn delivers(&mut self, number: usize, delivery: Delivery) {
        let flight = &mut self.flights[number];
        let process = &self.processes[flight.replica];
        if process.resumes_ms > self.now_ms && !process.messages_first {
            let later_ms = process.resumes_ms + 1;
            self.at(later_ms, Happens::Delivers(number, Box::new(delivery)));
            return;
        }
        let server = &self.servers[flight.server];
        let broken = server.life != flight.life && !server.is_silent && matches!(delivery, Delivery::Answered(_));
        let delivery = if broken {
            self.oracle.is_unheard(&self.sent[number]);
            Delivery::Indeterminate(StoreError::Broken("reset".into()))
        } else {
            delivery
        };
        let is_answer = matches!(delivery, Delivery::Answered(_));
        self.trace
            .note(self.now_ms, "delivers", &[number as u64, u64::from(is_answer)], || {
                format!("#{number}: {}", if is_answer { "answered" } else { "failed" })
            });
        if let Some(reply) = flight.reply.take() {
            let taken = reply.send(delivery).is_ok();
            if !is_answer || !taken {
                // What was heard of it says nothing of what was counted.
                self.sent[number].heard = std::sync::Arc::default();
                self.oracle.is_unheard(&self.sent[number]);
            }
        }
    }

    fn happen(&mut self, what: Happens) -> Result<(), String> {
        match what {
            Happens::Script(number) => self.script_event(number),
            Happens::Arrives(number) => self.arrives(number),
            Happens::Delivers(number, delivery) => self.delivers(number, *delivery),
            Happens::Answers(answered) => self.answers(*answered)?,
            Happens::Releases { replica, part, version } => {
                self.ask(replica, version, vec![part], Some(20), None, false)
            }
            Happens::Overdue(call) => self.overdue(call)?,
            Happens::Resumes(replica) => self.resumes(replica),
            Happens::Restarts(replica) => {
                if self.processes[replica].replica.is_none() {
                    self.start(replica);
                }
            }
            Happens::Up(server) => {
                self.servers[server].is_down = false;
                self.set_away(server, false);
            }
            Happens::Obeys(server) => self.servers[server].refuses = false,
            Happens::LastCalls => self.last_calls(),
            Happens::End => {}
        }
        Ok(())
    }

    fn set_away(&self, server: usize, away: bool) {
        for replica in self.processes.iter().filter_map(|process| process.replica.as_ref()) {
            replica.away[server].store(away, Ordering::Relaxed);
        }
    }

    fn script_event(&mut self, number: usize) {
        let what = &self.script.events[number].what;
        let now_ms = self.now_ms;
        if !matches!(what, What::Call(_)) {
            self.trace
                .note(now_ms, "fault", &[number as u64], || format!("{what:?}"));
        }
        match *what {
            What::Call(ref call) => self.call(call),
            What::Slow {
                replica,
                server,
                for_ms,
                by_ms,
            } => {
                let link = self.link(replica, server);
                (link.slow_until_ms, link.slow_by_ms) = (now_ms + for_ms, by_ms);
            }
            What::Lose {
                replica,
                server,
                for_ms,
                requests,
                percent,
                tell_ms,
            } => {
                let link = self.link(replica, server);
                (link.lossy_until_ms, link.loses_requests) = (now_ms + for_ms, requests);
                (link.percent, link.tell_ms) = (percent, tell_ms);
            }
            What::Down {
                server: at,
                for_ms,
                keeps,
                silent,
            } => {
                let server = &mut self.servers[at];
                if server.is_down {
                    return;
                }
                (server.is_down, server.is_silent) = (true, silent);
                server.life += 1;
                if !keeps {
                    server.lose_all(now_ms);
                }
                self.set_away(at, !silent);
                self.at(now_ms + for_ms, Happens::Up(at));
            }
            What::Refuse { server, for_ms } => {
                self.servers[server].refuses = true;
                self.at(now_ms + for_ms, Happens::Obeys(server));
            }
            What::Failover { server, misses } => {
                self.servers[server].life += 1;
                self.servers[server].lose_last(now_ms, misses);
            }
            What::Crash { replica, for_ms } => self.crash(replica, for_ms),
            What::Pause {
                replica: at,
                for_ms,
                messages_first,
            } => {
                let process = &mut self.processes[at];
                let Some(replica) = process.replica.as_mut().filter(|replica| !replica.is_paused) else {
                    return;
                };
                replica.is_paused = true;
                (process.resumes_ms, process.messages_first) = (now_ms + for_ms, messages_first);
                self.at(now_ms + for_ms, Happens::Resumes(at));
            }
            What::StepServer { server, by_ms } => self.servers[server].step(now_ms, by_ms),
            What::Rules { version } => {
                self.version = version;
                for replica in self.processes.iter().filter_map(|process| process.replica.as_ref()) {
                    replica.activate(version);
                }
            }
        }
    }

    fn crash(&mut self, at: usize, for_ms: u64) {
        let process = &mut self.processes[at];
        let Some(replica) = process.replica.take() else { return };
        let stats = replica.stats();
        drop(replica);
        let number = process.number;
        (process.number, process.resumes_ms) = (number + 1, 0);
        self.dropped(&stats);
        self.oracle.crashed(at, number, &self.sent);
        for asked in &mut self.asked {
            if (asked.replica, asked.process, asked.answered) == (at, number, false) {
                asked.answered = true;
                self.oracle.unanswered(asked);
            }
        }
        self.at(self.now_ms + for_ms.max(1), Happens::Restarts(at));
    }

    fn resumes(&mut self, at: usize) {
        let now_ms = self.now_ms;
        let process = &mut self.processes[at];
        if process.resumes_ms > now_ms {
            return;
        }
        if let Some(replica) = process.replica.as_mut().filter(|replica| replica.is_paused) {
            replica.is_paused = false;
            replica.jump_to(now_ms);
        }
    }

    fn call(&mut self, call: &Call) {
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
    fn ask(
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
            self.oracle
                .released(&known[rule].key(VALUES[value]), hits.unsigned_abs());
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
            from_us: self.servers.iter().map(|server| server.time_us(self.now_ms)).collect(),
            deadline_ms,
            answered: false,
            is_last,
        });
        let longest_ms = deadline_ms.unwrap_or(self.setup.timeout_ms + 110);
        self.at(start_ms + longest_ms + ROUNDING_MS, Happens::Overdue(number));
    }

    fn overdue(&mut self, call: usize) -> Result<(), String> {
        let asked = &self.asked[call];
        if asked.answered {
            return Ok(());
        }
        let process = &self.processes[asked.replica];
        if process.replica.as_ref().is_some_and(|replica| replica.is_paused) || process.resumes_ms + 3 > self.now_ms {
            // It may have come to the process only now: its time then begins now.
            let longest_ms = asked.deadline_ms.unwrap_or(self.setup.timeout_ms + 110);
            let at_ms = process.resumes_ms.max(self.now_ms) + longest_ms + 3;
            self.at(at_ms, Happens::Overdue(call));
            return Ok(());
        }
        Err(format!(
            "?{call} was not answered by its deadline, {:?}",
            asked.deadline_ms
        ))
    }

    fn answers(&mut self, answered: Answered) -> Result<(), String> {
        let number = answered.call;
        let asked = &mut self.asked[number];
        asked.answered = true;
        let asked = &self.asked[number];
        let Some(decision) = answered.decision else {
            self.oracle.unanswered(asked);
            return Ok(());
        };
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
        if asked.is_last && decision.failure.is_some() {
            return Err(format!("?{number}: the store does not decide long after the faults"));
        }
        let permits = self.oracle.decided(asked, &decision, self.now_ms, &self.servers)?;
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

    /// Every replica is asked for every rule of the run once more.
    fn last_calls(&mut self) {
        let mut rules: Vec<usize> = Vec::new();
        for event in &self.script.events {
            if let What::Call(call) = &event.what {
                rules.extend(call.parts.iter().map(|part| part.0));
            }
        }
        rules.sort_unstable();
        rules.dedup();
        for replica in 0..self.processes.len() {
            for &rule in &rules {
                for value in [0, 2] {
                    self.ask(replica, self.version, vec![(rule, value, 1)], None, None, true);
                }
            }
        }
    }

    fn dropped(&mut self, stats: &sluicegate::store::remote::RemoteStats) {
        use sluicegate::store::Cause;
        for cause in &stats.causes {
            if cause.cause == Cause::Fallback {
                self.oracle.dropped_charges += cause.dropped;
            } else {
                self.oracle.dropped += cause.dropped;
            }
        }
    }

    fn check_bounds(&mut self) -> Result<(), String> {
        let bounds = bounds(self.setup);
        for process in &self.processes {
            let Some(replica) = &process.replica else { continue };
            let stats = replica.stats();
            // Those in flight with a call are no longer among the records.
            let most = bounds.max_corrections + 128 + crate::rules::RULES * VALUES.len();
            if stats.corrections > most {
                return Err(format!("{} corrections", stats.corrections));
            }
            let (lease_keys, denials) = (bounds.lease_keys.unwrap_or(0), bounds.denial_keys.unwrap_or(0));
            // Leases are kept in shards, each with a key at least.
            if stats.lease_keys > lease_keys.max(64) || stats.denials.entries > denials {
                return Err(format!(
                    "{} leases, {} denials",
                    stats.lease_keys, stats.denials.entries
                ));
            }
            let full = setup_is_full(self.setup.tight, stats.lease_keys, lease_keys);
            self.reached.lease_keys |= full;
            self.reached.denials |= setup_is_full(self.setup.tight, stats.denials.entries, denials);
            self.reached.corrections |= self.setup.tight && stats.corrections >= bounds.max_corrections;
        }
        Ok(())
    }

    fn end(&mut self) -> Result<(), String> {
        for number in 0..self.processes.len() {
            let Some(replica) = &self.processes[number].replica else {
                continue;
            };
            let (stats, is_closed) = (replica.stats(), replica.is_closed());
            if !is_closed {
                return Err(format!("replica {number}: a circuit is still open"));
            }
            if stats.corrections > 0 {
                return Err(format!("replica {number}: {} corrections are stuck", stats.corrections));
            }
            if stats.leased_hits > 0 {
                return Err(format!(
                    "replica {number}: {} leased hits are not back",
                    stats.leased_hits
                ));
            }
            self.dropped(&stats);
        }
        self.oracle.settled(&self.sent, &self.servers, self.now_ms)
    }
}

fn setup_is_full(tight: bool, held: usize, most: usize) -> bool {
    tight && most > 0 && held >= most
}
