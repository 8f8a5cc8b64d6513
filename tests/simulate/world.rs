//! The world of one run: time, network, servers, processes and callers, all decided by the script and its seed.
//!
//! Each process has a runtime of its own, which is let work up to the world's next event; it stops early when it has sent
//! something. A message travels for a millisecond at least, so that a process that is ahead of the others cannot have
//! missed anything. All times are whole milliseconds, as the timers of tokio are.

mod callers;
mod checks;
mod faults;
mod flights;
mod releases;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::sync::atomic::AtomicBool;

use self::callers::Asking;
use self::flights::{Flight, Link};
use self::releases::Release;
use crate::network::{Parcel, server_of};
use crate::oracle::{Asked, Oracle, Sent};
use crate::reached::Reached;
use crate::replica::{self, Answered, Replica, by_window};
use crate::script::{Script, Setup};
use crate::server::Server;
use crate::trace::Trace;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

/// After the load: corrections, leases and circuits have so long to settle; then once more after the last calls.
const SETTLES_MS: u64 = 4500;
/// How a run ended.
pub struct Outcome {
    /// What was violated, if anything.
    pub violation: Option<String>,
    pub hash: u64,
    pub lines: Vec<String>,
    pub reached: Reached,
}

enum Happens {
    Script(usize),
    Arrives(usize),
    Delivers(usize, Box<Parcel>),
    Answers(Box<Answered>),
    Releases(Release),
    Asks(Box<Asking>),
    Overdue(usize),
    Resumes(usize),
    Restarts(usize),
    Up(usize),
    Obeys(usize),
    /// No slot moves any more.
    Settles(usize),
    LastCalls,
    /// A last call, of a rule and a value to a replica.
    Last {
        replica: usize,
        part: (usize, usize, i64),
    },
    End,
}

/// What the network does between a replica and a server.
struct Process {
    replica: Option<Replica>,
    /// How many there have been.
    number: u64,
    resumes_ms: u64,
    messages_first: bool,
    /// The time of day at its machine, from which simulated time runs on.
    clock_us: u64,
    /// Which of its circuits were open after the last event.
    opened: Vec<bool>,
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
    /// Denials that release filters of processes that have ended could not note.
    unnoted: u64,
}

/// Runs a script to its end or its first violation.
pub fn run(script: &Script, is_shown: bool) -> Outcome {
    replica::begin();
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
            clock_us: 1_600_000_000_000_000 + random.random_range(0..90_000_000_000),
            opened: Vec::new(),
        });
        let processes = processes.collect();
        let servers: Vec<Server> = (0..setup.servers).map(|_| Server::new()).collect();
        let place_of = |key: &_, limit: &_| match (setup.servers, setup.cluster) {
            (1, _) => 0,
            (servers, true) => server_of(key, servers),
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
            oracle: Oracle::new(setup, place_of),
            trace: Trace::new(is_shown),
            reached: Reached::default(),
            unnoted: 0,
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
            self.let_work()?;
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
    fn let_work(&mut self) -> Result<(), String> {
        let mut number = 0;
        while number < self.processes.len() {
            let Some(Reverse((until_ms, _))) = self.queue.peek() else {
                return Ok(());
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
                    self.send(number, at_ms, message)?;
                }
            }
        }
        Ok(())
    }

    fn happen(&mut self, what: Happens) -> Result<(), String> {
        match what {
            Happens::Script(number) => self.script_event(number),
            Happens::Arrives(number) => self.arrives(number),
            Happens::Delivers(number, parcel) => self.delivers(number, *parcel),
            Happens::Answers(answered) => self.answers(*answered)?,
            Happens::Releases(release) => self.releases(release),
            Happens::Asks(asking) => self.ask(*asking),
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
            Happens::Settles(server) => self.servers[server].moves = false,
            Happens::LastCalls => self.last_calls(),
            Happens::Last { replica, part } => self.ask(Asking {
                is_last: true,
                ..Asking::new(replica, self.version, vec![part])
            }),
            Happens::End => {}
        }
        Ok(())
    }
}
