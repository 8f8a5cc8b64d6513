//! Counters in this process' memory that stand by for the shared store (`on_store_error: local`).
//!
//! They take over without giving every key a new quota, and hand over without forgetting what they admitted:
//!
//! - *While the shared store answers*, [`Follow`] notes here what it has counted for this replica, and at least this
//!   replica's part of what it says is used by all.
//! - *While it does not*, [`Standby::decide`] decides by these counters, with this replica's part of each limit, and
//!   notes what it admits as owed to the shared store.
//! - *When it is back*, what is owed is charged to it: before it decides anything again if its circuit was open, but for
//!   a bounded time; what is left, or owed while it was closed, before the key's next call or by [`settle_forever`],
//!   whichever comes first. A call of a key whose debt is on its way waits until that has arrived.
//!
//! So a replica that is alone never passes a limit at these seams (but for calls under way at that moment), and several
//! pass it only by what one has not heard of the others. A charge whose answer is lost is made again: that denies too
//! many, never too few. Each debt is a call of its own (they leave together), so that one key's or one server's failure says
//! nothing of the others.

mod follow;
mod owed;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use self::owed::Owed;
use super::change::{Change, for_each_change};
use super::{MemoryStore, Outcomes, StoreError};
use crate::algorithms::{limit, quota};
use crate::model::{AlgorithmKind, Check, Enforcement, Hits, Limit, Outcome, Transaction};

pub use self::follow::{Follow, settle_forever};

/// See the module's docs.
#[derive(Debug)]
pub struct Standby {
    memory: Arc<MemoryStore>,
    /// Each of so many replicas enforces its part of a limit; at least 1.
    replicas: u32,
    owed: Owed,
    /// Whether some rule in force would ask these counters.
    wanted: AtomicBool,
}

/// What has become of a call that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It was not carried out.
    NotDone,
    /// It may have been.
    Unknown,
}

impl Fate {
    /// By the error that it failed with.
    #[must_use]
    pub const fn of(error: &StoreError) -> Self {
        if error.may_have_counted() {
            Self::Unknown
        } else {
            Self::NotDone
        }
    }
}

impl Standby {
    /// Counters in `memory`, for one of `replicas`.
    #[must_use]
    pub fn new(memory: Arc<MemoryStore>, replicas: u32) -> Self {
        Self {
            memory,
            replicas: replicas.max(1),
            owed: Owed::default(),
            wanted: AtomicBool::new(true),
        }
    }

    /// Whether any rule may want these counters; if none does, they are not kept.
    pub fn set_wanted(&self, wanted: bool) {
        self.wanted.store(wanted, Relaxed);
    }

    /// Decides and counts in place of the shared store, with this replica's part of each limit. `fate` is that of the
    /// call that the store failed.
    #[must_use]
    pub fn decide(&self, transaction: &Transaction, fate: Fate) -> Outcomes {
        let part = |check: &Check| Check {
            limit: limit::share(&check.limit, self.replicas),
            ..check.clone()
        };
        let outcomes = self.memory.check_now(&Transaction {
            checks: transaction.checks.iter().map(part).collect(),
            deadline: transaction.deadline,
            exact: true,
        });
        for_each_change(transaction, &outcomes, |check, _, change| self.owe(check, change, fate));
        outcomes
    }

    /// Notes what the shared store has decided.
    fn follow(&self, transaction: &Transaction, outcomes: &Outcomes) {
        if !self.wanted.load(Relaxed) {
            return;
        }
        for_each_change(transaction, outcomes, |check, outcome, change| {
            let used = self.part_of_used(check, outcome);
            self.memory
                .follow(&check.key, &self.counted_as(&check.limit), change, used);
        });
    }

    /// The limit that hits are counted by here. A window's counter does not depend on the number; a bucket's is in
    /// units of its limit, and [`decide`](Self::decide) looks at it as this replica's part.
    fn counted_as(&self, limit: &Limit) -> Limit {
        match limit.algorithm.kind() {
            AlgorithmKind::TokenBucket | AlgorithmKind::LeakyBucket => limit::share(limit, self.replicas),
            _ => *limit,
        }
    }

    /// This replica's part of the hits that all have in use, rounded up.
    fn part_of_used(&self, check: &Check, outcome: &Outcome) -> u64 {
        if check.limit.algorithm.kind() == AlgorithmKind::Concurrency {
            // Slots of others are given back at others, so they would stay counted here.
            return 0;
        }
        let used = quota(&check.limit).saturating_sub(outcome.remaining);
        used.div_ceil(self.replicas.into())
    }

    /// What is owed on a counter, as it is told: what has left the window by now is owed no longer.
    fn due(&self, owed: &Check) -> Option<Check> {
        let hits = match owed.hits {
            Hits::Debit(hits) => Hits::Debit(hits.min(self.memory.used(&owed.key, &self.counted_as(&owed.limit)))),
            hits => hits,
        };
        (hits != Hits::Debit(0)).then(|| Check { hits, ..owed.clone() })
    }

    /// Notes what the shared store has to be told. A call of unknown fate counts again what it takes, which denies too
    /// many; what it gives back it must not give back again, which would free what others hold.
    fn owe(&self, check: &Check, change: Change, fate: Fate) {
        match change {
            Change::Given(_) if fate == Fate::Unknown => {}
            _ => self.owed.add(check, change),
        }
    }

    /// Notes again what could not be told.
    fn put_back(&self, owed: &Check, fate: Fate) {
        match owed.hits {
            Hits::Debit(hits) => self.owe(owed, Change::Counted(hits), fate),
            Hits::Refund(hits) => self.owe(owed, Change::Given(hits), fate),
            _ => {}
        }
    }
}
