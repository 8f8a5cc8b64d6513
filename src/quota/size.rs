//! How many requests a lease is for.

use super::terms::{REPORT_TTL_S, SHORT_RENEWED_US, SHORT_TTL_S, longest_ttl_s};
use crate::model::Limit;
use crate::model::time::SECOND_US;

/// Demand is counted in requests per 1,000 s.
pub const PER_KS: u64 = 1000;
/// A lease covers the demand of so many seconds: to the next report, and some more.
const COVERED_S: u64 = 7;
/// A short lease covers so many milliseconds of demand: until it is replaced ([`SHORT_RENEWED_US`]), and a little more.
const SHORT_COVERED_MS: u64 = 565;
/// A lease that is long takes at most this part of a limit beyond what its demand is.
const IDLE_PART: u64 = 16;
/// A bucket that is new on a stream gets its share of half of what is left, or this many hits if they are no more than this
/// part of it: one Envoy may have most of the demand.
const FIRST_HITS: u64 = 32;
const FIRST_PART: u64 = 16;
/// A lease of a rate holds what it lets go in so many seconds beyond its ttl: see [`LeaseSize::rate`].
const REFILLED_S: u64 = 2;
/// A rate is kept while the stream's share is no less than it, and no more than this part of it larger.
const KEPT_PART: u64 = 8;
/// A short lease is for so many shares at most: all streams come one after the other, and what the last ones find is what waits.
const SHORT_SHARES: u64 = 4;
const _: () = assert!(
    SHORT_COVERED_MS * 1000 > SHORT_RENEWED_US,
    "it lasts until the next one"
);

/// What is known of a bucket when a lease is sized.
#[derive(Debug, Clone, Copy)]
pub struct Situation {
    /// The rule's limit.
    pub limit: Limit,
    /// Its leases refill by the second, where they can.
    pub refills: bool,
    /// Hits that are neither used nor leased.
    pub remaining: u64,
    /// Whether that was said just now: else something may have come free since.
    pub is_fresh: bool,
    /// Requests a second that the lease in force lets go; 0 = it has no rate.
    pub rate_now: u64,
    /// Requests per 1,000 s on this stream, denied ones too; `None` before the first report over some time.
    pub demand: Option<u64>,
    /// The same of all streams of this process.
    pub total_demand: u64,
    /// Streams of this process that have the bucket; before its first report, those that may have it.
    pub streams: u64,
}

/// The size of a lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeaseSize {
    /// Requests; 0 = nothing is left.
    pub hits: u64,
    /// Seconds.
    pub ttl_s: u64,
    /// Requests a second that are let go of `hits`, as many at once at most; 0 = all of them are there at once.
    pub per_second: u64,
}

impl LeaseSize {
    /// No lease.
    pub const NONE: Self = Self::at_once(0, 0);

    /// Hits that are all there at once.
    #[must_use]
    pub const fn at_once(hits: u64, ttl_s: u64) -> Self {
        Self {
            hits,
            ttl_s,
            per_second: 0,
        }
    }

    /// A rate, with all that it can come to: one second's hits at once, again if its Envoy stood still, and the rate until
    /// the lease is over.
    #[must_use]
    pub const fn rate(per_second: u64, ttl_s: u64) -> Self {
        Self {
            hits: per_second * (ttl_s + REFILLED_S),
            ttl_s,
            per_second,
        }
    }

    /// The same when so many hits were granted.
    #[must_use]
    pub const fn granted(&self, hits: u64) -> Self {
        let most = hits / (self.ttl_s + REFILLED_S);
        Self {
            hits,
            ttl_s: self.ttl_s,
            per_second: if self.per_second < most { self.per_second } else { most },
        }
    }

    /// Whether it is one of many that follow each other by the second, because the limit is nearly used up.
    #[must_use]
    pub const fn is_short(&self) -> bool {
        self.ttl_s <= SHORT_TTL_S
    }
}

impl Situation {
    /// The size of the next lease.
    #[must_use]
    pub fn size(&self) -> LeaseSize {
        let Some(demand) = self.demand else {
            let half = self.remaining / (2 * self.streams.max(1));
            return LeaseSize::at_once(half.max(FIRST_HITS.min(self.remaining / FIRST_PART)), REPORT_TTL_S);
        };
        let needs = Self::needs(demand);
        let wanted = ((demand * SHORT_COVERED_MS + PER_KS * 500) / (PER_KS * 1000)).max(1);
        if !self.is_fresh && self.remaining < needs {
            // If this is too much, the answer says what is left.
            return LeaseSize::at_once(wanted.min(self.limit.hits), SHORT_TTL_S);
        }
        let fair = self.share_of(self.remaining, demand, 1);
        if let Some(rate) = self.rate(demand, fair) {
            return rate;
        }
        if fair >= 2 * needs {
            let spare = self.limit.hits / IDLE_PART;
            return LeaseSize::at_once((fair / 2).min(needs * 4 + spare).max(needs), longest_ttl_s(&self.limit));
        }
        if fair >= needs {
            return LeaseSize::at_once(needs, REPORT_TTL_S);
        }
        let most = self.share_of(self.remaining, demand, SHORT_SHARES).max(1);
        LeaseSize::at_once(most.min(wanted).min(self.remaining), SHORT_TTL_S)
    }

    /// The stream's share of the limit's rate, if so much is left that it can be held.
    fn rate(&self, demand: u64, fair: u64) -> Option<LeaseSize> {
        if !self.refills {
            return None;
        }
        let all = u128::from(self.limit.hits) * u128::from(SECOND_US) / u128::from(self.limit.window_us.max(1));
        let share = self.share_of(u64::try_from(all).unwrap_or(u64::MAX), demand, 1);
        // Assigned again as it is, it goes on in Envoy without a new bucket.
        let is_kept = (self.rate_now..=self.rate_now.saturating_add(self.rate_now / KEPT_PART)).contains(&share);
        let rate = LeaseSize::rate(if is_kept { self.rate_now } else { share }, REPORT_TTL_S);
        (rate.per_second > 0 && rate.hits <= fair).then_some(rate)
    }

    /// Requests of this demand until the next report has been answered.
    #[must_use]
    pub const fn needs(demand: u64) -> u64 {
        demand * COVERED_S / PER_KS + 1
    }

    /// So many shares of `hits`. A stream without demand has a little, too.
    fn share_of(&self, hits: u64, demand: u64, shares: u64) -> u64 {
        let rate =
            u128::from(self.limit.hits) * u128::from(PER_KS * SECOND_US) / u128::from(self.limit.window_us.max(1));
        let streams = u128::from(self.streams.max(1));
        let little = (rate / (8 * streams)).max(1);
        let own = u128::from(demand) + little;
        let all = u128::from(self.total_demand.max(demand)) + little * streams;
        let share = u128::from(hits) * own * u128::from(shares) / all;
        u64::try_from(share).unwrap_or(u64::MAX).min(hits)
    }
}
