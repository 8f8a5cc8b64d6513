//! Leaky bucket: answers that are held back until their turn, bounded in number and time.

use std::time::{Duration, Instant};

use tokio::sync::Semaphore;

use crate::model::{Gate, Hits, RetryAfter, Transaction};
use crate::rules::OnStoreError;
use crate::store::Outcomes;

use super::failure;

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

/// The transaction that gives back what a passing one took before [`deny`]: all of it if that denies the request, else
/// (another quota is left) what was denied alone. `modes` is what stood in for the store, if anything did.
pub(super) fn refund(
    transaction: &Transaction,
    before: &Outcomes,
    after: &Outcomes,
    modes: Option<&[OnStoreError]>,
) -> Transaction {
    let passes = transaction.passes(after.iter().map(|outcome| outcome.allowed));
    let taken = transaction
        .checks
        .iter()
        .zip(before.iter().zip(after))
        .enumerate()
        .filter(|(_, (_, (before, after)))| before.allowed && !(passes && after.allowed))
        .filter(|(at, _)| failure::is_counted(modes, *at));
    let checks = taken.filter_map(|(_, (check, _))| match check.hits {
        Hits::Take(hits) => Some(crate::model::Check {
            hits: Hits::Give(hits),
            ..check.clone()
        }),
        Hits::Charge(_) | Hits::Peek | Hits::Give(_) | Hits::Lease(_) | Hits::Return { .. } => None,
    });
    Transaction {
        checks: checks.collect(),
        ..Transaction::default()
    }
}

/// Denies what would be held back: it may come again when its turn would have been.
pub(super) fn deny(transaction: &Transaction, outcomes: &mut Outcomes) {
    for (check, outcome) in transaction.checks.iter().zip(outcomes) {
        if check.gate != Gate::Observe && outcome.allowed && outcome.delay_us > 0 {
            outcome.allowed = false;
            outcome.retry_after = RetryAfter::Micros(outcome.delay_us);
            outcome.delay_us = 0;
        }
    }
}
