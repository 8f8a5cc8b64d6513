//! The rate of hits of a key, by which its leases are sized.

/// Hits are counted over at least this long before they become a rate, in microseconds.
const INTERVAL_US: u64 = 100_000;
/// A key without a hit for this long is no longer in use, in microseconds.
const QUIET_US: u64 = 2 * super::MAX_LIFE_US;

/// A moving average of a key's hits, over a few intervals.
#[derive(Debug)]
pub(super) struct HitRate {
    /// Hits a second.
    rate: u64,
    seen: u64,
    since_us: u64,
    last_us: u64,
}

impl HitRate {
    pub(super) const fn new(hits: u64, now: u64) -> Self {
        Self {
            rate: 0,
            seen: hits,
            since_us: now,
            last_us: now,
        }
    }

    /// Counts hits that were requested.
    pub(super) fn record(&mut self, hits: u64, now: u64) {
        let passed = now.saturating_sub(self.since_us);
        if passed >= INTERVAL_US {
            let rate = rate(self.seen, passed);
            // The mean of the old and the new rate; the new one alone after a pause.
            self.rate = if passed < 10 * INTERVAL_US {
                u64::midpoint(self.rate, rate)
            } else {
                rate
            };
            (self.seen, self.since_us) = (0, now);
        }
        self.seen = self.seen.saturating_add(hits);
        self.last_us = now;
    }

    /// The hits to expect in this many microseconds.
    pub(super) fn hits_in(&self, us: u64) -> u64 {
        u64::try_from(u128::from(self.rate) * u128::from(us) / 1_000_000).unwrap_or(u64::MAX)
    }

    /// Whether the key is no longer in use.
    pub(super) const fn is_quiet(&self, now: u64) -> bool {
        now.saturating_sub(self.last_us) >= QUIET_US
    }
}

fn rate(hits: u64, us: u64) -> u64 {
    u64::try_from(u128::from(hits) * 1_000_000 / u128::from(us.max(1))).unwrap_or(u64::MAX)
}
