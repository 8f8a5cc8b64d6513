//! Whole installations on virtual time: real engines and pipelines, simulated network and servers, and an oracle that sees
//! everything. One seed makes one run, and the same run again. See docs/simulation.md.

#![allow(clippy::expect_used, reason = "a test that cannot go on says why")]

mod many;
mod network;
mod oracle;
mod reached;
mod replica;
mod rules;
mod script;
mod server;
mod shrink;
mod trace;
mod world;

use std::collections::BTreeSet;

use reached::Reached;
use script::{EDITION, Script};
use world::run;

/// Seeds that every test run tries.
const FEW: u64 = 200;
/// Seeds that have failed once.
const REGRESSIONS: &str = include_str!("regressions.txt");

/// Runs a script; if something is violated, shrinks it and says everything about it. The bounds that it reached.
fn must_hold(script: &Script) -> Reached {
    let outcome = run(script, false);
    let Some(violation) = outcome.violation else {
        return outcome.reached;
    };
    let small = shrink::shrink(script);
    let shown = run(&small, true);
    panic!(
        "seed {}: {violation}\nshrunk from {} events to {}: {}\n{small}\n{}",
        script.setup.seed,
        script.events.len(),
        small.events.len(),
        shown.violation.unwrap_or_default(),
        shown.lines.join("\n")
    );
}

#[test]
fn the_same_seed_makes_the_same_run() {
    let mut different = BTreeSet::new();
    for seed in 0..60 {
        let script = Script::of(seed, EDITION);
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
        let mut words = line.split_whitespace().map(str::parse);
        let (Some(Ok(edition)), Some(Ok(seed))) = (words.next(), words.next()) else {
            panic!("an edition and a seed: {line}");
        };
        let edition = u32::try_from(edition).expect("a small number");
        must_hold(&Script::of(seed, edition));
    }
}

#[test]
fn the_first_seeds_hold_and_reach_every_bound() {
    let mut reached = Reached::default();
    for seed in 0..FEW {
        reached.merge(&must_hold(&Script::of(seed, EDITION)));
    }
    assert_eq!(reached.missing(), [""; 0], "bounds that no seed reached");
}
