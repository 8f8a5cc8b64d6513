//! Fallback counters: counters in this process' memory that decide while the shared store cannot
//! (`on_store_error: local`).
//!
//! No key gets a new quota when they take over, and no admitted hit is lost when the shared store takes over again:
//!
//! - *While the shared store answers*, [`Fallback::mirror`] counts what the store has counted for this replica. A fallback
//!   counter is also never below this replica's part of the hits that all replicas have in use.
//! - *While the store does not answer*, [`Fallback::decide`] decides with this replica's part of each limit. What it admits is
//!   recorded in the ledger, which charges it to the shared store before the store decides anything again.
//!
//! So a single replica never passes a limit when the two take turns, except by hits of calls that were in flight while the
//! fallback counters decided. Several replicas pass it only by hits that one has admitted and the others have not seen.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use super::ledger::Ledger;
use super::transport::Answers;
use crate::algorithms::op::Op;
use crate::algorithms::{limit, quota};
use crate::model::{AlgorithmKind, Check, CounterKey, Limit, Outcome, Transaction};
use crate::store::change::{Change, for_each_change};
use crate::store::correction::{Cause, Correction, HoldChange, signed};
use crate::store::{MemoryStore, Outcomes};

/// See the module's docs.
#[derive(Debug)]
pub struct Fallback {
    memory: Arc<MemoryStore>,
    /// Each of so many replicas enforces its part of a limit; at least 1.
    replicas: u32,
    ledger: Arc<Ledger>,
    /// Whether a rule in force may fall back to these counters.
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

    /// Sets whether a rule in force may fall back to these counters; if none may, nothing is mirrored.
    pub fn set_wanted(&self, wanted: bool) {
        self.wanted.store(wanted, Relaxed);
    }

    /// Decides and counts in place of the shared store, with this replica's part of each limit. What is counted is recorded in
    /// the ledger, even where the store may have counted the failed call: that denies too many, never too few. Refunds are not:
    /// [`record_refunds`](super::context::Context::record_refunds) has recorded those of a call that was not sent.
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
            self.ledger.record(match change {
                Change::Counted(hits) => Correction::unplaced(check, signed(hits), Cause::Fallback),
                Change::Held(id, hits) => Correction::hold(check, id, hits),
                Change::Settled(id, hits) => Correction::settle(check, id, hits, Cause::Fallback),
                _ => return,
            });
        });
        for outcome in &mut outcomes {
            // The shared store has other slices than these counters.
            outcome.slice = 0;
        }
        outcomes
    }

    /// Counts what the shared store has counted.
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
                .mirror(&check.key, &self.counted_as(&check.limit), change, used);
        });
    }

    /// Mirrors a correction that the shared store is going to get. Those of leases are mirrored once the store has applied
    /// them ([`Carried::mirror`](super::carried::Carried::mirror)).
    pub(super) fn mirror_correction(&self, correction: &Correction) {
        if let Some(hold) = correction.hold {
            let hits = correction.delta.unsigned_abs();
            let change = match hold {
                HoldChange::Make(id) => Change::Held(id, hits),
                HoldChange::Settle(id) => Change::Settled(id, hits),
                HoldChange::Release(id) => Change::Released(id),
            };
            self.mirror_change(&correction.counter, &correction.limit, change);
        } else if correction.delta < 0 && correction.cause != Cause::Lease {
            let hits = correction.delta.unsigned_abs();
            self.give_back(&correction.counter, &correction.limit, hits);
        }
    }

    /// Counts hits again whose refund was mirrored with the shared store's answer, because [`decide`](Self::decide) is going to
    /// make the same refund.
    pub(super) fn count_again(&self, check: &Check, hits: u64) {
        self.mirror_change(&check.key, &check.limit, Change::Counted(hits));
    }

    /// Gives hits of a counter back.
    pub(super) fn give_back(&self, counter: &CounterKey, limit: &Limit, hits: u64) {
        self.mirror_change(counter, limit, Change::Given(hits));
    }

    fn mirror_change(&self, counter: &CounterKey, limit: &Limit, change: Change) {
        if self.wanted.load(Relaxed) {
            let limit = self.counted_as(limit);
            self.memory.mirror(counter, &limit, change, 0);
        }
    }

    /// Whether what the shared store has done too late stays done, since [`decide`](Self::decide) has done it in its place: the two
    /// have one id, and what the ledger has of it the store does once.
    pub(super) fn agrees(&self, check: &Check<Op>, change: Change) -> bool {
        match change {
            Change::Held(id, _) => self
                .memory
                .has_open_hold(&check.key, &self.counted_as(&check.limit), id),
            _ => false,
        }
    }

    /// Forgets a counter whose state has been reset.
    pub(super) fn forget(&self, counter: &CounterKey) {
        self.memory.forget(counter);
    }

    /// The hits that a fallback counter still counts.
    pub(super) fn used(&self, key: &CounterKey, limit: &Limit) -> u64 {
        self.memory.used(key, &self.counted_as(limit))
    }

    /// The limit by which a fallback counter counts. A window's state does not depend on the limit's number; a bucket's state
    /// is in units of its limit, and [`decide`](Self::decide) reads it by this replica's part of the limit.
    fn counted_as(&self, limit: &Limit) -> Limit {
        match limit.algorithm.kind() {
            AlgorithmKind::TokenBucket | AlgorithmKind::LeakyBucket => limit::share(limit, self.replicas),
            _ => *limit,
        }
    }

    /// This replica's part of the hits that all have in use, rounded up.
    fn part_of_used(&self, limit: &Limit, outcome: &Outcome) -> u64 {
        if limit.algorithm.kind() == AlgorithmKind::Concurrency {
            // Other replicas release their permits themselves, so these would stay counted here.
            return 0;
        }
        // Holds are mirrored one by one.
        let used = quota(limit).saturating_sub(outcome.remaining.saturating_add(outcome.holds.open));
        used.div_ceil(self.replicas.into())
    }
}
