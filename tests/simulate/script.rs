//! What a run does: everything that a seed decides in advance, as a list that can be shortened.

mod bounds;
mod endings;
mod holds;
mod slots;

use std::fmt;

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

pub use self::bounds::MAX_WAITING;
use crate::rules::{FIRST_RULES, VERSIONS};
use sluicegate::store::remote::Bounds;

/// How the installation of one run looks.
#[derive(Debug, Clone)]
pub struct Setup {
    pub seed: u64,
    pub replicas: usize,
    pub servers: usize,
    /// The servers are the shards of one cluster; else each has a circuit of its own.
    pub cluster: bool,
    /// Slots of each server of a cluster; a request over several of them is undone where one denies.
    pub slots: usize,
    pub leases: bool,
    pub denials: bool,
    pub join: bool,
    /// All bounds are so small that they are reached.
    pub tight: bool,
    pub small: Small,
    /// A release may come with another check in one request, as those of an Envoy's stream that is done do.
    pub mixed_releases: bool,
    /// Requests are released whether they passed or not, as an Envoy does.
    pub releases_all: bool,
    /// Replicas hear of resets by others.
    pub resets: bool,
    /// A caller that has gone hears no answer, also one that is ready in the moment in which this shows; as over HTTP/2.
    pub leavers_hear_nothing: bool,
    /// What comes beside a release: this rule, often with more hits than it can admit.
    pub denied_beside: Option<usize>,
    pub timeout_ms: u64,
    /// A message travels for so long at least, and at most.
    pub delay_ms: (u64, u64),
    /// Connections of a replica to a server; messages of different ones overtake each other.
    pub connections: usize,
    /// When the faults and the callers' load end.
    pub active_ms: u64,
}

/// Bounds of one replica that no setting changes, or that are so large that no run would reach them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Small {
    pub pipeline: Bounds,
    /// Keys of the fallback counters.
    pub fallback_keys: usize,
    /// Requests that an engine works on.
    pub max_concurrent: usize,
    /// Answers that it holds back.
    pub max_waiting: usize,
    /// Counters whose denials its release filter notes.
    pub max_noted: usize,
}

impl Default for Small {
    fn default() -> Self {
        Self {
            pipeline: Bounds::default(),
            fallback_keys: 1024,
            max_concurrent: 10_000,
            max_waiting: 10_000,
            max_noted: 10_000,
        }
    }
}

/// Something that happens at a time.
#[derive(Debug, Clone)]
pub struct Event {
    pub at_ms: u64,
    pub what: What,
}

/// What happens.
#[derive(Debug, Clone)]
pub enum What {
    Call(Call),
    /// Messages between a replica and a server take longer.
    Slow {
        replica: usize,
        server: usize,
        for_ms: u64,
        by_ms: u64,
    },
    /// Messages are lost; the connection is found broken after `tell_ms`, or never.
    Lose {
        replica: usize,
        server: usize,
        for_ms: u64,
        requests: bool,
        percent: u32,
        tell_ms: Option<u64>,
    },
    /// A server dies and comes back; `silent`: nobody refuses connections meanwhile.
    Down {
        server: usize,
        for_ms: u64,
        keeps: bool,
        silent: bool,
    },
    /// A server refuses all calls without counting.
    Refuse {
        server: usize,
        for_ms: u64,
    },
    /// A slot of the server moves: calls over several slots are refused.
    Moves {
        server: usize,
        for_ms: u64,
    },
    /// A copy of the server that misses its last calls takes over.
    Failover {
        server: usize,
        misses: usize,
    },
    Crash {
        replica: usize,
        for_ms: u64,
    },
    Pause {
        replica: usize,
        for_ms: u64,
        messages_first: bool,
    },
    StepServer {
        server: usize,
        by_ms: i64,
    },
    Rules {
        version: usize,
    },
    /// An operator makes counters as new, each of a rule and a value.
    Reset {
        replica: usize,
        counters: Vec<(usize, usize)>,
    },
    /// The time of day of a replica's machine is set; a process reads it once, when it starts.
    StepReplica {
        replica: usize,
        by_ms: i64,
    },
}

/// A request.
#[derive(Debug, Clone)]
pub struct Call {
    pub replica: usize,
    /// Rule, value, hits.
    pub parts: Vec<(usize, usize, u64)>,
    pub deadline_ms: Option<u64>,
    /// The caller goes away after so long.
    pub leaves_ms: Option<u64>,
    /// How often and when it settles what it holds.
    pub settles: Vec<Settling>,
}

/// One settlement of a hold.
#[derive(Debug, Clone, Copy)]
pub struct Settling {
    /// After the answer.
    pub after_ms: u64,
    pub replica: usize,
    /// What the request has cost, in percent of what it asked to hold.
    pub percent: u64,
}

/// A setup with its events.
#[derive(Debug, Clone)]
pub struct Script {
    pub setup: Setup,
    pub events: Vec<Event>,
}

/// The values of a rule's descriptor; the last one is only asked for at the end.
pub const VALUES: [&str; 3] = ["a", "b", "last"];

/// What seeds decide was added to in steps; a seed means the same run again only in the same edition.
pub const EDITION: u32 = 6;

impl Script {
    /// The script of a seed, as it was in an edition. What is added later is decided by a generator of its own and joins in
    /// from its edition on, so that the seeds that have failed once still make their runs.
    pub fn of(seed: u64, edition: u32) -> Self {
        let mut script = Self::first_edition(seed);
        if edition >= 2 {
            bounds::second_edition(&mut script);
        }
        if edition >= 3 {
            let mut random = SmallRng::seed_from_u64(seed ^ 0x0003_ed17);
            script.setup.mixed_releases = random.random_bool(0.5);
        }
        if edition >= 4 {
            holds::fourth_edition(&mut script);
        }
        if edition >= 5 {
            endings::fifth_edition(&mut script);
        }
        if edition >= 6 {
            slots::sixth_edition(&mut script);
        }
        script.events.sort_by_key(|event| event.at_ms);
        script
    }

    fn first_edition(seed: u64) -> Self {
        let mut random = SmallRng::seed_from_u64(seed);
        let r = &mut random;
        let servers = [1, 1, 2, 3][r.random_range(0..4)];
        let setup = Setup {
            seed,
            replicas: r.random_range(1..=4_usize).min(r.random_range(1..=4)),
            servers,
            cluster: servers > 2 || servers > 1 && r.random_bool(0.6),
            slots: 1,
            leases: r.random_bool(0.6),
            denials: r.random_bool(0.7),
            join: r.random_bool(0.8),
            tight: r.random_bool(0.15),
            small: Small::default(),
            mixed_releases: false,
            releases_all: false,
            resets: false,
            leavers_hear_nothing: false,
            denied_beside: None,
            timeout_ms: [15, 15, 40][r.random_range(0..3)],
            delay_ms: [(1, 1), (1, 3), (1, 10), (2, 25)][r.random_range(0..4)],
            connections: r.random_range(1..=3),
            active_ms: r.random_range(800..=2500),
        };
        let mut events = Vec::new();
        calls(&setup, r, &mut events);
        faults(&setup, r, &mut events);
        Self { setup, events }
    }
}

fn calls(setup: &Setup, r: &mut SmallRng, events: &mut Vec<Event>) {
    // Few rules a run, so that their counters are in demand.
    let rules: Vec<usize> = (0..r.random_range(2..=5))
        .map(|_| r.random_range(0..FIRST_RULES))
        .collect();
    let mut bursts = r.random_range(15..60);
    while bursts > 0 {
        bursts -= 1;
        let start = r.random_range(0..setup.active_ms);
        let (size, every) = (r.random_range(1..8), r.random_range(0..6));
        let replica = r.random_range(0..setup.replicas);
        for n in 0..size {
            let several = if r.random_bool(0.2) { r.random_range(2..=3) } else { 1 };
            let mut parts: Vec<(usize, usize, u64)> = Vec::new();
            for _ in 0..several {
                let (rule, value) = (rules[r.random_range(0..rules.len())], r.random_range(0..2));
                if parts.iter().all(|part| (part.0, part.1) != (rule, value)) {
                    parts.push((rule, value, if r.random_bool(0.8) { 1 } else { r.random_range(2..=3) }));
                }
            }
            let call = Call {
                replica: if r.random_bool(0.7) {
                    replica
                } else {
                    r.random_range(0..setup.replicas)
                },
                parts,
                deadline_ms: [None, Some(20), Some(20), Some(60), Some(300)][r.random_range(0..5)],
                leaves_ms: r.random_bool(0.06).then(|| r.random_range(0..30)),
                settles: Vec::new(),
            };
            events.push(Event {
                at_ms: (start + n * every).min(setup.active_ms - 1),
                what: What::Call(call),
            });
        }
    }
}

fn faults(setup: &Setup, r: &mut SmallRng, events: &mut Vec<Event>) {
    let kinds: Vec<u32> = (0..r.random_range(0..=4)).map(|_| r.random_range(0..10)).collect();
    for kind in kinds {
        for _ in 0..r.random_range(1..=3) {
            let at_ms = r.random_range(0..setup.active_ms);
            let what = fault(setup, r, kind, at_ms);
            events.push(Event { at_ms, what });
        }
    }
}

/// One fault of a kind.
fn fault(setup: &Setup, r: &mut SmallRng, kind: u32, at_ms: u64) -> What {
    let left = setup.active_ms - at_ms;
    let (replica, server) = (r.random_range(0..setup.replicas), r.random_range(0..setup.servers));
    let for_ms = r.random_range(1..1200).min(left);
    match kind {
        0 => What::Slow {
            replica,
            server,
            for_ms,
            by_ms: [5, 30, 200, 1200][r.random_range(0..4)],
        },
        1 | 2 => What::Lose {
            replica,
            server,
            for_ms,
            requests: r.random_bool(0.5),
            percent: [10, 50, 100][r.random_range(0..3)],
            tell_ms: r.random_bool(0.6).then(|| r.random_range(1..400)),
        },
        3 => What::Down {
            server,
            for_ms,
            keeps: r.random_bool(0.7),
            silent: r.random_bool(0.3),
        },
        4 => What::Refuse {
            server,
            for_ms: for_ms.min(300),
        },
        5 => What::Failover {
            server,
            misses: r.random_range(0..10),
        },
        6 => What::Crash { replica, for_ms },
        7 => What::Pause {
            replica,
            for_ms: r.random_range(50..=2000).min(left.max(50)),
            messages_first: r.random_bool(0.5),
        },
        8 => What::StepServer {
            server,
            by_ms: r.random_range(-3000..5000),
        },
        _ => What::Rules {
            version: r.random_range(0..VERSIONS),
        },
    }
}

impl fmt::Display for Script {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:?}", self.setup)?;
        for event in &self.events {
            writeln!(f, "{:>6} ms  {:?}", event.at_ms, event.what)?;
        }
        Ok(())
    }
}
