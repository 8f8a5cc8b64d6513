//! The second edition of what seeds decide: bounds so small that they are reached, and what it takes to reach them; steps of
//! the replicas' clocks.

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::{Call, Event, Script, What};
use crate::rules::{FIRST_RULES, is_leaky};

const DAY_MS: i64 = 86_400_000;

/// Answers that an engine holds back, where that is a small number.
pub const MAX_WAITING: usize = 2;

pub fn second_edition(script: &mut Script) {
    let mut random = SmallRng::seed_from_u64(script.setup.seed ^ 0x0002_ed17);
    let r = &mut random;
    if r.random_bool(0.35) {
        small(script, r);
    }
    if r.random_bool(0.15) {
        sizes(script, r);
    }
    if r.random_bool(0.15) {
        crowd(script, r);
    }
    if r.random_bool(0.15) {
        steps(script, r);
    }
}

/// Makes some bounds small.
fn small(script: &mut Script, r: &mut SmallRng) {
    let mut maybe = |bound: &mut usize, most: usize| {
        let value = r.random_range(1..=most);
        if r.random_bool(0.3) {
            *bound = value;
        }
    };
    let small = &mut script.setup.small;
    maybe(&mut small.pipeline.checks, 4);
    maybe(&mut small.pipeline.waiting, 6);
    maybe(&mut small.pipeline.joined, 3);
    maybe(&mut small.pipeline.in_flight, 3);
    maybe(&mut small.pipeline.flushed, 2);
    maybe(&mut small.fallback_keys, 4);
    maybe(&mut small.max_concurrent, 6);
    maybe(&mut small.max_waiting, MAX_WAITING);
    if small.max_waiting <= MAX_WAITING {
        patient(script);
    }
}

/// Callers of a leaky bucket have no deadline.
pub(super) fn patient(script: &mut Script) {
    for event in &mut script.events {
        if let What::Call(call) = &mut event.what
            && call.parts.iter().any(|(rule, ..)| is_leaky(*rule))
        {
            call.deadline_ms = None;
        }
    }
}

/// One counter is asked for many different numbers of hits.
fn sizes(script: &mut Script, r: &mut SmallRng) {
    let (rule, value) = (r.random_range(0..FIRST_RULES), r.random_range(0..2));
    let start = r.random_range(0..script.setup.active_ms);
    for n in 0..r.random_range(10..30) {
        let hits = r.random_range(1..=6);
        let call = call(script, r, vec![(rule, value, hits)]);
        add(script, start + n * 5, call);
    }
}

/// Many requests at one moment.
fn crowd(script: &mut Script, r: &mut SmallRng) {
    let rules = [(); 2].map(|()| r.random_range(0..FIRST_RULES));
    for _ in 0..r.random_range(1..=3) {
        let start = r.random_range(0..script.setup.active_ms);
        let replica = r.random_range(0..script.setup.replicas);
        for _ in 0..r.random_range(10..40) {
            let part = (rules[r.random_range(0..2)], r.random_range(0..2), 1);
            let mut call = call(script, r, vec![part]);
            call.replica = replica;
            add(script, start, call);
        }
    }
}

/// The machines' clocks are set, which no process notices before it is started again.
fn steps(script: &mut Script, r: &mut SmallRng) {
    for _ in 0..r.random_range(1..=3) {
        let at_ms = r.random_range(0..script.setup.active_ms);
        let replica = r.random_range(0..script.setup.replicas);
        let most_ms = [2000, 3_600_000, DAY_MS][r.random_range(0..3)];
        let by_ms = r.random_range(-most_ms..=most_ms);
        script.events.push(Event {
            at_ms,
            what: What::StepReplica { replica, by_ms },
        });
        if r.random_bool(0.6) {
            let for_ms = r.random_range(1..300);
            script.events.push(Event {
                at_ms: (at_ms + r.random_range(1..200)).min(script.setup.active_ms - 1),
                what: What::Crash { replica, for_ms },
            });
        }
    }
}

pub(super) fn call(script: &Script, r: &mut SmallRng, parts: Vec<(usize, usize, u64)>) -> Call {
    Call {
        replica: r.random_range(0..script.setup.replicas),
        parts,
        deadline_ms: [None, Some(20), Some(60)][r.random_range(0..3)],
        leaves_ms: None,
        settles: Vec::new(),
    }
}

pub(super) fn add(script: &mut Script, at_ms: u64, call: Call) {
    script.events.push(Event {
        at_ms: at_ms.min(script.setup.active_ms - 1),
        what: What::Call(call),
    });
}
