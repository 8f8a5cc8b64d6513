//! What is kept of a bucket.

use crate::model::HoldId;
use crate::quota::terms::SHORT_RENEWED_US;

/// A time that is told apart from others of the last four years, and not finer than to 2^16 microseconds.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct CoarseTime(u32);

impl CoarseTime {
    const SHIFT: u32 = 16;

    /// The first one that is not before a time.
    pub(super) fn after(at_us: u64) -> Self {
        Self::at(at_us.div_ceil(1 << Self::SHIFT))
    }

    /// Microseconds from then until now, or a little less.
    pub(super) fn until(self, now_us: u64) -> u64 {
        let ticks = Self::at(now_us >> Self::SHIFT).0.wrapping_sub(self.0);
        // More than half of all is a time to come.
        let is_past = ticks <= u32::MAX / 2;
        if is_past { u64::from(ticks) << Self::SHIFT } else { 0 }
    }

    fn at(ticks: u64) -> Self {
        Self(u32::try_from(ticks & u64::from(u32::MAX)).unwrap_or(0))
    }
}

/// What an Envoy that does not report may still use is renewed after half a window, within these bounds, in microseconds.
const MIN_RENEWED_US: u32 = 5_000_000;
const MAX_RENEWED_US: u32 = 300_000_000;

/// The account of one bucket on one stream. There are millions of them, so they are small: hits fit 32 bits, as those of any
/// limit do, and what most buckets do without is apart.
#[derive(Debug, Default)]
pub struct Account {
    pub(super) live: Option<LiveLease>,
    pub(super) short: Option<Box<ShortLeases>>,
    /// What leases had left when others took their place: in the hold of the one in force, and void once that has arrived.
    pub(super) rest: u32,
    /// When the last of them was replaced.
    pub(super) rest_at: CoarseTime,
    /// Requests that were admitted without a lease, to be counted.
    pub(super) owed: u32,
    /// Requests per 1,000 s, denied ones too.
    pub(super) demand: u32,
    pub(super) has_demand: bool,
    /// Its Envoy may have stopped: what it has been given stays held, and is renewed this often, in microseconds; 0 = it
    /// reports.
    pub(super) renewed_every_us: u32,
    /// Of a stopped one, what it may still use of leases that were settled: counted as used anew in each round.
    pub(super) settled: u32,
    /// What may still be used is not held, and is to be counted at once: it is in `owed`.
    pub(super) is_unheld: bool,
    /// Of a stopped one: the hold has been renewed in this round.
    pub(super) is_held: bool,
    /// When a request was last reported.
    pub(super) used_at: CoarseTime,
    /// When to ask again after a denial; 0 = it was not denied.
    pub(super) retry_us: u64,
}

/// The lease in force, with what may still be used of the one before it.
#[derive(Debug, Clone, Copy)]
pub(super) struct LiveLease {
    pub(super) id: HoldId,
    /// What its hold keeps in the store.
    pub(super) stored: u32,
    /// What may still be used.
    pub(super) held: u32,
    /// Tokens of the last assignment.
    pub(super) sent: u32,
    pub(super) sent_us: u64,
    pub(super) end_us: u64,
    /// Where its Envoy stood still, it may have come to it only then: it is in force until this time at most; 0 = `end_us`.
    pub(super) late_end_us: u64,
    /// Most that it may have used before the last report.
    pub(super) used: u32,
    /// It is settled in full when it ends; others when a report says what was used.
    pub(super) is_short: bool,
    /// Requests a second that it lets go; 0 = all of it was there at once.
    pub(super) per_second: u32,
}

impl LiveLease {
    /// A lease of so many hits, all of them held, that are there at once.
    pub(super) const fn new(id: HoldId, hits: u32, sent_us: u64, end_us: u64) -> Self {
        Self {
            id,
            stored: hits,
            held: hits,
            sent: hits,
            sent_us,
            end_us,
            late_end_us: 0,
            used: 0,
            is_short: false,
            per_second: 0,
        }
    }

    /// Its hold, unless the store has none.
    pub(super) fn hold(&self) -> Option<HoldId> {
        (self.stored > 0).then_some(self.id)
    }
}

/// Short leases that the one in force has taken the place of.
#[derive(Debug, Default)]
pub(super) struct ShortLeases {
    /// The one before it: over, but perhaps not for long enough.
    pub(super) previous: Option<PreviousLease>,
    /// Those that have ended since the last report.
    pub(super) ended: Vec<EndedLease>,
    /// Most that the leases in `ended` may have used before the last report.
    pub(super) ended_used: u32,
}

/// A short lease that another has taken the place of; it has a hold of its own.
#[derive(Debug, Clone, Copy)]
pub(super) struct PreviousLease {
    pub(super) id: HoldId,
    pub(super) hits: u32,
    /// Most that it may have used before the last report.
    pub(super) used: u32,
}

/// What is leased to a bucket, as others may see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeaseStand {
    /// Requests of the newest assignment.
    pub granted: u64,
    /// Requests that were reported since, of this lease or of the one before it.
    pub used: u64,
    /// Requests that may still be used; they count as held.
    pub held: u64,
    /// When it is over; what it holds stays held until a report says what was used.
    pub end_us: u64,
}

/// A lease that has ended and was settled in full.
#[derive(Debug, Clone, Copy)]
pub(super) struct EndedLease {
    pub(super) slice: u64,
    pub(super) hits: u32,
}

/// Hits as an account keeps them.
pub(super) fn small(hits: u64) -> u32 {
    u32::try_from(hits).unwrap_or(u32::MAX)
}

impl Account {
    /// The account of a bucket that is new on its stream.
    #[must_use]
    pub fn new(now_us: u64) -> Self {
        Self {
            used_at: CoarseTime::after(now_us),
            ..Self::default()
        }
    }

    /// Another limit applies from now on: what was leased ends with its hold, what is owed was owed to another counter.
    pub fn restart(&mut self, now_us: u64) {
        let (demand, has_demand) = (self.demand, self.has_demand);
        *self = Self {
            demand,
            has_demand,
            ..Self::new(now_us)
        };
    }

    /// Leases nothing before this time.
    pub const fn wait_until(&mut self, at_us: u64) {
        self.retry_us = at_us;
    }

    /// Hits that nobody has counted: they are, by the next step.
    pub fn owe(&mut self, hits: u64) {
        self.owed = self.owed.saturating_add(small(hits));
    }

    /// Requests per 1,000 s; `None` before a report that covers some time.
    #[must_use]
    pub fn demand(&self) -> Option<u64> {
        self.has_demand.then_some(self.demand.into())
    }

    /// Requests a second that the lease in force lets go; 0 = it has no rate, or there is none.
    #[must_use]
    pub fn rate(&self) -> u64 {
        self.live.as_ref().map_or(0, |live| live.per_second.into())
    }

    /// When to come again without a report; `None` = not before one.
    #[must_use]
    pub fn due_us(&self) -> Option<u64> {
        let retry_us = (self.retry_us > 0).then_some(self.retry_us);
        if self.is_unheld {
            return retry_us;
        }
        match &self.live {
            Some(live) if live.is_short && !self.is_frozen() => {
                let next_us = self.retry_us.max(live.sent_us + SHORT_RENEWED_US);
                Some(next_us.min(live.end_us))
            }
            // One that is over stays held until a report says what was used.
            Some(live) if !self.is_frozen() => {
                let last_short_us = self.previous().map(|_| live.sent_us + SHORT_RENEWED_US);
                let over_us = self.retry_us.max(live.end_us);
                Some(last_short_us.map_or(over_us, |at_us| at_us.min(over_us)))
            }
            _ => retry_us,
        }
    }

    /// For how long no request was reported, in microseconds.
    #[must_use]
    pub fn idle_us(&self, now_us: u64) -> u64 {
        self.used_at.until(now_us)
    }

    /// Whether nothing is leased that could be lost.
    #[must_use]
    pub fn is_bare(&self) -> bool {
        self.live.is_none() && self.short.is_none() && self.settled == 0 && self.owed == 0
    }

    /// What is leased; `None` = nothing.
    #[must_use]
    pub fn lease(&self) -> Option<LeaseStand> {
        let previous = self.previous();
        let before = u64::from(self.settled) + previous.map_or(0, |previous| previous.hits.into());
        match (&self.live, before) {
            (Some(live), _) => Some(LeaseStand {
                granted: live.sent.into(),
                used: live.used.into(),
                held: before + u64::from(live.held),
                end_us: live.end_us,
            }),
            (None, 1..) => Some(LeaseStand {
                granted: before,
                used: previous.map_or(0, |previous| previous.used.into()),
                held: before,
                end_us: 0,
            }),
            _ => None,
        }
    }

    /// Its Envoy may have stopped: all that it may still use stays held, also what has been settled since its last report.
    /// Holds outlast a window by more than half of one.
    pub fn freeze(&mut self, window_us: u64, now_us: u64) {
        if self.is_bare() || self.is_frozen() {
            return;
        }
        let half_us = u32::try_from(window_us / 2).unwrap_or(MAX_RENEWED_US);
        self.renewed_every_us = half_us.clamp(MIN_RENEWED_US, MAX_RENEWED_US);
        self.retry_us = now_us;
        if let Some(short) = &mut self.short {
            // The hold of the one before lasts on by itself.
            let previous = short.previous.take().map_or(0, |previous| previous.hits);
            let ended = short.ended.iter().map(|ended| ended.hits);
            self.settled = ended.fold(previous, u32::saturating_add);
        }
    }

    /// The short lease before the one in force.
    pub(super) fn previous(&self) -> Option<PreviousLease> {
        self.short.as_ref()?.previous
    }

    /// Whether its Envoy may have stopped.
    #[must_use]
    pub const fn is_frozen(&self) -> bool {
        self.renewed_every_us > 0
    }

    /// Whether something is to be counted at once, so that nobody leases it meanwhile.
    #[must_use]
    pub const fn is_urgent(&self) -> bool {
        self.is_unheld || self.is_frozen() && self.is_held && self.settled > 0
    }
}
