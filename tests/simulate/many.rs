//! `make simulate`: as many seeds as one wants, on all cores.

use std::io::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::must_hold;
use crate::reached::Reached;
use crate::script::{EDITION, Script};
use crate::world::run;

/// Failing seeds that are looked for: then something is so wrong that more of them tell nothing.
const MOST_FAILED: usize = 40;
/// From so many seeds on, every bound must have been reached.
const REACH_ALL: u64 = 10_000;
const TELL_EVERY: Duration = Duration::from_secs(2);

/// What the threads share.
struct Tally {
    next: AtomicU64,
    sum: Mutex<Sum>,
}

#[derive(Default)]
struct Sum {
    done: u64,
    failed: Vec<u64>,
    reached: Reached,
}

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name)
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(default)
}

fn say(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// Runs seeds below `end` until there are no more, or too many have failed.
fn work(tally: &Tally, end: u64, edition: u32) {
    loop {
        let seed = tally.next.fetch_add(1, Ordering::Relaxed);
        if seed >= end {
            return;
        }
        let outcome = run(&Script::of(seed, edition), false);
        let mut sum = tally.sum.lock();
        sum.done += 1;
        sum.reached.merge(&outcome.reached);
        if let Some(violation) = outcome.violation {
            say(&format!("seed {seed}: {violation}"));
            sum.failed.push(seed);
        }
        if sum.failed.len() >= MOST_FAILED {
            return;
        }
    }
}

#[test]
#[ignore = "as many seeds as one wants: make simulate"]
fn seeds() {
    let (first, count) = (setting("FIRST", 0), setting("SEEDS", 10_000));
    let edition = u32::try_from(setting("EDITION", EDITION.into())).expect("a small number");
    let start = Instant::now();
    let tally = Tally {
        next: AtomicU64::new(first),
        sum: Mutex::default(),
    };
    let tell = |tally: &Tally| {
        let sum = tally.sum.lock();
        let (done, failed) = (sum.done, sum.failed.len());
        let rate = done as f64 / start.elapsed().as_secs_f64();
        say(&format!("{done} of {count} seeds, {rate:.0} a second, {failed} failed"));
    };
    thread::scope(|scope| {
        let threads = thread::available_parallelism().map_or(1, usize::from);
        let workers: Vec<_> = (0..threads)
            .map(|_| scope.spawn(|| work(&tally, first + count, edition)))
            .collect();
        let mut told = Instant::now();
        while !workers.iter().all(thread::ScopedJoinHandle::is_finished) {
            thread::sleep(Duration::from_millis(20));
            if told.elapsed() >= TELL_EVERY {
                told = Instant::now();
                tell(&tally);
            }
        }
    });
    tell(&tally);
    let Sum { failed, reached, .. } = tally.sum.into_inner();
    say(&reached.table());
    if let Some(seed) = failed.iter().min() {
        must_hold(&Script::of(*seed, edition));
        panic!("seed {seed} failed once and then held: a run is not repeatable");
    }
    if count >= REACH_ALL {
        assert_eq!(reached.missing(), [""; 0], "bounds that no seed reached");
    }
}
