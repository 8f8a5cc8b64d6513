//! What to ask the store for.

use super::state::{Account, LiveLease};
use super::words::{Ends, QuotaStep};
use crate::model::time::SECOND_US;
use crate::quota::size::{LeaseSize, Situation};
use crate::quota::terms::{PROVEN_US, REPORT_US, SHORT_RENEWED_US};

/// A lease is replaced by a smaller one if it is this many times as large, and at least this many hits.
const TOO_LARGE: u64 = 4;
const WORTH_SHRINKING: u64 = 16;
/// A lease that has this little time left at a report would end before it could be renewed at the next.
const RENEWED_US: u64 = REPORT_US + 2 * SECOND_US;

impl Account {
    /// What to ask the store for now; `None` = nothing. `is_idle`: what it has is not renewed.
    #[must_use]
    pub fn step(&self, situation: &Situation, is_idle: bool, now_us: u64) -> Option<QuotaStep> {
        if self.is_frozen() {
            return self.hold_on(now_us);
        }
        if self.is_unheld {
            return Some(QuotaStep {
                settles: self.live.and_then(|live| live.hold()),
                ..self.count_owed()
            });
        }
        let may_lease = !is_idle && now_us >= self.retry_us;
        let size = situation.size();
        let wanted = LeaseSize {
            hits: size.hits.max(1),
            ..size
        };
        let none = LeaseSize::NONE;
        let new = if may_lease { wanted } else { none };
        let Some(live) = &self.live else {
            return (self.owed > 0 || new.hits > 0).then_some(QuotaStep {
                more: new,
                ..self.count_owed()
            });
        };
        let is_over = now_us >= live.end_us;
        if live.is_short {
            return self.short_step(live, new, now_us);
        }
        if let Some(step) = self.last_short(live, now_us) {
            return Some(step);
        }
        let renews = may_lease && (is_over || self.renews(live, &size, now_us));
        let more = if renews { wanted } else { none };
        // What is held for nothing is let go.
        let spare = live.stored.saturating_sub(live.held.saturating_add(self.owed));
        let lacks = live.stored < live.held && now_us >= self.retry_us;
        let frees = u64::from(spare) > WORTH_SHRINKING || live.held == 0;
        (self.owed > 0 || renews || frees || lacks).then_some(QuotaStep {
            settles: live.hold(),
            keep: live.held.into(),
            more,
            ..self.count_owed()
        })
    }

    /// A step that counts what is owed, and does nothing else.
    fn count_owed(&self) -> QuotaStep {
        QuotaStep {
            settles: None,
            used: self.owed.into(),
            keep: 0,
            more: LeaseSize::NONE,
            ends: Ends::Nothing,
        }
    }

    /// The next step while short leases follow each other: each is settled when the one after it has been in force for a
    /// while, or has not come.
    fn short_step(&self, live: &LiveLease, new: LeaseSize, now_us: u64) -> Option<QuotaStep> {
        let is_over = now_us >= live.end_us;
        let is_next = now_us >= live.sent_us + SHORT_RENEWED_US && new.hits > 0;
        if let Some(previous) = self.previous()
            && (is_next || is_over)
        {
            return Some(QuotaStep {
                settles: Some(previous.id),
                used: u64::from(self.owed) + u64::from(previous.hits),
                more: new,
                ends: Ends::Previous,
                ..self.count_owed()
            });
        }
        if is_over {
            return Some(QuotaStep {
                settles: Some(live.id),
                used: u64::from(self.owed) + u64::from(live.held),
                more: new,
                ends: Ends::Live,
                ..self.count_owed()
            });
        }
        is_next.then_some(QuotaStep {
            more: new,
            ends: Ends::Previous,
            ..self.count_owed()
        })
    }

    /// The last short lease before one that is not: settled like the others, or reports would be taken for its hits for ever.
    fn last_short(&self, live: &LiveLease, now_us: u64) -> Option<QuotaStep> {
        let previous = self.previous().filter(|_| now_us >= live.sent_us + SHORT_RENEWED_US)?;
        Some(QuotaStep {
            settles: Some(previous.id),
            used: u64::from(self.owed) + u64::from(previous.hits),
            ends: Ends::Previous,
            ..self.count_owed()
        })
    }

    /// Whether a lease that is not short is replaced before it ends.
    fn renews(&self, live: &LiveLease, size: &LeaseSize, now_us: u64) -> bool {
        let held = u64::from(live.held);
        let needs = Situation::needs(self.demand.into());
        let is_small = self.has_demand && held < needs;
        let ends = live.end_us < now_us + RENEWED_US;
        // A short one would leave out what this one still has.
        let is_better = !size.is_short() || size.hits > held;
        let is_large = self.has_demand && held > WORTH_SHRINKING && held > size.hits.saturating_mul(TOO_LARGE);
        let is_new = now_us < live.sent_us + PROVEN_US;
        size.hits > 0 && !is_new && ((is_small || ends) && is_better || is_large)
    }

    /// Renews what an Envoy holds that does not report: first the hold, which takes its own place; then what was settled, which
    /// is counted even where nothing is left, since it may be used later than it was counted.
    fn hold_on(&self, now_us: u64) -> Option<QuotaStep> {
        if now_us < self.retry_us {
            return None;
        }
        let live = self.live.filter(|live| live.held > 0 && !self.is_held);
        let used = if live.is_some() { 0 } else { self.settled };
        let step = QuotaStep {
            settles: live.and_then(|live| live.hold()),
            used: u64::from(self.owed) + u64::from(used),
            keep: live.map_or(0, |live| live.held.into()),
            ..self.count_owed()
        };
        (live.is_some() || step.used > 0).then_some(step)
    }
}
