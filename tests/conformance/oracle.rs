//! Limits by their definitions, as slowly and plainly as possible: every admitted hit is remembered, and times are
//! found by trying.

use std::collections::HashMap;

use sluicegate::algorithms::limit::MAX_HITS;
use sluicegate::algorithms::op::{Answer, Grant, Op};
use sluicegate::model::{Algorithm, Check, CounterKey, Enforcement, Limit, Outcome, RetryAfter, Transaction};

/// One counter.
#[derive(Debug, Clone)]
pub struct Counter {
    limit: Limit,
    /// Admitted hits that were not given back: slice, time or window, and how many.
    events: Vec<(u64, u64)>,
    /// The newest slice or window that was written to.
    newest: u64,
    /// Buckets: when nothing will be missing, in units since the epoch.
    full: i128,
    /// Units of a microsecond and of a hit when that was written.
    full_units: (i128, i128),
    /// Buckets: a debit took more than there is.
    overdrawn: bool,
}

impl Counter {
    pub fn new(limit: Limit) -> Self {
        Self {
            limit,
            events: Vec::new(),
            newest: 0,
            full: 0,
            full_units: (1, 1),
            overdrawn: false,
        }
    }

    /// Goes on under a rule whose numbers may have changed: what is missing, in hits, carries over.
    fn obey(&mut self, limit: Limit, now: u64) {
        self.limit = limit;
        let Some((rate, hit, capacity)) = self.units() else {
            return;
        };
        let (old_rate, old_hit) = self.full_units;
        let (old_us, new_us) = (pace(old_hit, old_rate), pace(hit, rate));
        let missing = (self.full - i128::from(now) * old_rate).max(0);
        if missing == 0 || capacity == 0 {
            return;
        }
        let units = if old_us == new_us {
            let wait = missing / old_rate;
            let missing = wait * rate + (missing % old_rate).min(rate - 1);
            let most = if self.overdrawn { 2 * capacity } else { capacity };
            if missing <= most {
                return;
            }
            most
        } else {
            // By the time that a hit took, to 24 binary digits, and in hits to 20.
            let wait = ceil(missing, old_rate);
            let hits = match old_us {
                (mantissa, exponent @ 0..) => ceil(wait << 20, mantissa << exponent),
                (mantissa, exponent) => ceil(wait << (20 - exponent), mantissa),
            };
            ceil(hits * hit, 1 << 20).min(capacity)
        };
        self.write(now, units);
    }

    /// Notes what is missing of a bucket.
    fn write(&mut self, now: u64, units: i128) {
        let (rate, hit, capacity) = self.units().expect("a bucket");
        self.full = if units > 0 { i128::from(now) * rate + units } else { 0 };
        self.full_units = (rate, hit);
        self.overdrawn = units > capacity;
    }

    /// Slices in a window, and their length.
    fn slices(&self) -> (u64, u64) {
        let slices = match self.limit.algorithm {
            Algorithm::SlidingWindow { precision } => u64::from(precision),
            _ => 32,
        };
        (slices, self.limit.window_us.div_ceil(slices))
    }

    /// What an event of this time is marked with.
    fn mark(&self, now: u64) -> u64 {
        let last = self.events.last().map_or(0, |event| event.0);
        match self.limit.algorithm {
            Algorithm::SlidingWindow { .. } | Algorithm::Concurrency => self.newest.max(now / self.slices().1),
            Algorithm::SlidingLog => last.max(now),
            Algorithm::FixedWindow => self.newest.max(now / self.limit.window_us),
            Algorithm::TokenBucket { .. } | Algorithm::LeakyBucket { .. } => now,
        }
    }

    /// Whether an event still counts at this time.
    fn counts(&self, now: u64, event: (u64, u64)) -> bool {
        let mark = self.mark(now);
        match self.limit.algorithm {
            Algorithm::SlidingWindow { .. } | Algorithm::Concurrency => event.0 + self.slices().0 >= mark,
            Algorithm::SlidingLog => event.0 + self.limit.window_us > mark,
            _ => event.0 == mark,
        }
    }

    /// Units of the bucket: rate, of one hit, and how many may be missing.
    fn units(&self) -> Option<(i128, i128, i128)> {
        let of = |rate: u64, hit: u64, capacity: u128| {
            let capacity = if self.limit.hits == 0 { 0 } else { capacity };
            (i128::from(rate), i128::from(hit), capacity as i128)
        };
        match self.limit.algorithm {
            Algorithm::TokenBucket {
                burst,
                hit_units,
                unit_rate,
            } => Some(of(unit_rate, hit_units, u128::from(burst) * u128::from(hit_units))),
            Algorithm::LeakyBucket {
                max_delay_us,
                hit_units,
                unit_rate,
            } => {
                let waiting = u128::from(max_delay_us) * u128::from(unit_rate);
                Some(of(unit_rate, hit_units, waiting + u128::from(hit_units)))
            }
            _ => None,
        }
    }

    fn missing(&self, now: u64, rate: i128) -> i128 {
        let (old_rate, _) = self.full_units;
        let missing = (self.full - i128::from(now) * old_rate).max(0);
        missing / old_rate * rate + (missing % old_rate).min(rate - 1)
    }

    fn used(&self, now: u64) -> u64 {
        let events = self.events.iter();
        events
            .filter(|event| self.counts(now, **event))
            .map(|event| event.1)
            .sum()
    }

    /// Hits that would pass now.
    pub fn remaining(&self, now: u64) -> u64 {
        match self.units() {
            Some((rate, hit, capacity)) => ((capacity - self.missing(now, rate)).max(0) / hit) as u64,
            None => self.limit.hits.saturating_sub(self.used(now)),
        }
    }

    fn fits(&self, now: u64, hits: u64) -> bool {
        hits <= self.remaining(now)
    }

    fn is_full(&self, now: u64) -> bool {
        match self.units() {
            Some((rate, ..)) => self.missing(now, rate) == 0,
            None => self.used(now) == 0,
        }
    }

    /// The first time from now on at which something holds that goes on to hold: by halving.
    fn wait_until(now: u64, holds: impl Fn(u64) -> bool) -> u64 {
        if holds(now) {
            return 0;
        }
        let (mut not_yet, mut then) = (now, now + 1);
        while !holds(then) {
            (not_yet, then) = (then, then + (then - now) * 2);
            assert!(then < u64::MAX / 8, "never");
        }
        while then - not_yet > 1 {
            let middle = not_yet + (then - not_yet) / 2;
            *(if holds(middle) { &mut then } else { &mut not_yet }) = middle;
        }
        then - now
    }

    pub fn retry_after(&self, now: u64, hits: u64) -> RetryAfter {
        let unused = Self::new(self.limit);
        if !unused.fits(now, hits) {
            return RetryAfter::Never;
        }
        match Self::wait_until(now, |t| self.fits(t, hits)) {
            0 => RetryAfter::Now,
            wait => RetryAfter::Micros(wait),
        }
    }

    pub fn reset_after(&self, now: u64) -> u64 {
        Self::wait_until(now, |t| self.is_full(t))
    }

    /// Counts hits; returns how long their request is held back.
    pub fn take(&mut self, now: u64, hits: u64) -> u64 {
        let Some((rate, hit, _)) = self.units() else {
            let mark = self.mark(now);
            self.newest = mark;
            self.events.push((mark, hits));
            return 0;
        };
        let missing = self.missing(now, rate) + i128::from(hits) * hit;
        self.write(now, missing);
        match self.limit.algorithm {
            // A request of n hits leaves when the last of them may.
            Algorithm::LeakyBucket { .. } => {
                let turn = missing - hit;
                (turn.max(0) as u128).div_ceil(rate as u128) as u64
            }
            _ => 0,
        }
    }

    /// Counts hits that have happened, as many as the counter keeps.
    pub fn debit(&mut self, now: u64, hits: u64) {
        let room = match (self.limit.algorithm, self.units()) {
            (_, Some((rate, hit, capacity))) => ((2 * capacity - self.missing(now, rate)).max(0) / hit) as u64,
            (Algorithm::SlidingLog, _) => (1 << 24) - 1 - self.used(now),
            _ => MAX_HITS - self.used(now).min(MAX_HITS),
        };
        if hits.min(room) > 0 {
            self.take(now, hits.min(room));
        }
    }

    /// Gives back the oldest hits that still count.
    pub fn refund(&mut self, now: u64, hits: u64) {
        if let Some((rate, hit, capacity)) = self.units() {
            if capacity > 0 {
                let missing = self.missing(now, rate).min(capacity);
                self.write(now, (missing - i128::from(hits) * hit).max(0));
            }
            return;
        }
        let mark = self.mark(now);
        let mut left = hits;
        let counted: Vec<_> = self
            .events
            .iter()
            .copied()
            .filter(|event| self.counts(now, *event))
            .collect();
        self.newest = mark;
        self.events = counted;
        self.events.retain_mut(|event| {
            let taken = left.min(event.1);
            event.1 -= taken;
            left -= taken;
            event.1 > 0
        });
        self.forget();
    }

    /// A counter with nothing left is like an unused one.
    fn forget(&mut self) {
        if self.events.iter().all(|event| event.1 == 0) {
            self.events.clear();
            self.newest = 0;
        }
    }

    /// [`debit`](Self::debit), and what is told of it: whether the hits fitted, and how things stand then.
    fn debited(&mut self, now: u64, hits: u64) -> Outcome {
        let allowed = self.fits(now, hits);
        let retry_after = self.retry_after(now, hits);
        let room = if allowed { 0 } else { self.remaining(now) };
        self.debit(now, hits);
        Outcome {
            allowed,
            remaining: self.remaining(now),
            retry_after: if allowed { RetryAfter::Now } else { retry_after },
            reset_after_us: self.reset_after(now),
            delay_us: 0,
            room,
            slice: self.newest_slice(now),
            cached: false,
        }
    }

    /// Gives back to one slice.
    pub fn return_to(&mut self, now: u64, slice: u64, hits: u64) {
        if self.units().is_some() {
            // Before it was to be full again, the bucket has not been full.
            if now < slice {
                self.refund(now, hits);
            }
            return;
        }
        let mark = self.mark(now);
        let found = |event: &&(u64, u64)| event.0 == slice && self.counts(now, **event);
        if self.events.iter().find(found).is_none()
            && !matches!(
                self.limit.algorithm,
                Algorithm::SlidingWindow { .. } | Algorithm::Concurrency
            )
        {
            return;
        }
        let mut counted: Vec<_> = self
            .events
            .iter()
            .copied()
            .filter(|event| self.counts(now, *event))
            .collect();
        let mut left = hits;
        for event in counted.iter_mut().filter(|event| event.0 == slice) {
            let taken = left.min(event.1);
            event.1 -= taken;
            left -= taken;
        }
        counted.retain(|event| event.1 > 0);
        (self.events, self.newest) = (counted, mark);
        self.forget();
    }

    /// The slice, window or microsecond of the newest hits; when a bucket is full.
    fn newest_slice(&self, now: u64) -> u64 {
        match self.units() {
            _ if self.is_full(now) => 0,
            Some(_) => now + self.reset_after(now),
            None => self.events.iter().map(|event| event.0).max().unwrap_or(0),
        }
    }

    /// The time left for hits that are leased in this slice, if they can be.
    fn left(&self, now: u64, slice: u64) -> Option<u64> {
        match self.limit.algorithm {
            Algorithm::SlidingWindow { .. } => Some(((slice + 1) * self.slices().1).saturating_sub(now)),
            Algorithm::FixedWindow => Some(((slice + 1) * self.limit.window_us).saturating_sub(now)),
            Algorithm::TokenBucket { .. } => Some(u64::MAX),
            _ => None,
        }
    }
}

fn ceil(a: i128, b: i128) -> i128 {
    (a + b - 1) / b
}

/// The time of a hit in microseconds, as 24 binary digits and an exponent.
fn pace(hit: i128, rate: i128) -> (i128, i32) {
    let of = |exponent: i32| match exponent {
        0.. => hit / (rate << exponent),
        _ => (hit << -exponent) / rate,
    };
    let exponent = (-48..64).find(|exponent| of(*exponent) < 1 << 24).expect("a time");
    (of(exponent), exponent)
}

/// All counters of a store.
#[derive(Debug, Clone, Default)]
pub struct Oracle {
    counters: HashMap<CounterKey, Counter>,
}

impl Oracle {
    fn counter(&mut self, check: &Check<Op>, now: u64) -> &mut Counter {
        let counter = self
            .counters
            .entry(check.key.clone())
            .or_insert_with(|| Counter::new(check.limit));
        counter.obey(check.limit, now);
        counter
    }

    /// Decides and counts a transaction.
    pub fn check(&mut self, now: u64, transaction: &Transaction<Op>) -> Vec<Answer> {
        // What has happened counts first.
        let mut charged: HashMap<usize, Outcome> = HashMap::new();
        for (index, check) in transaction.checks.iter().enumerate() {
            if let Op::Debit(hits) = check.hits {
                charged.insert(index, self.counter(check, now).debited(now, hits));
            }
        }
        // Then as if nothing could stop it, to see what each check comes to …
        for check in &transaction.checks {
            self.counter(check, now);
        }
        let mut trial = self.clone();
        let mut before: HashMap<CounterKey, u64> = HashMap::new();
        let judged: Vec<Answer> = transaction
            .checks
            .iter()
            .enumerate()
            .map(|(index, check)| {
                if let Some(outcome) = charged.get(&index) {
                    return (*outcome).into();
                }
                let prior = before.entry(check.key.clone()).or_default();
                let (answer, counted) = trial.judge(self, now, check, *prior);
                *prior = prior.saturating_add(counted);
                answer
            })
            .collect();
        let over = |enforcement| {
            let of_gate = transaction
                .checks
                .iter()
                .zip(&judged)
                .filter(move |(check, _)| check.enforcement == enforcement);
            of_gate.map(|(_, answer)| !answer.outcome.allowed).collect::<Vec<_>>()
        };
        let scopes: Vec<_> = (0..=u8::MAX).map(|scope| over(Enforcement::Quota(scope))).collect();
        let mut scopes = scopes.into_iter().filter(|quotas| !quotas.is_empty()).peekable();
        let passes = !over(Enforcement::Enforce).contains(&true)
            && (scopes.peek().is_none() || scopes.any(|quotas| !quotas.contains(&true)));
        // … then for good: without what is given back for those that take, …
        let mut answers = judged;
        for (check, answer) in transaction.checks.iter().zip(&mut answers) {
            if !passes && !matches!(check.hits, Op::Debit(_)) {
                let counter = self.counter(check, now);
                answer.outcome.remaining = counter.remaining(now);
                answer.outcome.reset_after_us = counter.reset_after(now);
                (answer.outcome.delay_us, answer.outcome.slice, answer.grant) = (0, 0, None);
            }
        }
        for check in &transaction.checks {
            match check.hits {
                Op::Refund(hits) => self.counter(check, now).refund(now, hits),
                Op::Return { slice, hits } => self.counter(check, now).return_to(now, slice, hits),
                _ => {}
            }
        }
        for (check, answer) in transaction.checks.iter().zip(&answers) {
            match (check.hits, answer.grant) {
                (Op::Acquire(hits), _) if passes && answer.outcome.allowed => {
                    self.counter(check, now).take(now, hits);
                }
                (Op::Lease(_), Some(grant)) => {
                    self.counter(check, now).take(now, grant.hits);
                }
                _ => {}
            }
        }
        // … and as of the end for those that give.
        for (check, answer) in transaction.checks.iter().zip(&mut answers) {
            if matches!(check.hits, Op::Refund(_) | Op::Return { .. }) {
                let counter = self.counter(check, now);
                answer.outcome.remaining = counter.remaining(now);
                answer.outcome.reset_after_us = counter.reset_after(now);
            }
        }
        answers
    }

    /// What a check comes to after the earlier ones of its transaction, and what it adds. `origin` is how things
    /// stood before the transaction.
    fn judge(&mut self, origin: &Self, now: u64, check: &Check<Op>, prior: u64) -> (Answer, u64) {
        let mut origin = origin
            .counters
            .get(&check.key)
            .cloned()
            .unwrap_or(Counter::new(check.limit));
        origin.obey(check.limit, now);
        let counter = self.counter(check, now);
        let mut outcome = Outcome {
            allowed: true,
            remaining: 0,
            retry_after: RetryAfter::Now,
            reset_after_us: 0,
            delay_us: 0,
            room: 0,
            slice: 0,
            cached: false,
        };
        let mut counted = 0;
        let mut grant = None;
        let needed = match check.hits {
            Op::Acquire(hits) => hits,
            Op::Peek | Op::Lease(_) => 1,
            Op::Debit(_) | Op::Refund(_) | Op::Return { .. } => 0,
        };
        outcome.allowed = counter.fits(now, needed);
        if !outcome.allowed {
            // The same request later needs what its earlier checks took as well.
            outcome.retry_after = origin.retry_after(now, prior.saturating_add(needed));
        }
        match check.hits {
            Op::Acquire(hits) if outcome.allowed => counted = hits,
            Op::Lease(_) if counter.left(now, 0).is_none() => {
                (outcome.allowed, outcome.retry_after) = (false, RetryAfter::Never);
            }
            Op::Lease(most) if outcome.allowed => counted = most.min(counter.remaining(now)),
            _ => {}
        }
        if counted > 0 {
            outcome.delay_us = counter.take(now, counted);
            outcome.slice = counter.newest_slice(now);
        }
        if let (Op::Lease(_), 1..) = (check.hits, counted) {
            let left_us = counter.left(now, outcome.slice).unwrap_or(0);
            grant = Some(Grant { hits: counted, left_us });
        }
        outcome.remaining = counter.remaining(now);
        outcome.reset_after_us = counter.reset_after(now);
        (Answer { outcome, grant }, counted)
    }
}
