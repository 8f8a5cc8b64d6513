//! What a report of Envoy says of a bucket.

use super::state::{Account, small};
use super::words::UnusedHits;
use crate::model::time::SECOND_US;
use crate::quota::size::PER_KS;
use crate::quota::terms::{PROVEN_US, REPORT_TTL_S, life_us};

impl Account {
    /// Takes in a report of requests since the last one; what it proves unused.
    pub fn report(&mut self, elapsed_us: u64, allowed: u64, denied: u64, now_us: u64) -> Vec<UnusedHits> {
        self.demanded(elapsed_us, allowed + denied, now_us);
        let ended: u64 = self.ended.iter().map(|ended| u64::from(ended.hits)).sum();
        let mut unused = ended.saturating_sub(allowed + u64::from(self.ended_used));
        let mut returned = Vec::new();
        // The oldest first: what stays must not count for less long than it may have been used.
        for ended in self.ended.drain(..) {
            let hits = unused.min(u64::from(ended.hits));
            if hits > 0 && ended.slice > 0 {
                returned.push(UnusedHits {
                    slice: ended.slice,
                    hits,
                });
            }
            unused -= hits;
        }
        self.ended_used = 0;
        let previous = self.previous.as_mut().map_or(0, |previous| {
            previous.used = previous.used.saturating_add(small(allowed)).min(previous.hits);
            previous.hits
        });
        let others = ended + u64::from(previous);
        self.used_of_live(allowed, allowed.saturating_sub(others), now_us);
        self.frozen = false;
        returned
    }

    /// Notes what the lease in force has used: at most `most`, at least `least` requests.
    fn used_of_live(&mut self, most: u64, least: u64, now_us: u64) {
        let mut owed = small(least);
        if let Some(live) = &mut self.live {
            live.used = live.used.saturating_add(small(most)).min(live.sent);
            if self.frozen {
                // What waited in it while it stood still is on its way: the reports to come will tell.
                (live.end_us, live.sent) = (now_us + life_us(REPORT_TTL_S), live.held);
                (live.is_short, live.per_second) = (false, 0);
            }
            if live.is_short {
                // All of it is going to be settled.
                owed = owed.saturating_sub(live.held);
            } else {
                live.held = live.held.saturating_sub(owed);
                self.rests.retain(|rest| now_us < rest.sent_us + PROVEN_US);
                let rests = self.rests.iter().map(|rest| rest.hits).fold(0, u32::saturating_add);
                let sent = if now_us < live.end_us { live.sent } else { 0 };
                live.held = live.held.min(sent.saturating_add(rests));
            }
        }
        self.owed = self.owed.saturating_add(owed);
    }

    fn demanded(&mut self, elapsed_us: u64, requests: u64, now_us: u64) {
        if requests > 0 {
            self.used_us = now_us;
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
