//! The accounts of quotas against a store and Envoys by their definition: at every moment what is counted and held is what has
//! been admitted in a window and what may still be admitted, or more.

use std::collections::HashMap;

use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use sluicegate::algorithms::limit::{LimitSpec, build};
use sluicegate::model::{AlgorithmKind, HoldId, Limit, Unit, Window};
use sluicegate::quota::account::{Account, Assignment, QuotaStand, QuotaStep, UnusedHits};
use sluicegate::quota::size::Situation;
use sluicegate::quota::terms::{LATE_US, leased};

const STEP_US: u64 = 50_000;
const REPORT_US: u64 = 5_000_000;
const ENVOYS: usize = 3;
/// A shorter stop may not be noticed: what is used meanwhile is counted by so much less than a window (docs/rlqs.md).
const NOTICED: u64 = (LATE_US + 100_000) / STEP_US;
/// What is known of the counter for so long is taken for true, as the service does.
const FRESH_US: u64 = 50_000;
const POLL_US: u64 = 250_000;

/// A counter with holds, as plainly as possible.
struct PlainStore {
    limit: Limit,
    used: Vec<(u64, u64)>,
    holds: HashMap<HoldId, (u64, u64)>,
    made: u64,
}

impl PlainStore {
    fn counted(&self, now_us: u64) -> u64 {
        let used = self
            .used
            .iter()
            .filter(|(at_us, _)| at_us + self.limit.window_us > now_us);
        let held = self
            .holds
            .values()
            .filter(|(at_us, _)| at_us + self.limit.hold_us > now_us);
        used.chain(held).map(|(_, hits)| hits).sum()
    }

    fn hold(&mut self, id: HoldId, hits: u64, now_us: u64) -> u64 {
        if hits == 0 || self.counted(now_us) + hits > self.limit.hits {
            return 0;
        }
        self.holds.entry(id).or_insert((now_us, 0)).1 += hits;
        hits
    }

    fn step(&mut self, step: &QuotaStep, now_us: u64) -> QuotaStand {
        if let Some(id) = step.settles {
            self.holds.remove(&id);
        }
        if step.used > 0 {
            match self.used.last_mut().filter(|(at_us, _)| *at_us == now_us) {
                Some((_, hits)) => *hits += step.used,
                None => self.used.push((now_us, step.used)),
            }
        }
        self.made += 1;
        let id = HoldId::new(self.made, [0; 9]);
        let kept = self.hold(id, step.keep, now_us);
        let got = self.hold(id, step.more.hits, now_us);
        let leaves = self
            .used
            .iter()
            .map(|(at_us, _)| at_us + self.limit.window_us)
            .filter(|at_us| *at_us > now_us);
        QuotaStand {
            id,
            kept,
            got,
            slice: now_us,
            remaining: self.limit.hits.saturating_sub(self.counted(now_us)),
            retry_after_us: leaves.min().map_or(1_000_000, |at_us| at_us - now_us),
            failure: None,
        }
    }

    fn give_back(&mut self, unused: &UnusedHits) {
        let found = self
            .used
            .iter_mut()
            .find(|(at_us, hits)| *at_us == unused.slice && *hits >= unused.hits);
        found.expect("what is returned was counted then").1 -= unused.hits;
    }
}

/// An Envoy with one bucket.
#[derive(Default)]
struct PlainEnvoy {
    left: u64,
    end_us: u64,
    /// On its way: when it arrives, tokens, seconds.
    inbox: Vec<(u64, u64, u64)>,
    allowed: u64,
    denied: u64,
    waiting: u64,
    is_stopped: bool,
    next_report_us: u64,
}

impl PlainEnvoy {
    fn admit(&mut self, count: u64) -> u64 {
        let admitted = count.min(self.left);
        self.left -= admitted;
        self.allowed += admitted;
        self.denied += count - admitted;
        admitted
    }

    /// What it may still admit, whatever arrives when.
    fn may_admit(&self, now_us: u64) -> u64 {
        let lives = self.is_stopped || now_us < self.end_us;
        let coming: u64 = self.inbox.iter().map(|(_, hits, _)| hits).sum();
        coming + if lives { self.left } else { 0 }
    }
}

struct Stream {
    account: Account,
    last_report_us: u64,
}

struct World {
    store: PlainStore,
    envoys: Vec<PlainEnvoy>,
    streams: Vec<Option<Stream>>,
    admitted: Vec<(u64, u64)>,
    remaining: (u64, u64),
    delay_us: u64,
    now_us: u64,
}

#[derive(Debug, Clone)]
enum Event {
    /// Requests in each step, for so many steps.
    Load([u64; ENVOYS], u64),
    /// An Envoy stands still for so many steps.
    Stop(usize, u64),
    /// Its stream ends.
    Break(usize),
}

impl World {
    fn new(hits: u64, window_s: u32, delay_us: u64) -> Self {
        let window = Window {
            multiplier: window_s,
            ..Window::of(Unit::Second)
        };
        let limit = build(&LimitSpec::new(AlgorithmKind::SlidingWindow, hits, window)).expect("a limit");
        let envoy = |at: u64| PlainEnvoy {
            next_report_us: 1_000_000_000 + at * 1_300_000,
            ..PlainEnvoy::default()
        };
        Self {
            store: PlainStore {
                limit: leased(&limit).expect("it can be leased"),
                used: Vec::new(),
                holds: HashMap::new(),
                made: 1 << 40,
            },
            envoys: (0..ENVOYS as u64).map(envoy).collect(),
            streams: (0..ENVOYS).map(|_| None).collect(),
            admitted: Vec::new(),
            remaining: (hits, 0),
            delay_us,
            now_us: 1_000_000_000,
        }
    }

    fn run(&mut self, load: [u64; ENVOYS], steps: u64) {
        for _ in 0..steps {
            self.now_us += STEP_US;
            for (at, count) in load.into_iter().enumerate() {
                self.envoy(at, count);
                self.server(at);
            }
            self.holds_what_may_come();
        }
    }

    fn envoy(&mut self, at: usize, count: u64) {
        let now_us = self.now_us;
        let envoy = &mut self.envoys[at];
        if envoy.is_stopped {
            envoy.waiting += count;
            return;
        }
        // What waited is admitted before its main thread has noticed the time.
        let waited = std::mem::take(&mut envoy.waiting);
        let mut admitted = envoy.admit(waited);
        while envoy.inbox.first().is_some_and(|(at_us, ..)| *at_us <= now_us) {
            let (_, hits, ttl_s) = envoy.inbox.remove(0);
            (envoy.left, envoy.end_us) = (hits, now_us + ttl_s * 1_000_000);
        }
        if now_us >= envoy.end_us {
            envoy.left = 0;
        }
        admitted += envoy.admit(count);
        if admitted > 0 {
            self.admitted.push((now_us, admitted));
        }
        if now_us < envoy.next_report_us {
            return;
        }
        envoy.next_report_us = now_us - (now_us - envoy.next_report_us) % REPORT_US + REPORT_US;
        let (allowed, denied) = (std::mem::take(&mut envoy.allowed), std::mem::take(&mut envoy.denied));
        let stream = self.streams[at].get_or_insert_with(|| Stream {
            account: Account::new(now_us),
            last_report_us: now_us,
        });
        stream.last_report_us = now_us;
        for unused in stream.account.report(REPORT_US, allowed, denied, now_us) {
            self.store.give_back(&unused);
        }
        self.step(at);
    }

    /// What the service does without a report.
    fn server(&mut self, at: usize) {
        let now_us = self.now_us;
        let Some(stream) = &mut self.streams[at] else { return };
        if now_us >= stream.last_report_us + LATE_US {
            stream.account.freeze(self.store.limit.window_us, now_us);
        }
        if stream.account.due_us().is_some_and(|due_us| due_us <= now_us) {
            self.step(at);
        }
    }

    fn step(&mut self, at: usize) {
        let now_us = self.now_us;
        for is_last in [false, false, true] {
            let total_demand = self
                .streams
                .iter()
                .flatten()
                .filter_map(|stream| stream.account.demand())
                .sum();
            let streams = self.streams.iter().flatten().count() as u64;
            let Some(stream) = &mut self.streams[at] else { return };
            let situation = Situation {
                limit: self.store.limit,
                refills: false,
                remaining: self.remaining.0,
                is_fresh: now_us < self.remaining.1 + FRESH_US,
                rate_now: 0,
                demand: stream.account.demand(),
                total_demand,
                streams,
            };
            let Some(step) = stream.account.step(&situation, false, now_us) else {
                return;
            };
            let stand = self.store.step(&step, now_us);
            self.remaining = (stand.remaining, now_us);
            let assignment = stream.account.answered(&step, &stand, now_us, POLL_US);
            match assignment {
                Assignment::Lease(size) => {
                    let arrives_us = now_us + self.delay_us;
                    self.envoys[at].inbox.push((arrives_us, size.hits, size.ttl_s));
                }
                Assignment::Deny { .. } if stand.remaining > 0 && !is_last => {
                    stream.account.wait_until(0);
                    continue;
                }
                _ if stream.account.is_urgent() => continue,
                _ => {}
            }
            return;
        }
    }

    /// The property.
    fn holds_what_may_come(&self) {
        let (now_us, window_us) = (self.now_us, self.store.limit.window_us);
        let recent = self.admitted.iter().filter(|(at_us, _)| at_us + window_us > now_us);
        let admitted: u64 = recent.map(|(_, hits)| hits).sum();
        let coming: u64 = self.envoys.iter().map(|envoy| envoy.may_admit(now_us)).sum();
        let counted = self.store.counted(now_us);
        assert!(
            admitted + coming <= counted,
            "{admitted} admitted and {coming} to come, where {counted} are counted and held"
        );
        assert!(admitted <= self.store.limit.hits, "{admitted} admitted");
    }

    fn happens(&mut self, events: &[Event]) {
        let mut load = [0; ENVOYS];
        for event in events {
            match event {
                Event::Load(next, steps) => {
                    load = *next;
                    self.run(load, *steps);
                }
                Event::Stop(at, steps) => {
                    self.envoys[*at].is_stopped = true;
                    self.run(load, *steps);
                    self.envoys[*at].is_stopped = false;
                    self.run(load, 60);
                }
                Event::Break(at) => {
                    // What is on its way is lost; the lease lives on.
                    self.streams[*at] = None;
                    self.envoys[*at].inbox.clear();
                    self.run(load, 20);
                }
            }
        }
        self.run(load, 400);
    }
}

fn event() -> impl Strategy<Value = Event> {
    let many = prop_oneof![Just(0), 1..3_u64, 5..20_u64];
    prop_oneof![
        3 => ([many.clone(), many.clone(), many], 20..300_u64).prop_map(|(load, steps)| Event::Load(load, steps)),
        1 => (0..ENVOYS, NOTICED..400).prop_map(|(at, steps)| Event::Stop(at, steps)),
        1 => (0..ENVOYS).prop_map(Event::Break),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: std::env::var("H17").map_or(400, |n| n.parse().unwrap_or(400)), rng_seed: RngSeed::Fixed(std::env::var("H17S").map_or(17, |n| n.parse().unwrap_or(17))), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_counted_and_held_covers_what_was_and_may_be_admitted(
        hits in prop_oneof![1..30_u64, 30..2000_u64],
        window_s in prop_oneof![Just(10_u32), Just(20), Just(60)],
        delay_us in 0..400_000_u64,
        events in prop::collection::vec(event(), 1..14),
    ) {
        World::new(hits, window_s, delay_us).happens(&events);
    }
}

/// What is used where a lease that is not short follows short ones may be of either.
#[test]
fn what_is_used_after_short_leases_is_counted_when_it_was_used() {
    // None of the short ones are used: they were settled earlier, and leave the window while what was used is still in it.
    World::new(537, 20, 0).happens(&[
        Event::Load([0, 0, 14], 135),
        Event::Load([1, 0, 0], 213),
        Event::Load([1, 0, 0], 249),
        Event::Load([0, 7, 1], 20),
    ]);
    // The last of the short ones is in force until the other one has arrived: its hold is not of what was used before.
    World::new(697, 60, 200_001).happens(&[
        Event::Stop(0, 186),
        Event::Load([12, 2, 1], 140),
        Event::Load([0, 0, 0], 105),
        Event::Load([0, 1, 0], 219),
        Event::Load([1, 0, 0], 293),
        Event::Stop(0, 396),
        Event::Stop(1, 128),
    ]);
}

/// A lease that waited for its Envoy while that stood still begins when the Envoy goes on: its hold lasts as long as it does.
#[test]
fn a_lease_that_waited_is_held_until_it_has_ended() {
    World::new(836, 60, 100_001).happens(&[Event::Load([0, 5, 1], 100), Event::Stop(0, 240)]);
}
