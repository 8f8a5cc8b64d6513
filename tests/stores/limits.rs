//! Limits, keys and transactions for the tests of this binary.

use sluicegate::algorithms::limit::{LimitSpec, build};
use sluicegate::model::{AlgorithmKind, Check, CounterKey, Enforcement, Hits, Limit, Transaction, Unit, Window};

/// `hits` in a minute.
pub fn per_minute(algorithm: AlgorithmKind, hits: u64) -> Limit {
    per(Unit::Minute, algorithm, hits)
}

/// `hits` in a day: none come back by themselves while a test runs.
pub fn per_day(algorithm: AlgorithmKind, hits: u64) -> Limit {
    per(Unit::Day, algorithm, hits)
}

fn per(unit: Unit, algorithm: AlgorithmKind, hits: u64) -> Limit {
    build(&LimitSpec::new(algorithm, hits, Window::of(unit))).expect("a good limit")
}

/// `hits` in a minute, sliding.
pub fn sliding(hits: u64) -> Limit {
    per_minute(AlgorithmKind::SlidingWindow, hits)
}

/// One check that takes `hits`; the key is `{name}`.
pub fn take(name: &str, limit: Limit, hits: u64) -> Check {
    Check {
        key: CounterKey::from_raw(&format!("test:{{{name}}}")),
        limit,
        hits: Hits::Acquire(hits),
        enforcement: Enforcement::Enforce,
    }
}

/// The same check with a enforcement.
pub fn gated(enforcement: Enforcement, check: Check) -> Check {
    Check { enforcement, ..check }
}

/// A transaction of these checks, without a deadline.
pub fn all(checks: impl IntoIterator<Item = Check>) -> Transaction {
    Transaction {
        checks: checks.into_iter().collect(),
        ..Transaction::default()
    }
}
