//! Runs a scenario under many schedules.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use shuttle::scheduler::{PctScheduler, RandomScheduler, Scheduler};
use shuttle::{Config, MaxSteps, Runner};

use crate::time;

/// Schedules of each kind that every test run tries.
const FEW: usize = 300;
/// A scenario that takes more steps waits for something that never comes.
const MAX_STEPS: usize = 100_000;
/// The changes of the running task that make a fault, at most, for the scheduler that looks for few well-placed ones.
const DEPTH: usize = 3;

/// `SCHEDULES=100000` tries as many instead.
fn schedules() -> usize {
    std::env::var("SCHEDULES")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(FEW)
}

/// Runs a scenario under random schedules, and under schedules with few changes at random places. The same ones in every
/// run; a failure says which one it was.
pub fn explore(scenario: impl Fn() + Send + Sync + 'static) {
    let scenario = Arc::new(scenario);
    let count = schedules();
    run(
        "random",
        RandomScheduler::new_from_seed(1, count),
        Arc::clone(&scenario),
    );
    run("few changes", PctScheduler::new_from_seed(1, DEPTH, count), scenario);
}

/// Runs what one task does.
pub fn once(scenario: impl Fn() + Send + Sync + 'static) {
    run("the only one", RandomScheduler::new_from_seed(1, 1), Arc::new(scenario));
}

fn run(kind: &str, scheduler: impl Scheduler + 'static, scenario: Arc<impl Fn() + Send + Sync + 'static>) {
    let mut config = Config::new();
    config.max_steps = MaxSteps::FailAfter(MAX_STEPS);
    config.stack_size = 1 << 18;
    config.silence_warnings = true;
    let number = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&number);
    let runner = Runner::new(scheduler, config);
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        runner.run(move || {
            counted.fetch_add(1, Relaxed);
            time::reset();
            scenario();
        })
    }));
    if let Err(panic) = outcome {
        let number = number.load(Relaxed);
        eprintln!("fails under schedule {number} ({kind})");
        resume_unwind(panic);
    }
}
