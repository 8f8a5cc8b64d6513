//! The fourth edition of what seeds decide: holds that are settled once, twice, late, elsewhere or never; quotas; hits in
//! many short slices; resets; callers that release whether they passed or not.

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::bounds::{add, call};
use super::{Event, Script, Settling, What};
use crate::rules::{FIRST_RULES, HOLDS, QUOTAS, SLICES};

pub fn fourth_edition(script: &mut Script) {
    let mut random = SmallRng::seed_from_u64(script.setup.seed ^ 0x0004_ed17);
    let r = &mut random;
    if r.random_bool(0.5) {
        holds(script, r);
    }
    if r.random_bool(0.3) {
        quotas(script, r);
    }
    if r.random_bool(0.4) {
        slices(script, r);
    }
    script.setup.releases_all = r.random_bool(0.4);
    if r.random_bool(0.3) {
        script.setup.resets = true;
        resets(script, r);
    }
}

/// Requests that hold an estimate of their cost, and settle it.
fn holds(script: &mut Script, r: &mut SmallRng) {
    let rules = [(); 2].map(|()| HOLDS[r.random_range(0..HOLDS.len())]);
    for _ in 0..r.random_range(4..14) {
        let start = r.random_range(0..script.setup.active_ms);
        let every = r.random_range(0..10);
        for n in 0..r.random_range(1..7) {
            let held = (
                rules[r.random_range(0..2)],
                r.random_range(0..2),
                r.random_range(1..=30),
            );
            let mut parts = vec![held];
            if r.random_bool(0.25) {
                let rule = [rules[0], rules[1], r.random_range(0..FIRST_RULES)][r.random_range(0..3)];
                if rule != held.0 {
                    parts.push((rule, r.random_range(0..2), r.random_range(1..=3)));
                }
            }
            let mut call = call(script, r, parts);
            call.leaves_ms = r.random_bool(0.1).then(|| r.random_range(0..30));
            call.settles = settlements(script, r);
            add(script, start + n * every, call);
        }
    }
}

/// On time, twice, late, or never.
fn settlements(script: &Script, r: &mut SmallRng) -> Vec<Settling> {
    let after: &[(u64, u64)] = match r.random_range(0..10) {
        0..5 => &[(0, 400)],
        5 => &[(0, 400), (0, 400)],
        6 => &[(0, 100), (400, 2500)],
        7 => &[(1000, 2500)],
        _ => &[],
    };
    let settling = |&(from, to): &(u64, u64)| Settling {
        after_ms: r.random_range(from..to),
        replica: r.random_range(0..script.setup.replicas),
        percent: [100, 100, 0, 20, 70, 150][r.random_range(0..6)],
    };
    after.iter().map(settling).collect()
}

/// Requests with one quota or both, of which one must be left.
fn quotas(script: &mut Script, r: &mut SmallRng) {
    for _ in 0..r.random_range(4..12) {
        let start = r.random_range(0..script.setup.active_ms);
        let value = r.random_range(0..2);
        for n in 0..r.random_range(1..8) {
            let which: &[usize] = [&QUOTAS[..], &QUOTAS[..1], &QUOTAS[1..]][r.random_range(0..3)];
            let mut parts: Vec<_> = which.iter().map(|rule| (*rule, value, r.random_range(1..=2))).collect();
            if r.random_bool(0.2) {
                parts.push((r.random_range(0..FIRST_RULES), value, 1));
            }
            let call = call(script, r, parts);
            add(script, start + n * 3, call);
        }
    }
}

/// Hits that are spread over many slices, some of requests that something else denies.
fn slices(script: &mut Script, r: &mut SmallRng) {
    for _ in 0..r.random_range(8..24) {
        let start = r.random_range(0..script.setup.active_ms);
        let (value, every) = (r.random_range(0..2), r.random_range(0..12));
        for n in 0..r.random_range(3..12) {
            let mut parts = vec![(SLICES, value, r.random_range(1..=3))];
            if r.random_bool(0.2) {
                parts.push((r.random_range(0..FIRST_RULES), r.random_range(0..2), 1));
            }
            let mut call = call(script, r, parts);
            call.leaves_ms = r.random_bool(0.05).then(|| r.random_range(0..30));
            add(script, start + n * every, call);
        }
    }
}

/// Counters of the run are made as new, in the midst of it and after it.
fn resets(script: &mut Script, r: &mut SmallRng) {
    let mut asked: Vec<(usize, usize)> = Vec::new();
    for event in &script.events {
        if let What::Call(call) = &event.what {
            asked.extend(call.parts.iter().map(|part| (part.0, part.1)));
        }
    }
    let active_ms = script.setup.active_ms;
    for _ in 0..r.random_range(1..=4) {
        let late = r.random_bool(0.4);
        let at_ms = match late {
            true => active_ms + r.random_range(1000..2500),
            false => r.random_range(0..active_ms),
        };
        let Some(&(rule, value)) = asked.get(r.random_range(0..asked.len().max(1))) else {
            return;
        };
        let replica = r.random_range(0..script.setup.replicas);
        script.events.push(Event {
            at_ms,
            what: What::Reset {
                replica,
                counters: vec![(rule, value)],
            },
        });
    }
}
