//! What a report of Envoy says of a bucket.

use super::state::{Account, CoarseTime, EndedLease, LiveLease, small};
use super::words::UnusedHits;
use crate::model::HoldId;
use crate::model::time::SECOND_US;
use crate::quota::size::PER_KS;
use crate::quota::terms::{PROVEN_US, REPORT_TTL_S, life_us};

impl Account {
    /// Takes in a report of requests since the last one; what it proves unused.
    pub fn report(&mut self, elapsed_us: u64, allowed: u64, denied: u64, now_us: u64) -> Vec<UnusedHits> {
        self.demanded(elapsed_us, allowed.saturating_add(denied), now_us);
        let (leases, ended_used) = self.take_ended();
        let ended: u64 = leases.iter().map(|ended| u64::from(ended.hits)).sum();
        // What a stopped one has used may be later than it was counted: it is counted now. So is what was used where a lease that
        // is not short has followed short ones: it may all be of that lease, and those were settled before.
        let is_frozen = self.is_frozen();
        let is_late = is_frozen || self.live.as_ref().is_some_and(|live| !live.is_short);
        let known = u64::from(ended_used) + if is_late { 0 } else { allowed };
        let mut unused = ended.saturating_sub(known);
        let mut returned = Vec::new();
        // The oldest first: what stays must not count for less long than it may have been used.
        for ended in leases {
            let hits = unused.min(u64::from(ended.hits));
            if hits > 0 && ended.slice > 0 {
                returned.push(UnusedHits {
                    slice: ended.slice,
                    hits,
                });
            }
            unused -= hits;
        }
        let previous = self.short.as_mut().and_then(|short| short.previous.as_mut());
        if let Some(previous) = previous.filter(|_| !is_late) {
            previous.used = previous.used.saturating_add(small(allowed)).min(previous.hits);
        }
        let previous = self.previous().map_or(0, |previous| u64::from(previous.hits));
        let least = allowed.saturating_sub(if is_frozen { 0 } else { ended + previous });
        self.regain(now_us);
        self.used_of_live(allowed, least, if is_late { allowed } else { least }, now_us);
        (self.renewed_every_us, self.is_held) = (0, false);
        returned
    }

    /// Takes the leases that have ended since the last report, and the most that they may have used before it.
    fn take_ended(&mut self) -> (Vec<EndedLease>, u32) {
        let Some(short) = &mut self.short else {
            return (Vec::new(), 0);
        };
        let ended = (std::mem::take(&mut short.ended), std::mem::take(&mut short.ended_used));
        if short.previous.is_none() {
            self.short = None;
        }
        ended
    }

    /// An Envoy that stood still may have leases on their way to it that were settled meanwhile: they are held again, and the
    /// reports to come will tell.
    fn regain(&mut self, now_us: u64) {
        if !self.is_frozen() {
            return;
        }
        self.retry_us = 0;
        let settled = std::mem::take(&mut self.settled);
        match &mut self.live {
            Some(live) => live.held = live.held.saturating_add(settled),
            None if settled == 0 => {}
            None => {
                self.live = Some(LiveLease {
                    stored: 0,
                    ..LiveLease::new(HoldId::new(now_us, [0; 9]), settled, now_us, now_us)
                });
            }
        }
    }

    /// Notes what the lease in force has used: at most `most`, at least `least` requests; `owed` of all are not counted yet.
    fn used_of_live(&mut self, most: u64, least: u64, owed: u64, now_us: u64) {
        let mut owed = small(owed);
        if let Some(live) = &mut self.live {
            live.used = live.used.saturating_add(small(most)).min(live.sent);
            if self.renewed_every_us > 0 {
                // What waited in it while it stood still is on its way: the reports to come will tell. This may be the lease
                // itself, which then lasts as long as ever; it is renewed as if it had not waited.
                live.late_end_us = now_us + live.end_us.saturating_sub(live.sent_us);
                (live.end_us, live.sent) = (live.end_us.max(now_us + life_us(REPORT_TTL_S)), live.held);
                (live.is_short, live.per_second) = (false, 0);
            }
            if live.is_short {
                // All of it is going to be settled.
                owed = owed.saturating_sub(live.held);
            } else {
                live.held = live.held.saturating_sub(small(least));
                if self.rest_at.until(now_us) >= PROVEN_US {
                    self.rest = 0;
                }
                let sent = if now_us < live.end_us.max(live.late_end_us) {
                    live.sent
                } else {
                    0
                };
                live.held = live.held.min(sent.saturating_add(self.rest));
            }
        }
        self.owed = self.owed.saturating_add(owed);
    }

    fn demanded(&mut self, elapsed_us: u64, requests: u64, now_us: u64) {
        if requests > 0 {
            self.used_at = CoarseTime::after(now_us);
        }
        // The first report of a bucket comes with its first request and covers no time.
        if elapsed_us < SECOND_US / 4 {
            return;
        }
        let new = u128::from(requests) * u128::from(PER_KS * SECOND_US) / u128::from(elapsed_us);
        let new = u32::try_from(new).unwrap_or(u32::MAX);
        // What grows is believed at once, what shrinks by half.
        self.demand = if self.has_demand && new < self.demand {
            new.midpoint(self.demand)
        } else {
            new
        };
        self.has_demand = true;
    }
}
