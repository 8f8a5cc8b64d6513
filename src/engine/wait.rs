//! Leaky bucket: answers that are held back until their turn, bounded in number and time.

use std::time::{Duration, Instant};

use tokio::sync::Semaphore;

use crate::model::{Gate, Hits, RetryAfter, Transaction};
use crate::store::Outcomes;

/// Where answers wait. A waiting answer costs a timer entry, no thread.
pub(super) struct WaitingRoom {
    seats: Semaphore,
}

impl WaitingRoom {
    pub(super) fn new(seats: usize) -> Self {
        Self {
            seats: Semaphore::new(seats.min(Semaphore::MAX_PERMITS)),
        }
    }

    /// Waits; `false` at once when there is no seat or the caller would be gone before the turn comes.
    pub(super) async fn wait(&self, delay: Duration, deadline: Option<Instant>) -> bool {
        let too_late = deadline.is_some_and(|deadline| deadline.saturating_duration_since(Instant::now()) < delay);
        if too_late {
            return false;
        }
        let Ok(_seat) = self.seats.try_acquire() else {
            return false;
        };
        tokio::time::sleep(delay).await;
        true
    }
}

/// How long a passing transaction must be held back.
pub(super) fn delay(transaction: &Transaction, outcomes: &Outcomes) -> Option<Duration> {
    let longest = transaction
        .checks
        .iter()
        .zip(outcomes)
        .filter(|(check, outcome)| check.gate != Gate::Observe && outcome.allowed)
        .map(|(_, outcome)| outcome.delay_us)
        .max()?;
    let passes = || transaction.passes(outcomes.iter().map(|outcome| outcome.allowed));
    (longest > 0 && passes()).then(|| Duration::from_micros(longest))
}

/// The transaction that gives back what a passing one took.
pub(super) fn refund(transaction: &Transaction, outcomes: &Outcomes) -> Transaction {
    let taken = transaction
        .checks
        .iter()
        .zip(outcomes)
        .filter(|(_, outcome)| outcome.allowed);
    let checks = taken.filter_map(|(check, _)| match check.hits {
        Hits::Take(hits) => Some(crate::model::Check {
            hits: Hits::Give(hits),
            ..check.clone()
        }),
        Hits::Peek | Hits::Give(_) | Hits::Lease(_) | Hits::Return { .. } => None,
    });
    Transaction {
        checks: checks.collect(),
        ..Transaction::default()
    }
}

/// The same outcomes with the held-back ones denied: they may come again when their turn would have been.
pub(super) fn denied(transaction: &Transaction, mut outcomes: Outcomes) -> Outcomes {
    for (check, outcome) in transaction.checks.iter().zip(&mut outcomes) {
        if check.gate != Gate::Observe && outcome.allowed && outcome.delay_us > 0 {
            outcome.allowed = false;
            outcome.retry_after = RetryAfter::Micros(outcome.delay_us);
            outcome.delay_us = 0;
        }
    }
    outcomes
}
