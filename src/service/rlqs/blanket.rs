//! What Envoy is told without a counter, and the end of buckets that nobody uses.

use super::session::Session;
use super::table::{Applies, BucketEntry};
use crate::algorithms::quota;
use crate::model::time::SECOND_US;
use crate::quota::account::Assignment;
use crate::quota::terms::REPORT_US;

/// Ttl of what does not depend on a counter, in seconds.
const BLANKET_TTL_S: u64 = 300;
/// A bucket is not used for so long, or for a window, before it is abandoned, in microseconds.
const IDLE_US: u64 = 60 * SECOND_US;

impl Session {
    /// Tells Envoy what does not depend on a counter, or abandons a bucket that is not used. Whether that is all.
    pub(super) fn blanket(&mut self, place: u32, now_us: u64) -> bool {
        let Some(entry) = self.table.get_mut(place) else {
            return true;
        };
        let idle_us = entry.account.idle_us(now_us);
        let (assignment, is_done, is_idle) = match &entry.applies {
            Applies::Unlimited => (Assignment::Allow { ttl_s: BLANKET_TTL_S }, true, idle_us >= IDLE_US),
            Applies::NotLeasable => (Assignment::Deny { ttl_s: BLANKET_TTL_S }, true, idle_us >= IDLE_US),
            Applies::Counted(shared) => {
                let is_idle = idle_us >= idle_after_us(shared.counter.limit.window_us) && entry.account.is_bare();
                let ban = quota(&shared.counter.limit) == 0;
                match (ban, shared.counter.is_shadow) {
                    (_, true) => (Assignment::Allow { ttl_s: BLANKET_TTL_S }, false, is_idle),
                    (true, _) => (Assignment::Deny { ttl_s: BLANKET_TTL_S }, true, is_idle),
                    _ => (Assignment::Nothing, false, is_idle),
                }
            }
        };
        if is_idle {
            self.abandon(place);
            return true;
        }
        if assignment != Assignment::Nothing && entry.told_until_us < now_us + 2 * REPORT_US {
            entry.told_until_us = now_us + BLANKET_TTL_S * SECOND_US;
            self.actions.assign(&entry.id, &assignment);
        }
        is_done
    }

    fn abandon(&mut self, place: u32) {
        if let Some(entry) = self.table.remove(place) {
            self.actions.abandon(&entry.id);
            self.forget(&entry);
        }
    }

    pub(super) fn forget(&self, entry: &BucketEntry) {
        self.parts.drop_bucket();
        if let Applies::Counted(shared) = &entry.applies {
            shared
                .hits
                .written_off
                .inc_by(entry.account.lease().map_or(0, |lease| lease.held));
            self.parts.shared.leave(shared, entry.account.demand().unwrap_or(0));
        }
    }
}

/// How long a bucket of this window is not used before it is abandoned. Never less than a window: Envoy has forgotten it
/// then, and tells it as new if it comes again.
pub(super) fn idle_after_us(window_us: u64) -> u64 {
    window_us.max(IDLE_US)
}
