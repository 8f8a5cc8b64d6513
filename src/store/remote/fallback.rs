//! Fallback counters: counters in this process' memory that decide while the shared store cannot
//! (`on_store_error: local`).
//!
//! They take over without giving every key a new quota, and hand over without forgetting what they admitted:
//!
//! - *While the shared store answers*, [`Fallback::mirror`] notes what it has counted for this replica, and at least this
//!   replica's part of what it says is used by all.
//! - *While it does not*, [`Fallback::decide`] decides with this replica's part of each limit, and records what it admits
//!   in the ledger, which charges it to the shared store before that decides anything again.
//!
//! So a replica that is alone never passes a limit at these seams, but for calls that are in flight while these counters
//! decide, and several pass it only by what one has not heard of the others.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use super::ledger::Ledger;
use super::transport::Answers;
use crate::algorithms::op::Op;
use crate::algorithms::{limit, quota};
use crate::model::{AlgorithmKind, Check, CounterKey, Limit, Outcome, Transaction};
use crate::store::change::{Change, for_each_change};
use crate::store::correction::{Cause, Correction, signed};
use crate::store::{MemoryStore, Outcomes};

/// See the module's docs.
#[derive(Debug)]
pub struct Fallback {
    memory: Arc<MemoryStore>,
    /// Each of so many replicas enforces its part of a limit; at least 1.
    replicas: u32,
    ledger: Arc<Ledger>,
    /// Whether some rule in force would ask these counters.
    wanted: AtomicBool,
}

impl Fallback {
    /// Counters in `memory`, for one of `replicas`; what they admit goes into `ledger`.
    #[must_use]
    pub fn new(memory: Arc<MemoryStore>, replicas: u32, ledger: Arc<Ledger>) -> Self {
        Self {
            memory,
            replicas: replicas.max(1),
            ledger,
            wanted: AtomicBool::new(true),
        }
    }

    /// Whether any rule may want these counters; if none does, they are not kept.
    pub fn set_wanted(&self, wanted: bool) {
        self.wanted.store(wanted, Relaxed);
    }

    /// Decides and counts in place of the shared store, with this replica's part of each limit. What is counted is owed
    /// to the shared store, also where the call that failed may have been counted: that denies too many, never too few.
    /// Refunds are not recorded here: the call that could not be sent has done so.
    #[must_use]
    pub fn decide(&self, transaction: &Transaction) -> Outcomes {
        let part = |check: &Check| Check {
            limit: limit::share(&check.limit, self.replicas),
            ..check.clone()
        };
        let mut outcomes = self.memory.check_now(&Transaction {
            checks: transaction.checks.iter().map(part).collect(),
            ..transaction.clone()
        });
        let changes = transaction
            .checks
            .iter()
            .zip(&outcomes)
            .map(|(check, outcome)| (check, outcome, None));
        let passes = transaction.passes(outcomes.iter().map(|outcome| outcome.allowed));
        for_each_change(changes, passes, |check, _, change| {
            // What is held here is no use; it is charged when it is settled.
            if let Change::Counted(hits) | Change::Settled(_, hits) = change {
                self.ledger
                    .record(Correction::unplaced(check, signed(hits), Cause::Fallback));
            }
        });
        for outcome in &mut outcomes {
            // A slice of these counters means nothing to the shared store.
            outcome.slice = 0;
        }
        outcomes
    }

    /// Notes what the shared store has decided.
    pub(super) fn mirror(&self, transaction: &Transaction<Op>, answers: &Answers) {
        if !self.wanted.load(Relaxed) {
            return;
        }
        let changes = transaction.checks.iter().zip(answers);
        let changes = changes.map(|(check, answer)| (check, &answer.outcome, answer.grant));
        let passes = transaction.passes(answers.iter().map(|answer| answer.outcome.allowed));
        for_each_change(changes, passes, |check, outcome, change| {
            let used = self.part_of_used(&check.limit, outcome);
            self.memory
                .follow(&check.key, &self.counted_as(&check.limit), change, used);
        });
    }

    /// Notes a correction that the shared store is going to get; that of a lease is noted when the store has got it, as
    /// all of its cause are.
    pub(super) fn mirror_correction(&self, correction: &Correction) {
        if let Some(id) = correction.hold {
            self.follow(&correction.counter, &correction.limit, Change::Released(id));
        } else if correction.delta < 0 && correction.cause != Cause::Lease {
            let hits = correction.delta.unsigned_abs();
            self.give_back(&correction.counter, &correction.limit, hits);
        }
    }

    /// Counts hits again whose refund was noted with the shared store's answer, and is going to be noted once more with
    /// the request's decision here.
    pub(super) fn count_again(&self, check: &Check, hits: u64) {
        self.follow(&check.key, &check.limit, Change::Counted(hits));
    }

    /// Notes that hits of a counter are given back.
    pub(super) fn give_back(&self, counter: &CounterKey, limit: &Limit, hits: u64) {
        self.follow(counter, limit, Change::Given(hits));
    }

    fn follow(&self, counter: &CounterKey, limit: &Limit, change: Change) {
        if self.wanted.load(Relaxed) {
            let limit = self.counted_as(limit);
            self.memory.follow(counter, &limit, change, 0);
        }
    }

    /// Forgets a counter, because its state has been reset.
    pub(super) fn forget(&self, counter: &CounterKey) {
        self.memory.forget(counter);
    }

    /// The hits of a counter that these counters still count.
    pub(super) fn used(&self, key: &CounterKey, limit: &Limit) -> u64 {
        self.memory.used(key, &self.counted_as(limit))
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
    fn part_of_used(&self, limit: &Limit, outcome: &Outcome) -> u64 {
        if limit.algorithm.kind() == AlgorithmKind::Concurrency {
            // Permits of others are released at others, so they would stay counted here.
            return 0;
        }
        // Holds are mirrored one by one.
        let used = quota(limit).saturating_sub(outcome.remaining.saturating_add(outcome.holds.open));
        used.div_ceil(self.replicas.into())
    }
}
