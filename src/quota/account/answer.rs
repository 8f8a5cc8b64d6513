//! What the store has made of a step.

use super::state::{Account, CoarseTime, EndedLease, LiveLease, PreviousLease, small};
use super::words::{Assignment, Ends, QuotaStand, QuotaStep};
use crate::model::time::SECOND_US;
use crate::quota::size::LeaseSize;
use crate::quota::terms::{REPORT_TTL_S, REPORT_US, SHORT_TTL_S, life_us};
use crate::rules::OnStoreError;

/// Leases that ended since the last report and are kept apart; what more of them leave unused is not returned.
const MAX_ENDED: usize = 8;

impl Account {
    /// Takes in what the store has made of a step, which was sent at `sent_us`. `poll_us`: the longest wait after a denial, in
    /// which others may give something back.
    pub fn answered(&mut self, step: &QuotaStep, stand: &QuotaStand, sent_us: u64, poll_us: u64) -> Assignment {
        self.owed = small(step.keep.saturating_sub(stand.kept));
        let before = self.live.take();
        if let Some(failure) = stand.failure {
            return self.failed(step, stand, failure, sent_us);
        }
        if !self.is_frozen() && (self.owed > 0 || self.is_unheld) {
            self.unheld(step, stand, before, sent_us);
            return Assignment::Nothing;
        }
        let got = step.more.hits > 0 && stand.got > 0;
        let is_denied = step.more.hits > 0 && !got;
        self.retry_us = if is_denied {
            sent_us + stand.retry_after_us.clamp(1, poll_us)
        } else {
            0
        };
        let kept = match step.ends {
            Ends::Nothing => before,
            Ends::Live => {
                before
                    .iter()
                    .for_each(|live| self.end(live.held, live.used, stand.slice));
                None
            }
            Ends::Previous => {
                let previous = self.short.as_mut().and_then(|short| short.previous.take());
                if let Some(lease) = previous {
                    self.end(lease.hits, lease.used, stand.slice);
                }
                if !got {
                    self.live = before;
                    return Assignment::Nothing;
                }
                if let Some(live) = before {
                    self.short.get_or_insert_default().previous = Some(PreviousLease {
                        id: live.id,
                        hits: live.held,
                        used: live.used,
                    });
                }
                None
            }
        };
        if self.is_frozen() {
            self.renewed(step, stand, kept, sent_us);
            return Assignment::Nothing;
        }
        if got {
            self.leased(step, stand, kept.as_ref(), sent_us)
        } else if stand.kept > 0 {
            self.kept(stand, kept, sent_us);
            Assignment::Nothing
        } else if step.more.hits == 0 {
            Assignment::Nothing
        } else {
            Assignment::Deny {
                ttl_s: stand.retry_after_us / SECOND_US + 2 * REPORT_TTL_S,
            }
        }
    }

    /// What an Envoy holds that does not report was renewed: its hold, or what had been settled.
    fn renewed(&mut self, step: &QuotaStep, stand: &QuotaStand, kept: Option<LiveLease>, sent_us: u64) {
        if step.keep > 0 {
            // What the store did not keep is counted instead.
            self.settled = self.settled.saturating_add(std::mem::take(&mut self.owed));
            if stand.kept > 0 {
                self.kept(stand, kept, sent_us);
            }
            (self.is_held, self.retry_us) = (true, sent_us);
            if self.settled > 0 {
                return;
            }
        } else {
            self.live = kept;
            self.end(small(step.used), 0, stand.slice);
        }
        (self.is_held, self.retry_us) = (false, sent_us + u64::from(self.renewed_every_us));
    }

    /// The store has no room to hold what may still be used, since more than the limit is counted, or the limit was lowered:
    /// it is counted as used, at once and in place of a new lease. Later steps try to hold it again.
    fn unheld(&mut self, step: &QuotaStep, stand: &QuotaStand, before: Option<LiveLease>, sent_us: u64) {
        self.is_unheld = !self.is_unheld && self.owed > 0;
        self.live = before.map(|live| LiveLease {
            id: stand.id,
            stored: if self.is_unheld {
                small(stand.kept + stand.got)
            } else {
                0
            },
            is_short: false,
            ..live
        });
        self.retry_us = sent_us + if self.is_unheld { 0 } else { REPORT_US };
        if step.ends != Ends::Nothing
            && let Some(short) = &mut self.short
        {
            short.previous = None;
        }
    }

    /// There is a new lease.
    fn leased(&mut self, step: &QuotaStep, stand: &QuotaStand, kept: Option<&LiveLease>, sent_us: u64) -> Assignment {
        let size = step.more.granted(stand.got);
        let goes_on = kept.is_some_and(|live| u64::from(live.per_second) == size.per_second && size.per_second > 0);
        let held = small(stand.kept + stand.got);
        let rest = kept.map_or(0, |live| live.held).min(small(stand.kept));
        self.rest(rest, sent_us);
        self.live = Some(LiveLease {
            sent: small(stand.got),
            is_short: size.is_short() && stand.kept == 0,
            per_second: small(size.per_second),
            ..LiveLease::new(stand.id, held, sent_us, sent_us + life_us(size.ttl_s))
        });
        if goes_on {
            Assignment::Extend(size)
        } else {
            Assignment::Lease(size)
        }
    }

    /// The lease before goes on, with a new hold of what it may still use.
    fn kept(&mut self, stand: &QuotaStand, before: Option<LiveLease>, sent_us: u64) {
        let held = small(stand.kept);
        let end_us = sent_us + life_us(REPORT_TTL_S);
        let known = before.unwrap_or(LiveLease::new(stand.id, held, sent_us, end_us));
        self.live = Some(LiveLease {
            id: stand.id,
            stored: held,
            held,
            ..known
        });
    }

    /// The store did not answer. What was leased before is taken for used, and what is leased meanwhile is short.
    fn failed(&mut self, step: &QuotaStep, stand: &QuotaStand, failure: OnStoreError, sent_us: u64) -> Assignment {
        (self.short, self.rest) = (None, 0);
        // Local counters have counted what is kept.
        self.owed = if failure == OnStoreError::Local {
            0
        } else {
            small(step.keep)
        };
        if failure == OnStoreError::Local && stand.got > 0 {
            self.retry_us = 0;
            let end_us = sent_us + life_us(SHORT_TTL_S);
            self.live = Some(LiveLease {
                is_short: true,
                ..LiveLease::new(stand.id, small(stand.got), sent_us, end_us)
            });
            return Assignment::Lease(LeaseSize::at_once(stand.got, SHORT_TTL_S));
        }
        self.retry_us = sent_us + stand.retry_after_us.clamp(1, SECOND_US);
        if failure == OnStoreError::Allow {
            return Assignment::Allow { ttl_s: REPORT_TTL_S };
        }
        Assignment::Deny {
            ttl_s: 2 * REPORT_TTL_S,
        }
    }

    /// A lease has ended, and all of it was settled.
    fn end(&mut self, hits: u32, used: u32, slice: u64) {
        let short = self.short.get_or_insert_default();
        short.ended_used = short.ended_used.saturating_add(used);
        if short.ended.len() < MAX_ENDED {
            short.ended.push(EndedLease { slice, hits });
        } else if let Some(last) = short.ended.last_mut() {
            // Not returned, since its slice is not known; counted where a report is compared with what was leased.
            last.hits = last.hits.saturating_add(hits);
            last.slice = 0;
        }
    }

    /// A lease was replaced with so much left.
    fn rest(&mut self, hits: u32, sent_us: u64) {
        if hits > 0 {
            (self.rest, self.rest_at) = (self.rest.saturating_add(hits), CoarseTime::after(sent_us));
        }
    }
}
