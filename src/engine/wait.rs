//! Leaky bucket: answers are delayed until their turn, bounded in number and time.

use std::time::{Duration, Instant};

use smallvec::SmallVec;
use tokio::sync::Semaphore;
use tokio::time::Instant as Deadline;

use crate::model::{Enforcement, RetryAfter, Transaction};
use crate::rules::OnStoreError;
use crate::store::{Cause, Correction, Outcomes};

use super::failure;

/// Bounds the answers that wait at the same time. A waiting answer costs a timer entry, no thread.
pub(super) struct DelayLimiter {
    permits: Semaphore,
}

impl DelayLimiter {
    pub(super) fn new(max_waiting: usize) -> Self {
        Self {
            permits: Semaphore::new(max_waiting.min(Semaphore::MAX_PERMITS)),
        }
    }

    /// Waits; `false` at once when too many answers wait, or when `deadline` comes before the end of `delay`.
    pub(super) async fn wait(&self, delay: Duration, deadline: Option<Instant>) -> bool {
        let too_late = deadline
            .is_some_and(|deadline| Deadline::from_std(deadline).saturating_duration_since(Deadline::now()) < delay);
        if too_late {
            return false;
        }
        let Ok(_permit) = self.permits.try_acquire() else {
            return false;
        };
        tokio::time::sleep(delay).await;
        true
    }
}

/// How long the answer to a transaction must be delayed; `None` if it is denied, or need not wait.
pub(super) fn delay(transaction: &Transaction, outcomes: &Outcomes) -> Option<Duration> {
    let longest = transaction
        .checks
        .iter()
        .zip(outcomes)
        .filter(|(check, outcome)| check.enforcement != Enforcement::Shadow && outcome.allowed)
        .map(|(_, outcome)| outcome.delay_us)
        .max()?;
    let passes = || transaction.passes(outcomes.iter().map(|outcome| outcome.allowed));
    (longest > 0 && passes()).then(|| Duration::from_micros(longest))
}

/// The corrections that undo what a passing transaction took before [`deny`]: all of it if [`deny`] denies the request; only
/// what it denies if another quota lets the request pass. `modes` has a failure mode for each check; `None` = the store
/// decided.
pub(super) fn refunds(
    transaction: &Transaction,
    before: &Outcomes,
    after: &Outcomes,
    modes: Option<&[OnStoreError]>,
) -> SmallVec<[Correction; 2]> {
    let passes = transaction.passes(after.iter().map(|outcome| outcome.allowed));
    let taken = transaction
        .checks
        .iter()
        .zip(before.iter().zip(after))
        .enumerate()
        .filter(|(_, (_, (before, after)))| before.allowed && !(passes && after.allowed))
        .filter(|(at, _)| failure::is_counted(modes, *at));
    taken
        .filter(|(_, (check, _))| !failure::is_local_mean(modes, check))
        .filter_map(|(_, (check, (before, _)))| Correction::undo(check, before, Cause::Wait))
        .collect()
}

/// Denies the checks whose answer would have to wait, with the end of that wait as `retry_after`.
pub(super) fn deny(transaction: &Transaction, outcomes: &mut Outcomes) {
    for (check, outcome) in transaction.checks.iter().zip(outcomes) {
        if check.enforcement != Enforcement::Shadow && outcome.allowed && outcome.delay_us > 0 {
            outcome.allowed = false;
            outcome.retry_after = RetryAfter::Micros(outcome.delay_us);
            outcome.delay_us = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::algorithms::limit::{self, LimitSpec};
    use crate::model::key::{Owner, Part, counter_key};
    use crate::model::{AlgorithmKind, Check, Hits, Outcome, Unit, Window};

    fn check(name: &str, enforcement: Enforcement, hits: Hits) -> Check {
        let spec = LimitSpec::new(AlgorithmKind::LeakyBucket, 10, Window::of(Unit::Second));
        let limit = limit::build(&spec).unwrap();
        Check {
            key: counter_key("", Owner::Rule, &limit, "test", [Part::Own("key", name)]),
            limit,
            hits,
            enforcement,
        }
    }

    /// What comes back, as (number of the check, hits), when the first of these is held back in vain and the second
    /// passed at once.
    fn given_back(
        enforcements: [Enforcement; 2],
        hits: [Hits; 2],
        modes: Option<[OnStoreError; 2]>,
    ) -> Vec<(usize, i64)> {
        let checks = [
            check("0", enforcements[0], hits[0]),
            check("1", enforcements[1], hits[1]),
        ];
        let transaction = Transaction {
            checks: checks.clone().into_iter().collect(),
            ..Transaction::default()
        };
        let held = Outcome {
            delay_us: 100,
            ..Outcome::admitted(5, 0)
        };
        let mut second = Outcome::admitted(5, 0);
        if let Hits::HoldMean(mean) = hits[1] {
            second.holds.own = mean;
        }
        let before: Outcomes = [held, second].into_iter().collect();
        let mut after = before.clone();
        deny(&transaction, &mut after);
        let refunds = refunds(&transaction, &before, &after, modes.as_ref().map(<[_; 2]>::as_slice));
        let which = |given: &Correction| checks.iter().position(|check| check.key == given.counter).unwrap();
        refunds.iter().map(|given| (which(given), -given.delta)).collect()
    }

    #[test]
    fn what_is_held_back_in_vain_gives_back_all_that_the_request_took_and_nothing_else() {
        let two = [Hits::Acquire(3), Hits::Acquire(1)];
        let both = vec![(0, 3), (1, 1)];
        assert_eq!(given_back([Enforcement::Enforce; 2], two, None), both);
        // Another quota still lets it pass: only the denied one's hits come back.
        assert_eq!(
            given_back([Enforcement::Quota(0), Enforcement::Quota(1)], two, None),
            [(0, 3)]
        );
        // Nobody waits for a limit in shadow mode.
        assert_eq!(given_back([Enforcement::Shadow, Enforcement::Enforce], two, None), []);
        // Looks and charges took nothing that a denial gives back.
        assert_eq!(
            given_back([Enforcement::Enforce; 2], [Hits::Acquire(3), Hits::Peek], None),
            [(0, 3)]
        );
        assert_eq!(
            given_back([Enforcement::Enforce; 2], [Hits::Debit(3), Hits::Acquire(1)], None),
            [(1, 1)]
        );
        // A hold without an id ends, but in the store alone, which made it.
        let mean = [Hits::Acquire(3), Hits::HoldMean(4)];
        assert_eq!(given_back([Enforcement::Enforce; 2], mean, None), [(0, 3), (1, 4)]);
        let local = Some([OnStoreError::Local; 2]);
        assert_eq!(given_back([Enforcement::Enforce; 2], mean, local), [(0, 3)]);
        // `allow` has counted nothing.
        let modes = [OnStoreError::Allow, OnStoreError::Local];
        assert_eq!(given_back([Enforcement::Enforce; 2], two, Some(modes)), [(1, 1)]);
    }
}
