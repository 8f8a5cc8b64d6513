//! A dry run of a request: its rules and the state of its counters, without counting it.

use std::sync::Arc;

use smallvec::smallvec;

use crate::algorithms::{held, quota};
use crate::model::{Check, CounterKey, Enforcement, Hits, Limit, Outcome, Request, RetryAfter, Transaction, Window};
use crate::rules::OnStoreError;

use super::plan::{self, PlanEntry};
use super::{Active, Engine, RequestError, failure};

/// The result of a dry run.
pub struct Look {
    /// The rules in force.
    pub active: Arc<Active>,
    /// One for each limit of each descriptor, in order, with its descriptor; at least one a descriptor.
    pub limits: Vec<(usize, Looked)>,
    /// Whether the request would pass now.
    pub would_pass: bool,
}

/// One limit of a descriptor.
#[derive(Debug, Clone)]
pub enum Looked {
    /// No rule counts it, or one that another rule of the request replaces.
    Uncounted,
    /// A rule says `unlimited`.
    Unlimited {
        /// Index of the rule.
        rule: usize,
    },
    /// A counter.
    Counted(Box<Counter>),
}

impl Look {
    /// The counters of all limits, in order.
    pub fn counters(&self) -> impl Iterator<Item = &Counter> {
        self.limits.iter().filter_map(|(_, looked)| looked.counter())
    }
}

impl Looked {
    /// The counter, if there is one.
    #[must_use]
    pub fn counter(&self) -> Option<&Counter> {
        match self {
            Self::Counted(counter) => Some(counter),
            Self::Uncounted | Self::Unlimited { .. } => None,
        }
    }

    /// Index of the rule, if there is one.
    #[must_use]
    pub fn rule(&self) -> Option<usize> {
        match self {
            Self::Counted(counter) => counter.rule,
            Self::Unlimited { rule } => Some(*rule),
            Self::Uncounted => None,
        }
    }
}

/// The state of a counter.
#[derive(Debug, Clone)]
pub struct Counter {
    /// Index of the rule; `None` = the request's own limit.
    pub rule: Option<usize>,
    /// Its key.
    pub key: CounterKey,
    /// Its limit.
    pub limit: Limit,
    /// As configured.
    pub requests_per_unit: u32,
    /// As configured.
    pub window: Window,
    /// The effect of a denial on the request.
    pub enforcement: Enforcement,
    /// What the request would do to it.
    pub hits: Hits,
    /// The outcome of a peek.
    pub outcome: Outcome,
    /// The failure mode that decided, if the store did not answer.
    pub failure: Option<OnStoreError>,
}

impl Counter {
    /// The hits that an unused counter has left: of a bucket its burst, which may differ from the limit's number.
    #[must_use]
    pub fn quota(&self) -> u64 {
        quota(&self.limit)
    }

    /// Hits of open holds.
    #[must_use]
    pub fn held(&self) -> u64 {
        self.outcome.holds.open.min(self.taken())
    }

    /// Hits in use, without those that are held.
    #[must_use]
    pub fn used(&self) -> u64 {
        self.taken() - self.held()
    }

    fn taken(&self) -> u64 {
        self.quota().saturating_sub(self.outcome.remaining)
    }

    /// Whether the request's hits would be admitted now.
    #[must_use]
    pub fn would_pass(&self) -> bool {
        match self.hits {
            Hits::Acquire(hits) | Hits::Debit(hits) => self.outcome.allowed && self.outcome.remaining >= hits,
            // A hold of more than the limit could ever admit passes while there is no other.
            Hits::Hold { hits, .. } => {
                self.outcome.allowed
                    && (self.outcome.remaining >= hits || hits > self.quota() && self.outcome.holds.open == 0)
            }
            Hits::Peek | Hits::HoldMean(_) => self.outcome.allowed,
            Hits::Refund(_) | Hits::Settle { .. } | Hits::SettleOldest { .. } => true,
        }
    }

    /// Microseconds until its hits pass if nobody else asks, at the latest; `None` where no waiting helps.
    #[must_use]
    pub fn retry_after_us(&self) -> Option<u64> {
        if self.would_pass() {
            return Some(0);
        }
        let hits = match self.hits {
            Hits::Hold { hits, .. } => hits.min(self.quota()),
            Hits::Acquire(hits) | Hits::Debit(hits) => hits,
            _ => 1,
        };
        match self.outcome.retry_after {
            _ if hits > self.quota() => None,
            RetryAfter::Never => None,
            RetryAfter::Micros(us) if hits <= 1 => Some(us),
            // Any of the holds in the way may be settled at any time.
            _ if self.used() + hits <= self.quota() => Some(held::RETRY_US),
            _ => Some(self.outcome.reset_after_us),
        }
    }
}

impl Engine {
    /// Dry run: finds a request's rules and peeks at its counters. Counts nothing.
    ///
    /// # Errors
    /// [`RequestError`] when the request is not valid or no rules are in force.
    pub async fn look(&self, request: &Request) -> Result<Look, RequestError> {
        let active = self.active().ok_or(RequestError::NoConfiguration)?;
        let plan = plan::plan(self.plan_input(&active, request))?;
        let modes = plan.failure_modes(&active, self.options.on_store_error);
        let mut limits = Vec::with_capacity(plan.entries.len());
        for (entry, of) in plan.entries.iter().zip(&plan.of) {
            let looked = match *entry {
                PlanEntry::Free => Looked::Uncounted,
                PlanEntry::Unlimited { rule, .. } => Looked::Unlimited { rule },
                PlanEntry::Counted {
                    check,
                    rule,
                    requests_per_unit,
                    window,
                    ..
                } => {
                    let Some(asked) = plan.transaction.checks.get(check) else {
                        limits.push((*of, Looked::Uncounted));
                        continue;
                    };
                    let mode = modes.get(check).copied().unwrap_or(self.options.on_store_error);
                    let (outcome, failure) = self.peek(asked, mode).await;
                    Looked::Counted(Box::new(Counter {
                        rule,
                        key: asked.key.clone(),
                        limit: asked.limit,
                        requests_per_unit,
                        window,
                        enforcement: asked.enforcement,
                        hits: asked.hits,
                        outcome,
                        failure,
                    }))
                }
            };
            limits.push((*of, looked));
        }
        let would_pass = plan
            .transaction
            .passes(limits.iter().filter_map(|(_, looked)| match looked {
                Looked::Counted(counter) => Some(counter.would_pass()),
                Looked::Uncounted | Looked::Unlimited { .. } => None,
            }));
        Ok(Look {
            active,
            limits,
            would_pass,
        })
    }

    /// The state of one counter, by the store or by the failure mode.
    async fn peek(&self, asked: &Check, mode: OnStoreError) -> (Outcome, Option<OnStoreError>) {
        let transaction = Transaction {
            checks: smallvec![Check {
                hits: Hits::Peek,
                enforcement: Enforcement::Enforce,
                ..asked.clone()
            }],
            exact: true,
            ..Transaction::default()
        };
        let (outcomes, failure) = match self.store.look(&transaction).await {
            Ok(outcomes) => (outcomes, None),
            Err(_) => {
                let fallback = self.fallback.as_deref();
                (failure::answer(fallback, &transaction, &[mode]), Some(mode))
            }
        };
        let unknown = || Outcome::admitted(quota(&asked.limit), 0);
        let mut outcome = outcomes.into_iter().next().unwrap_or_else(unknown);
        if let Hits::HoldMean(mean) | Hits::SettleOldest { mean, .. } = asked.hits {
            // The store counts these holds, and each keeps the mean.
            let (open, left) = (outcome.holds.open, outcome.remaining);
            outcome.holds.open = open.saturating_mul(mean);
            outcome.remaining = (left + open).saturating_sub(outcome.holds.open);
            outcome.allowed &= outcome.remaining > 0;
        }
        (outcome, failure)
    }
}
