//! Transactions by their definition, over counters by theirs: as slowly and plainly as possible.

use std::collections::HashMap;

use sluicegate::algorithms::op::{Answer, Grant, Op};
use sluicegate::model::{Check, CounterKey, Enforcement, Holds, Outcome, RetryAfter, Transaction};

use crate::counter::Counter;

/// All counters of a store.
#[derive(Debug, Clone, Default)]
pub struct Oracle {
    counters: HashMap<CounterKey, Counter>,
}

impl Oracle {
    fn counter(&mut self, check: &Check<Op>, now: u64) -> &mut Counter {
        let counter = self
            .counters
            .entry(check.key.clone())
            .or_insert_with(|| Counter::new(check.limit));
        counter.obey(check.limit, now);
        counter
    }

    /// Decides and counts a transaction.
    pub fn check(&mut self, now: u64, transaction: &Transaction<Op>) -> Vec<Answer> {
        // What has happened counts first.
        let mut charged: HashMap<usize, Outcome> = HashMap::new();
        for (index, check) in transaction.checks.iter().enumerate() {
            if let Op::Debit(hits) = check.hits {
                charged.insert(index, self.counter(check, now).debited(now, hits));
            }
        }
        // Then as if nothing could stop it, to see what each check comes to …
        for check in &transaction.checks {
            self.counter(check, now);
        }
        let mut trial = self.clone();
        let mut before: HashMap<CounterKey, u64> = HashMap::new();
        let judged: Vec<Answer> = transaction
            .checks
            .iter()
            .enumerate()
            .map(|(index, check)| {
                if let Some(outcome) = charged.get(&index) {
                    return (*outcome).into();
                }
                let prior = before.entry(check.key.clone()).or_default();
                let (answer, counted) = trial.judge(self, now, check, *prior);
                *prior = prior.saturating_add(counted);
                answer
            })
            .collect();
        let passes = passes(transaction, &judged);
        // … then for good: without what is given back for those that take, …
        let mut answers = judged;
        for (check, answer) in transaction.checks.iter().zip(&mut answers) {
            if !passes && !matches!(check.hits, Op::Debit(_)) {
                let counter = self.counter(check, now);
                answer.outcome.remaining = counter.remaining(now);
                answer.outcome.reset_after_us = counter.reset_after(now);
                (answer.outcome.delay_us, answer.outcome.slice, answer.grant) = (0, 0, None);
            }
        }
        for check in &transaction.checks {
            match check.hits {
                Op::Refund(hits) => self.counter(check, now).refund(now, hits),
                Op::Return { slice, hits } => self.counter(check, now).return_to(now, slice, hits),
                Op::Reset => *self.counter(check, now) = Counter::new(check.limit),
                _ => {}
            }
        }
        for (check, answer) in transaction.checks.iter().zip(&answers) {
            match (check.hits, answer.grant) {
                (Op::Acquire(hits), _) if passes && answer.outcome.allowed => {
                    self.counter(check, now).take(now, hits);
                }
                (Op::Lease(_), Some(grant)) => {
                    self.counter(check, now).take(now, grant.hits);
                }
                _ => {}
            }
        }
        // … and as of the end for those that give.
        for (check, answer) in transaction.checks.iter().zip(&mut answers) {
            if matches!(check.hits, Op::Refund(_) | Op::Return { .. } | Op::Reset) {
                let counter = self.counter(check, now);
                answer.outcome.remaining = counter.remaining(now);
                answer.outcome.reset_after_us = counter.reset_after(now);
            }
        }
        answers
    }

    /// What a check comes to after the earlier ones of its transaction, and what it adds. `origin` is how things
    /// stood before the transaction.
    fn judge(&mut self, origin: &Self, now: u64, check: &Check<Op>, prior: u64) -> (Answer, u64) {
        let mut origin = origin
            .counters
            .get(&check.key)
            .cloned()
            .unwrap_or(Counter::new(check.limit));
        origin.obey(check.limit, now);
        let counter = self.counter(check, now);
        let mut outcome = Outcome {
            allowed: true,
            remaining: 0,
            retry_after: RetryAfter::Now,
            reset_after_us: 0,
            delay_us: 0,
            room: 0,
            slice: 0,
            holds: Holds::default(),
            cached: false,
        };
        let mut counted = 0;
        let mut grant = None;
        let needed = match check.hits {
            Op::Acquire(hits) => hits,
            Op::Peek | Op::Lease(_) => 1,
            // Holds have a model of their own (`holds`).
            _ => 0,
        };
        outcome.allowed = counter.fits(now, needed);
        if !outcome.allowed {
            // The same request later needs what its earlier checks took as well.
            outcome.retry_after = origin.retry_after(now, prior.saturating_add(needed));
        }
        match check.hits {
            Op::Acquire(hits) if outcome.allowed => counted = hits,
            Op::Lease(_) if counter.left(now, 0).is_none() => {
                (outcome.allowed, outcome.retry_after) = (false, RetryAfter::Never);
            }
            Op::Lease(most) if outcome.allowed => counted = most.min(counter.remaining(now)),
            _ => {}
        }
        if counted > 0 {
            outcome.delay_us = counter.take(now, counted);
            outcome.slice = counter.newest_slice(now);
        }
        if let (Op::Lease(_), 1..) = (check.hits, counted) {
            let left_us = counter.left(now, outcome.slice).unwrap_or(0);
            grant = Some(Grant { hits: counted, left_us });
        }
        outcome.remaining = counter.remaining(now);
        outcome.reset_after_us = counter.reset_after(now);
        (Answer { outcome, grant }, counted)
    }
}

/// Whether a transaction passes as a whole.
fn passes(transaction: &Transaction<Op>, judged: &[Answer]) -> bool {
    let over = |enforcement| {
        let of_it = transaction
            .checks
            .iter()
            .zip(judged)
            .filter(move |(check, _)| check.enforcement == enforcement);
        of_it.map(|(_, answer)| !answer.outcome.allowed).collect::<Vec<_>>()
    };
    let scopes: Vec<_> = (0..=u8::MAX).map(|scope| over(Enforcement::Quota(scope))).collect();
    let mut scopes = scopes.into_iter().filter(|quotas| !quotas.is_empty()).peekable();
    !over(Enforcement::Enforce).contains(&true)
        && (scopes.peek().is_none() || scopes.any(|quotas| !quotas.contains(&true)))
}
