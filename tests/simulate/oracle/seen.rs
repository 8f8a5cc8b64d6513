//! What the oracle sees: messages with their answers, requests and releases.

use std::sync::Arc;

use sluicegate::algorithms::op::Op;
use sluicegate::engine::PERMIT_TAG;
use sluicegate::model::{Check, CounterKey, HoldId, Transaction};
use sluicegate::store::remote::transport::Answers;

use crate::network::Heard;
use crate::script::Settling;

/// A message that has been sent, and what became of it.
pub struct Sent {
    pub replica: usize,
    /// Which of the processes that were this replica.
    pub process: u64,
    pub calls: Vec<Transaction<Op>>,
    pub answers: Option<Vec<Answers>>,
    pub heard: Arc<Heard>,
    /// Its sender knows that it gets no answer.
    pub failed: bool,
    /// The sender knows that it was not carried out.
    pub refused: bool,
}

impl Sent {
    /// Whether this process waited for its answer at a time.
    pub(super) fn is_under_way(&self, process: (usize, u64), at_ms: u64) -> bool {
        let is_open = !self.refused && !self.failed;
        (self.replica, self.process) == process && is_open && self.heard.at_ms().is_none_or(|heard| heard >= at_ms)
    }
}

/// A request that was put to a replica.
pub struct Asked {
    pub replica: usize,
    pub process: u64,
    pub version: usize,
    /// Rule, value, hits; negative ones are released.
    pub parts: Vec<(usize, usize, i64)>,
    /// The servers' clocks then.
    pub from_us: Vec<u64>,
    pub asked_ms: u64,
    pub deadline_ms: Option<u64>,
    pub answered: bool,
    /// The store must decide it.
    pub is_last: bool,
    /// The hold that it settles.
    pub settles: Option<HoldId>,
    /// How what it holds will be settled.
    pub settlements: Vec<Settling>,
    /// What its negative hits are.
    pub how: How,
}

/// What a caller that releases knows, and what its replica must.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    /// It releases what it has got, and nothing else.
    Exact,
    /// It releases whether it got anything or not, by the number that the answer told.
    Told,
    /// The same by a number of its own: only the process that decided knows whether it is due.
    ToProcess { number: u64, granted: bool },
}

impl How {
    /// What is added to the number.
    pub const fn tag(self) -> u64 {
        match self {
            Self::Told => PERMIT_TAG,
            Self::Exact | Self::ToProcess { .. } => 0,
        }
    }

    /// Whether no other process can take it.
    pub const fn is_for_one(self) -> bool {
        matches!(self, Self::ToProcess { .. })
    }

    /// Whether it is not for this process.
    pub const fn is_for_another(self, process: u64) -> bool {
        matches!(self, Self::ToProcess { number, .. } if number != process)
    }

    /// Whether the caller had got what it releases.
    pub const fn is_due(self) -> bool {
        !matches!(self, Self::ToProcess { granted: false, .. })
    }
}

/// Permits that a request asked for: rule, value and number.
pub struct Permits {
    pub part: (usize, usize, u64),
    pub granted: bool,
}

/// What a message changes in a counter where it is carried out, or would.
pub(super) struct Changed {
    pub key: CounterKey,
    pub hits: i64,
    /// The store has admitted them: a request's, or a lease's.
    pub admitted: bool,
    /// They are a lease.
    pub leased: bool,
}

pub(super) fn changes(message: &Sent) -> Vec<Changed> {
    let mut all = Vec::new();
    for (at, call) in message.calls.iter().enumerate() {
        let answers = message.answers.as_ref().and_then(|answers| answers.get(at));
        let passes = answers.is_some_and(|answers| call.passes(answers.iter().map(|answer| answer.outcome.allowed)));
        for (number, check) in call.checks.iter().enumerate() {
            let answer = answers.and_then(|answers| answers.get(number));
            let (hits, admitted) = match (check.hits, answer) {
                (Op::Settle { .. }, Some(answer)) if answer.outcome.holds.repeated => continue,
                (Op::Refund(hits) | Op::Return { hits, .. } | Op::Debit(hits) | Op::Settle { hits, .. }, _) => {
                    (hits, false)
                }
                (Op::Acquire(hits), Some(answer)) if passes && answer.outcome.allowed => (hits, true),
                (Op::Lease(_), Some(answer)) if passes => (answer.grant.map_or(0, |grant| grant.hits), true),
                _ => continue,
            };
            all.push(Changed {
                key: check.key.clone(),
                hits: i64::try_from(hits).unwrap_or(0),
                admitted,
                leased: matches!(check.hits, Op::Lease(_)),
            });
        }
    }
    all
}

/// Hits as a signed number.
pub(super) fn signed(hits: u64) -> i64 {
    i64::try_from(hits).unwrap_or(i64::MAX)
}

/// Whether other processes have given back hits of a counter.
pub fn others_gave_back(key: &CounterKey, asked: &Asked, sent: &[Sent]) -> bool {
    let process = (asked.replica, asked.process);
    let of_others = sent.iter().filter(|sent| (sent.replica, sent.process) != process);
    let checks = of_others.flat_map(|sent| &sent.calls).flat_map(|call| &call.checks);
    let gives_back = |check: &Check<Op>| matches!(check.hits, Op::Return { .. } | Op::Refund(_));
    checks.filter(|check| check.key == *key).any(gives_back)
}
