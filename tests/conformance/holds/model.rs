//! A counter with holds as a list of them would count it.

use sluicegate::algorithms::op::Op;
use sluicegate::algorithms::{self, State, quota};
use sluicegate::model::{HoldId, Holds, Limit, Outcome, RetryAfter};

pub const SECOND_US: u64 = 1_000_000;
pub const SLICES: u64 = 32;

/// What a counter with holds should say, by a list of them.
pub struct Model {
    limit: Limit,
    used: State,
    holds: Vec<Held>,
    /// Hits of holds that have ended unsettled, and were not told yet.
    ended: u64,
}

struct Held {
    id: HoldId,
    slice: u64,
    /// 0 = it is settled.
    hits: u64,
}

impl Model {
    pub fn new(limit: Limit) -> Self {
        let used = State::new(&Limit { hold_us: 0, ..limit });
        Self {
            limit,
            used,
            holds: Vec::new(),
            ended: 0,
        }
    }

    fn slice(&self, now: u64) -> u64 {
        now / self.limit.hold_us.div_ceil(SLICES)
    }

    fn open(&self, now: u64) -> u64 {
        let counts = |held: &&Held| held.slice + SLICES >= self.slice(now);
        self.holds.iter().filter(counts).map(|held| held.hits).sum()
    }

    /// Forgets what has ended, as whatever changes the holds does.
    fn pass(&mut self, now: u64) {
        let slice = self.slice(now);
        let (ended, kept): (Vec<_>, Vec<_>) = std::mem::take(&mut self.holds)
            .into_iter()
            .partition(|held| held.slice + SLICES < slice);
        self.ended += ended.iter().map(|held| held.hits).sum::<u64>();
        self.holds = kept;
    }

    fn alone(&self, now: u64, hits: u64) -> Outcome {
        algorithms::decide(
            &Limit {
                hold_us: 0,
                ..self.limit
            },
            &self.used,
            now,
            hits,
        )
    }

    fn debit(&mut self, now: u64, hits: u64) {
        let plain = Limit {
            hold_us: 0,
            ..self.limit
        };
        algorithms::debit(&plain, &mut self.used, now, hits);
    }

    /// Allowed, remaining and when to come again, and what has been done to holds.
    pub fn step(&mut self, now: u64, op: Op) -> (bool, u64, RetryAfter, Holds) {
        let (mut allowed, mut retry_after, mut holds) = (true, RetryAfter::Now, Holds::default());
        let left = self.alone(now, 0).remaining.saturating_sub(self.open(now));
        // Hits of a hold that had been settled before, though its answer does not say so.
        let mut unmade = 0;
        match op {
            Op::Peek => {
                allowed = left > 0;
                retry_after = self.wait(now, 1, allowed);
            }
            Op::Hold { hits, id } => {
                let too_large = hits > quota(&self.limit);
                holds.own = match () {
                    () if hits <= left => hits,
                    () if too_large && self.open(now) == 0 => left,
                    () => 0,
                };
                allowed = holds.own > 0;
                retry_after = self.wait(now, if too_large { 1 } else { hits }, allowed);
                if allowed && self.known(now, id).is_some() {
                    unmade = holds.own;
                    self.pass(now);
                } else if allowed {
                    self.make(now, id, holds.own);
                }
            }
            Op::Settle { hits, id } => {
                let alone = self.alone(now, hits);
                holds = self.settle(now, id);
                if hits > 0 && !holds.repeated {
                    (allowed, retry_after) = (alone.allowed, alone.retry_after);
                    self.debit(now, hits);
                }
            }
            Op::ForceHold { hits, id } => {
                let hits = hits.min(u64::from(u32::MAX) - self.open(now));
                if hits > 0 && self.known(now, id).is_none() {
                    self.make(now, id, hits);
                }
                holds.own = self.known(now, id).map_or(0, |held| held.hits);
            }
            Op::Release(id) => self.release(now, id),
            Op::Debit(hits) => {
                let held = self.open(now);
                let fits = self.alone(now, hits + held);
                allowed = fits.allowed;
                retry_after = self.wait(now, hits, allowed);
                self.debit(now, hits);
            }
            other => unreachable!("{other:?}"),
        }
        let remaining = self.alone(now, 0).remaining.saturating_sub(self.open(now) + unmade);
        holds.open = self.open(now);
        holds.expired = std::mem::take(&mut self.ended);
        (allowed, remaining, retry_after, holds)
    }

    /// A hold of this id that has not expired, open or settled; settled ones keep nothing.
    fn known(&mut self, now: u64, id: HoldId) -> Option<&mut Held> {
        let slice = self.slice(now);
        let is_it = |held: &&mut Held| held.id == id && held.slice + SLICES >= slice;
        self.holds.iter_mut().find(is_it)
    }

    fn make(&mut self, now: u64, id: HoldId, hits: u64) {
        self.pass(now);
        let slice = self.slice(now);
        self.holds.push(Held { id, slice, hits });
    }

    /// Ends a hold; one that is not known is settled from then on.
    fn settle(&mut self, now: u64, id: HoldId) -> Holds {
        let (slice, mut holds) = (self.slice(now), Holds::default());
        match self.known(now, id) {
            Some(known) => {
                holds.own = std::mem::take(&mut known.hits);
                holds.repeated = holds.own == 0;
                if holds.own > 0 {
                    self.pass(now);
                }
            }
            None => self.holds.push(Held { id, slice, hits: 0 }),
        }
        holds
    }

    fn release(&mut self, now: u64, id: HoldId) {
        let slice = self.slice(now);
        let of = |held: &Held| held.id == id && held.hits > 0 && held.slice + SLICES >= slice;
        if self.holds.iter().any(of) {
            self.holds.retain(|held| !of(held));
            self.pass(now);
        }
    }

    /// When to come again: by what is used; in a second where only holds are in the way.
    fn wait(&self, now: u64, hits: u64, allowed: bool) -> RetryAfter {
        let alone = self.alone(now, hits);
        match () {
            () if allowed => RetryAfter::Now,
            () if alone.allowed => RetryAfter::Micros(SECOND_US),
            () => alone.retry_after,
        }
    }
}
