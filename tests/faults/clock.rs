//! The machine's clock is stepped while a replica with counters in memory serves.

use std::process::Command;
use std::time::{Duration, Instant};

use tokio::time::sleep;

use crate::load::{Got, Kind, LIMIT, Load, RULES, WINDOW, over_admitted};
use crate::support::clock::SteppedClock;
use crate::support::sluicegate::Sluicegate;

/// Seconds off the real time, one after the other: an hour and a day, back and forth.
pub const STEPS: [i64; 6] = [3600, 0, -3600, 86_400, -86_400, 0];
/// Between two steps; with one window in between, each step back is followed by a full count.
const PAUSE: Duration = Duration::from_millis(700);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_step_of_the_clock_moves_no_window_in_memory() {
    let clock = SteppedClock::new();
    let mut server = Sluicegate::start_under(&clock, RULES, &[]);
    let load = Load::start(&[server.grpc_port]);
    sleep(WINDOW).await;
    let mut stepped = Vec::new();
    for step in STEPS {
        clock.step_to(step);
        stepped.push(Instant::now());
        sleep(PAUSE).await;
    }
    sleep(WINDOW * 2).await;
    let samples = load.finish().await;
    let unanswered = samples.iter().filter(|s| !matches!(s.got, Got::Decision(_))).count();
    assert_eq!(unanswered, 0, "of {}", samples.len());
    for kind in [Kind::Strict, Kind::Local] {
        assert_eq!(over_admitted(&samples, kind, LIMIT), 0, "{kind:?}: hits over the limit");
        // Every key goes on to get hits, within two windows of each step.
        for (at, key) in stepped.iter().flat_map(|at| (0..4).map(move |key| (*at, key))) {
            let within = |at, received| received > at && received < at + WINDOW * 2;
            let admitted = samples
                .iter()
                .any(|s| s.kind == kind && s.key == key && s.got == Got::Decision(true) && within(at, s.received));
            assert!(admitted, "{kind:?} {key} is stuck");
        }
    }
    // The steps did reach the process: its last lines are of another day.
    clock.step_to(172_800);
    server.process.signal("TERM");
    server.process.wait_for_exit();
    let (mut date, log) = (Command::new("date"), server.process.log());
    clock.rule(date.args(["-u", "+%F"]));
    let day = String::from_utf8(date.output().expect("date").stdout).expect("a day");
    assert!(log.contains(day.trim()), "{day}: {log}");
}
