//! One limit by its definition: every admitted hit is remembered, and times are found by trying.

use sluicegate::algorithms::limit::MAX_HITS;
use sluicegate::model::time::SECOND_US;
use sluicegate::model::{Algorithm, Holds, Limit, Outcome, RetryAfter};

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

    /// Goes on under a rule whose numbers may have changed: what was used carries over, in hits.
    pub fn obey(&mut self, limit: Limit, now: u64) {
        self.cut_anew(limit, now);
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

    /// Marks events by the slices or windows of another limit, as of the latest time at which they can have been counted.
    fn cut_anew(&mut self, limit: Limit, now: u64) {
        let other = Self::new(limit);
        let (had, length) = match self.limit.algorithm {
            Algorithm::SlidingWindow { .. } | Algorithm::Concurrency => (self.slices(), other.slices().1),
            Algorithm::FixedWindow => ((1, self.limit.window_us), limit.window_us),
            _ => return,
        };
        let is_same = match self.limit.algorithm {
            Algorithm::FixedWindow => had.1 == length,
            _ => had == other.slices(),
        };
        if is_same || self.events.is_empty() {
            return;
        }
        let counted = |event: &(u64, u64)| match self.limit.algorithm {
            // A window that has ended is over, whatever the clock of others says.
            Algorithm::FixedWindow => event.0 == self.newest && (event.0 + 1) * had.1 > now,
            _ => self.counts(now, *event),
        };
        let events: Vec<_> = self.events.iter().copied().filter(counted).collect();
        let mark = |old: u64| match self.limit.algorithm {
            Algorithm::FixedWindow => now / length,
            _ => ((old + 1) * had.1 - 1).min(now.max(old * had.1)) / length,
        };
        let newest = mark(self.newest);
        self.events = events.iter().map(|event| (mark(event.0), event.1)).collect();
        self.newest = newest;
        // What the new window does not reach is gone for good.
        if !matches!(self.limit.algorithm, Algorithm::FixedWindow) {
            let slices = other.slices().0;
            self.events.retain(|event| event.0 + slices >= newest);
        }
        self.forget();
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
            // By the last second of it.
            Algorithm::CalendarWindow(calendar) => self.newest.max(calendar.window_at(now).end_s - 1),
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

    pub fn fits(&self, now: u64, hits: u64) -> bool {
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
    pub fn debited(&mut self, now: u64, hits: u64) -> Outcome {
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
            holds: Holds::default(),
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
    pub fn newest_slice(&self, now: u64) -> u64 {
        match self.units() {
            _ if self.is_full(now) => 0,
            Some(_) => now + self.reset_after(now),
            None => self.events.iter().map(|event| event.0).max().unwrap_or(0),
        }
    }

    /// The time left for hits that are leased in this slice, if they can be.
    pub fn left(&self, now: u64, slice: u64) -> Option<u64> {
        match self.limit.algorithm {
            Algorithm::SlidingWindow { .. } => Some(((slice + 1) * self.slices().1).saturating_sub(now)),
            Algorithm::FixedWindow => Some(((slice + 1) * self.limit.window_us).saturating_sub(now)),
            Algorithm::CalendarWindow(_) => Some(((slice + 1) * SECOND_US).saturating_sub(now)),
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
