//! A simulated server: the memory store, which runs the real algorithms, on a clock of its own.

use std::num::NonZeroUsize;
use std::sync::Arc;

use sluicegate::algorithms::{op::Op, quota};
use sluicegate::model::{Check, Clock, CounterKey, Enforcement, Limit, ManualClock, Transaction};
use sluicegate::store::MemoryStore;
use sluicegate::store::remote::transport::Answers;

/// The server's clock at the start of a run: half an hour into an hour and some hours into a day, so that no step of it
/// leaves the long windows.
const START_US: u64 =
    1_700_000_000_000_000 - 1_700_000_000_000_000 % 86_400_000_000 + 9 * 3_600_000_000 + 1_800_000_000;

pub struct Server {
    clock: Arc<ManualClock>,
    store: MemoryStore,
    step_ms: i64,
    /// By how much its clock was set back in all.
    set_back_ms: u64,
    /// What it has carried out, and when.
    log: Vec<(u64, Vec<Transaction<Op>>)>,
    /// The log of resets: each counter with the time of its last one.
    resets: Vec<(CounterKey, u64)>,
    /// Rises when its connections break.
    pub life: u64,
    pub is_down: bool,
    pub refuses: bool,
    /// One of its slots moves.
    pub moves: bool,
    /// Nobody refuses connections while it is down.
    pub is_silent: bool,
    /// Simulated milliseconds at which it lost data.
    pub losses: Vec<u64>,
    /// Whether any data were lost.
    pub lost_data: bool,
}

fn empty(clock: &Arc<ManualClock>) -> MemoryStore {
    let keys = NonZeroUsize::new(1024).expect("not zero");
    // The store begins before any time to which the clock may be set back: a clock of ours never goes back, Redis' may.
    clock.set(START_US - 3_600_000_000);
    MemoryStore::new(keys, Arc::clone(clock) as Arc<dyn Clock>)
}

impl Server {
    pub fn new() -> Self {
        let clock = Arc::new(ManualClock::new(START_US));
        Self {
            store: empty(&clock),
            clock,
            step_ms: 0,
            set_back_ms: 0,
            log: Vec::new(),
            resets: Vec::new(),
            life: 0,
            is_down: false,
            refuses: false,
            moves: false,
            is_silent: false,
            losses: Vec::new(),
            lost_data: false,
        }
    }

    /// What its clock says.
    pub fn time_us(&self, now_ms: u64) -> u64 {
        (START_US + now_ms * 1000).saturating_add_signed(self.step_ms * 1000)
    }

    pub fn step(&mut self, by_ms: i64) {
        self.step_ms += by_ms;
        self.set_back_ms += by_ms.min(0).unsigned_abs();
    }

    /// Its clock as if it had never been set back. A limit holds by this: what is counted after a step back is counted no
    /// earlier than what was counted before, and a bucket is no fuller than it was.
    pub fn steady_us(&self, now_ms: u64) -> u64 {
        self.time_us(now_ms) + self.set_back_ms * 1000
    }

    /// Whether the windows of its clock begin at other times than those of [`steady_us`](Self::steady_us).
    pub const fn is_set_back(&self) -> bool {
        self.set_back_ms > 0
    }

    /// Carries out a call.
    pub fn run(&mut self, now_ms: u64, calls: &[Transaction<Op>]) -> Vec<Answers> {
        let time_us = self.time_us(now_ms);
        self.clock.set(time_us);
        self.log.push((time_us, calls.to_vec()));
        calls.iter().map(|call| self.store.check_ops(call)).collect()
    }

    /// Adds counters to the log of resets, as `resets.lua` does.
    pub fn announce(&mut self, now_ms: u64, counters: &[CounterKey]) {
        for counter in counters {
            let last = self.resets.last().map_or(0, |(_, at)| at + 1);
            self.resets.retain(|(known, _)| known != counter);
            self.resets.push((counter.clone(), last.max(self.time_us(now_ms))));
        }
    }

    /// What the log of resets has.
    pub fn read_log(&self, since: u64, most: usize) -> Vec<(CounterKey, u64)> {
        let newer = self.resets.iter().filter(|(_, at)| *at > since);
        newer.take(most).cloned().collect()
    }

    /// Forgets everything.
    pub fn lose_all(&mut self, now_ms: u64) {
        self.store = empty(&self.clock);
        self.log.clear();
        self.resets.clear();
        self.losses.push(now_ms);
        self.lost_data = true;
    }

    /// A copy takes over that has not got the last calls.
    pub fn lose_last(&mut self, now_ms: u64, calls: usize) {
        if calls > 0 && !self.log.is_empty() {
            self.losses.push(now_ms);
            self.lost_data = true;
        }
        self.log.truncate(self.log.len().saturating_sub(calls));
        self.store = empty(&self.clock);
        for (time_us, calls) in &self.log {
            self.clock.set(*time_us);
            for call in calls {
                let _ = self.store.check_ops(call);
            }
        }
    }

    /// Whether its clock has never been set.
    pub const fn is_steady(&self) -> bool {
        self.step_ms == 0 && self.set_back_ms == 0
    }

    /// Hits that a counter has in use or keeps as holds, and those that it keeps, at a time of its clock.
    pub fn look_at(&self, time_us: u64, key: &CounterKey, limit: &Limit) -> (u64, u64) {
        self.clock.set(time_us);
        let look = Transaction {
            checks: [Check {
                key: key.clone(),
                limit: *limit,
                hits: Op::Peek,
                enforcement: Enforcement::Enforce,
            }]
            .into_iter()
            .collect(),
            ..Transaction::default()
        };
        let answers = self.store.check_ops(&look);
        let outcome = answers.first().map(|answer| answer.outcome);
        outcome.map_or((0, 0), |outcome| {
            (quota(limit).saturating_sub(outcome.remaining), outcome.holds.open)
        })
    }

    /// The same now.
    pub fn look(&self, now_ms: u64, key: &CounterKey, limit: &Limit) -> (u64, u64) {
        self.look_at(self.time_us(now_ms), key, limit)
    }
}
