//! The fifth edition of what seeds decide: endings that are seldom seen together with what they must survive. Releases
//! beside something that denies, holds that nobody hears of while their counters are reset, callers that go while their
//! replica stands still, denials and leases that a reset must end; and the bounds of resets and of the release filter.

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::bounds::{MAX_WAITING, add, call, patient};
use super::{Event, Script, What};
use crate::rules::{DAY_FIXED, HOLDS, HOUR_LOCAL, LEAKY, PERMITS, SLICES, WINDOW_EXACT};

pub fn fifth_edition(script: &mut Script) {
    let mut random = SmallRng::seed_from_u64(script.setup.seed ^ 0x0005_ed17);
    let r = &mut random;
    script.setup.leavers_hear_nothing = true;
    if r.random_bool(0.25) {
        denied_beside(script, r);
    }
    if r.random_bool(0.2) {
        abandoned(script, r);
    }
    if r.random_bool(0.2) {
        gone_while_stopped(script, r);
    }
    if r.random_bool(0.2) {
        used_up(script, r);
    }
    if r.random_bool(0.2) {
        in_demand(script, r);
    }
    if r.random_bool(0.2) {
        many_resets(script, r);
    }
    if r.random_bool(0.1) {
        many_denials(script, r);
    }
    if r.random_bool(0.1) {
        held_back(script, r);
    }
    if script.setup.tight {
        many_leases(script, r);
    }
}

/// A moment while the load lasts, with so much of it left, if it is that long.
fn moment(script: &Script, r: &mut SmallRng, left_ms: u64) -> u64 {
    r.random_range(0..script.setup.active_ms.saturating_sub(left_ms).max(1))
}

fn event(script: &mut Script, at_ms: u64, what: What) {
    script.events.push(Event { at_ms, what });
}

fn reset(script: &mut Script, r: &mut SmallRng, at_ms: u64, counters: Vec<(usize, usize)>) {
    script.setup.resets = true;
    let replica = r.random_range(0..script.setup.replicas);
    event(script, at_ms, What::Reset { replica, counters });
}

/// Permits, whose releases come beside checks that are often denied.
fn denied_beside(script: &mut Script, r: &mut SmallRng) {
    script.setup.mixed_releases = true;
    script.setup.denied_beside = Some(WINDOW_EXACT);
    let rule = PERMITS[r.random_range(0..PERMITS.len())];
    for _ in 0..r.random_range(3..10) {
        let start = moment(script, r, 0);
        for n in 0..r.random_range(1..5) {
            let part = (rule, r.random_range(0..2), 1);
            let call = call(script, r, vec![part]);
            add(script, start + n * 3, call);
        }
    }
}

/// Holds whose callers go before they are answered, one after the other, while the counter is reset.
fn abandoned(script: &mut Script, r: &mut SmallRng) {
    let (rule, value) = (HOLDS[r.random_range(0..2)], r.random_range(0..2));
    let (start, every) = (moment(script, r, 800), r.random_range(10..60));
    let most_ms = script.setup.delay_ms.1 * 2 + 2;
    for n in 0..r.random_range(10..30) {
        let part = (rule, value, r.random_range(1..=5));
        let mut call = call(script, r, vec![part]);
        call.leaves_ms = Some(r.random_range(1..=most_ms));
        add(script, start + n * every, call);
    }
    let at_ms = start + r.random_range(0..400);
    reset(script, r, at_ms, vec![(rule, value)]);
}

/// Callers of holds go while their replica stands still, and the answer has come when it goes on.
fn gone_while_stopped(script: &mut Script, r: &mut SmallRng) {
    for _ in 0..r.random_range(1..=3) {
        let (rule, value) = (HOLDS[r.random_range(0..2)], r.random_range(0..2));
        let (at_ms, for_ms) = (moment(script, r, 200), r.random_range(50..200));
        let replica = r.random_range(0..script.setup.replicas);
        let part = (rule, value, r.random_range(1..=5));
        let mut call = call(script, r, vec![part]);
        (call.replica, call.deadline_ms) = (replica, None);
        call.leaves_ms = Some(r.random_range(3..for_ms));
        add(script, at_ms, call);
        let messages_first = true;
        let stop = What::Pause {
            replica,
            for_ms,
            messages_first,
        };
        event(script, at_ms + 1, stop);
    }
}

/// A counter that is used up, whose denials are kept, is reset when the load has ended.
fn used_up(script: &mut Script, r: &mut SmallRng) {
    let start = moment(script, r, 400);
    for n in 0..r.random_range(14..20) {
        let call = call(script, r, vec![(DAY_FIXED, 0, 3)]);
        add(script, start + n * 5, call);
    }
    for n in 0..r.random_range(8..20) {
        let hits = [1, 1, 1, 2, 4, 5, 6][r.random_range(0..7)];
        let call = call(script, r, vec![(DAY_FIXED, 0, hits)]);
        add(script, start + 100 + n * 15, call);
    }
    let at_ms = script.setup.active_ms + r.random_range(1000..2500);
    reset(script, r, at_ms, vec![(DAY_FIXED, 0)]);
}

/// A counter in such demand that it is leased is reset in the midst of it.
fn in_demand(script: &mut Script, r: &mut SmallRng) {
    let (start, value) = (moment(script, r, 1200), r.random_range(0..2));
    let (first, second) = (
        r.random_range(0..script.setup.replicas),
        r.random_range(0..script.setup.replicas),
    );
    for n in 0..r.random_range(100..250) {
        let part = (HOUR_LOCAL, value, r.random_range(1..=2));
        let mut call = call(script, r, vec![part]);
        call.replica = if n % 2 == 0 { first } else { second };
        add(script, start + n * 5, call);
    }
    let at_ms = start + r.random_range(100..600);
    reset(script, r, at_ms, vec![(HOUR_LOCAL, value)]);
}

/// Several counters are reset at once, and again, where few can be at a time.
fn many_resets(script: &mut Script, r: &mut SmallRng) {
    script.setup.small.pipeline.reset = r.random_range(1..=2);
    script.setup.small.pipeline.log_entries = r.random_range(1..=2);
    let rules = [WINDOW_EXACT, DAY_FIXED, HOUR_LOCAL, HOLDS[0]];
    for _ in 0..r.random_range(1..=2) {
        let at_ms = moment(script, r, 0);
        let count = r.random_range(2..=rules.len());
        let counters = rules.into_iter().take(count).map(|rule| (rule, r.random_range(0..2)));
        let counters = counters.collect();
        reset(script, r, at_ms, counters);
    }
}

/// Callers release whether they passed or not, and few denials can be noted.
fn many_denials(script: &mut Script, r: &mut SmallRng) {
    script.setup.releases_all = true;
    script.setup.small.max_noted = 1;
    for _ in 0..r.random_range(3..8) {
        let start = moment(script, r, 0);
        let replica = r.random_range(0..script.setup.replicas);
        for n in 0..r.random_range(8..20) {
            let rule = PERMITS[r.random_range(0..PERMITS.len())];
            let part = (rule, r.random_range(0..2), 1);
            let mut call = call(script, r, vec![part]);
            call.replica = replica;
            add(script, start + n * 2, call);
        }
    }
}

/// More answers of a leaky bucket than can be held back.
fn held_back(script: &mut Script, r: &mut SmallRng) {
    script.setup.small.max_waiting = r.random_range(1..=MAX_WAITING);
    for _ in 0..r.random_range(1..=3) {
        let start = moment(script, r, 0);
        let replica = r.random_range(0..script.setup.replicas);
        for n in 0..r.random_range(6..12) {
            let mut call = call(script, r, vec![(LEAKY, n % 2, 1)]);
            call.replica = replica;
            add(script, start, call);
        }
    }
    // A deadline is the only other reason not to hold an answer back.
    patient(script);
}

/// Every counter that can be leased is asked for, where few can.
fn many_leases(script: &mut Script, r: &mut SmallRng) {
    let start = moment(script, r, 200);
    for rule in [0, 1, 3, 8, 9, HOUR_LOCAL, DAY_FIXED, SLICES] {
        for value in 0..2 {
            let mut call = call(script, r, vec![(rule, value, 1)]);
            call.replica = 0;
            add(script, start, call);
        }
    }
}
