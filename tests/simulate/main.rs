//! Whole installations on virtual time: real engines and pipelines, simulated network and servers, and an oracle that sees
//! everything. One seed makes one run, and the same run again. See docs/simulation.md.

#![allow(clippy::expect_used, reason = "a test that cannot go on says why")]
#![allow(clippy::too_many_lines, reason = "an event of each kind")]

mod network;
mod oracle;
mod replica;
mod rules;
mod script;
mod server;
mod shrink;
mod trace;
mod world;

use std::collections::BTreeSet;
use std::io::Write as _;
use std::time::{Duration, Instant};

use script::Script;
use world::{Reached, run};

/// Seeds that every test run tries.
const FEW: u64 = 200;
/// Failing seeds that are named.
const MOST_SAID: usize = 40;
/// Seeds that have failed once.
const REGRESSIONS: &str = include_str!("regressions.txt");

/// Runs a seed; shrinks it and says everything about it if something is violated.
fn must_hold(seed: u64) -> Reached {
    let script = Script::of(seed);
    let outcome = run(&script, false);
    if let Some(violation) = outcome.violation {
        let small = shrink::shrink(&script);
        let shown = run(&small, true);
        panic!(
            "seed {seed}: {violation}\nshrunk from {} events to {}: {}\n{small}\n{}",
            script.events.len(),
            small.events.len(),
            shown.violation.unwrap_or_default(),
            shown.lines.join("\n")
        );
    }
    outcome.reached
}

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name)
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(default)
}

#[test]
fn the_same_seed_makes_the_same_run() {
    let mut different = BTreeSet::new();
    for seed in 0..60 {
        let script = Script::of(seed);
        let [one, other] = [0, 1].map(|_| run(&script, true));
        let first = one.lines.iter().zip(&other.lines).find(|(one, other)| one != other);
        assert_eq!(first, None, "seed {seed}");
        assert_eq!(one.hash, other.hash, "seed {seed}");
        different.insert(one.hash);
    }
    assert!(different.len() > 50, "seeds make different runs");
}

#[test]
fn what_failed_once_holds() {
    for line in REGRESSIONS.lines().filter(|line| !line.starts_with('#')) {
        let seed = line.split_whitespace().next().unwrap_or_default();
        must_hold(seed.parse().expect("a seed"));
    }
}

#[test]
fn the_first_seeds_hold() {
    for seed in 0..FEW {
        must_hold(seed);
    }
}

/// `make simulate SEEDS=10000`
#[test]
#[ignore = "as many seeds as one wants: make simulate"]
fn seeds() {
    let (first, count) = (setting("FIRST", 0), setting("SEEDS", 10_000));
    let (start, mut told) = (Instant::now(), Instant::now());
    let mut reached = Reached::default();
    let mut failed = Vec::new();
    for done in 0..count {
        let outcome = run(&Script::of(first + done), false);
        failed.extend(outcome.violation.map(|violation| (first + done, violation)));
        let more = outcome.reached;
        reached.corrections |= more.corrections;
        reached.lease_keys |= more.lease_keys;
        reached.denials |= more.denials;
        if told.elapsed() > Duration::from_secs(2) || done + 1 == count {
            told = Instant::now();
            let rate = (done + 1) as f64 / start.elapsed().as_secs_f64();
            let _ = writeln!(
                std::io::stderr(),
                "{} of {count} seeds, {rate:.0} a second, {} failed",
                done + 1,
                failed.len()
            );
        }
    }
    for (seed, violation) in failed.iter().take(MOST_SAID) {
        let _ = writeln!(std::io::stderr(), "seed {seed}: {violation}");
    }
    if let Some((seed, _)) = failed.first() {
        must_hold(*seed);
    }
    if count >= 1000 {
        assert!(
            reached.corrections && reached.lease_keys && reached.denials,
            "bounds that were reached: {reached:?}"
        );
    }
}
