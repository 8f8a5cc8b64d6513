//! Every store answers exactly what the definitions say, check by check, microsecond by microsecond.

use std::collections::HashMap;

use proptest::prelude::*;
use proptest::test_runner::{Config, FileFailurePersistence, TestCaseError, TestRunner};
use sluicegate::algorithms::op::{Answer, Op};
use sluicegate::model::{AlgorithmKind, CounterKey, Transaction};

use crate::oracle::Oracle;
use crate::subject::{Open, Subject, all, check, fresh_key};
use crate::traces::{self, Trace};

/// Runs a property on random input; seeds of failures are kept in `regressions/`.
pub fn for_all<T: std::fmt::Debug>(
    subject: &Subject,
    name: &str,
    strategy: impl Strategy<Value = T>,
    property: impl Fn(T) -> Result<(), TestCaseError>,
) {
    // More of them: PROPTEST_CASES=10000 cargo test --test conformance
    let asked = std::env::var("PROPTEST_CASES")
        .ok()
        .and_then(|cases| cases.parse().ok());
    let cases = asked.unwrap_or(if subject.server.is_some() { 32 } else { 96 });
    let file: &'static str = Box::leak(format!("tests/conformance/regressions/{name}.txt").into_boxed_str());
    let config = Config {
        cases,
        failure_persistence: Some(Box::new(FileFailurePersistence::Direct(file))),
        max_shrink_iters: 4000,
        ..Config::default()
    };
    let outcome = TestRunner::new(config).run(&strategy, property);
    if let Err(error) = outcome {
        panic!("{error}");
    }
}

/// The slices that a store has told of, newest last, for each key.
#[derive(Default)]
struct Slices(HashMap<CounterKey, Vec<u64>>);

impl Slices {
    /// Turns "so many slices ago" into a slice that hits were counted in, or into one that never was.
    fn resolve(&self, key: &CounterKey, hits: Op) -> Op {
        let Op::Return { slice: ago, hits } = hits else {
            return hits;
        };
        let told = self.0.get(key).and_then(|told| told.iter().rev().nth(ago as usize));
        Op::Return {
            slice: told.copied().unwrap_or(ago),
            hits,
        }
    }

    fn note(&mut self, transaction: &Transaction<Op>, answers: &[Answer]) {
        for (check, Answer { outcome, .. }) in transaction.checks.iter().zip(answers) {
            if outcome.slice > 0 {
                self.0.entry(check.key.clone()).or_default().push(outcome.slice);
            }
        }
    }
}

/// The same trace for a store and the oracle.
fn follow(subject: &Subject, trace: &Trace) -> Result<(), TestCaseError> {
    let keys: Vec<CounterKey> = trace.limits.iter().map(|_| fresh_key()).collect();
    let (mut oracle, mut slices) = (Oracle::default(), Slices::default());
    for step in &trace.steps {
        let now_us = trace.start_us + step.at_us;
        let checks = step.checks.iter();
        let transaction = all(checks.map(|&(key, hits, enforcement)| {
            let hits = slices.resolve(&keys[key], hits);
            check(&keys[key], trace.limits[key], hits, enforcement)
        }));
        let expected = oracle.check(now_us, &transaction);
        let found = subject.decide(now_us, std::slice::from_ref(&transaction)).remove(0);
        slices.note(&transaction, &found);
        prop_assert_eq!(found, expected, "at {}: {:?}", now_us, transaction);
    }
    Ok(())
}

/// One key, one check at a time.
pub fn one_check(open: Open, algorithm: AlgorithmKind) {
    let subject = open();
    let traces = traces::simple(algorithm, true);
    for_all(&subject, "one_check", traces, |trace| follow(&subject, &trace));
}

/// Several keys, several checks at a time, the same key more than once, all gates.
pub fn transactions(open: Open, algorithm: AlgorithmKind) {
    let subject = open();
    let traces = traces::crossed(&[algorithm, algorithm], false);
    for_all(&subject, "transactions", traces, |trace| follow(&subject, &trace));
}

/// Rules whose numbers change keep their counters, which then count by the new numbers.
pub fn changed_rules(open: Open, algorithm: AlgorithmKind) {
    let subject = open();
    let traces = traces::changing(algorithm);
    for_all(&subject, "changed_rules", traces, |trace| {
        // One key, whichever limit a check names.
        let key = fresh_key();
        let (mut oracle, mut slices) = (Oracle::default(), Slices::default());
        for step in &trace.steps {
            let now_us = trace.start_us + step.at_us;
            let checks = step.checks.iter();
            let transaction = all(checks.map(|&(limit, hits, enforcement)| {
                check(&key, trace.limits[limit], slices.resolve(&key, hits), enforcement)
            }));
            let expected = oracle.check(now_us, &transaction);
            let found = subject.decide(now_us, std::slice::from_ref(&transaction)).remove(0);
            slices.note(&transaction, &found);
            prop_assert_eq!(found, expected, "at {}: {:?}", now_us, transaction);
        }
        Ok(())
    });
}

/// Algorithms mixed in one transaction, and several transactions in one trip: as if they had come one by one.
pub fn batches(open: Open) {
    let subject = open();
    let traces = traces::crossed(&AlgorithmKind::ALL, false);
    for_all(&subject, "batches", traces, |trace| {
        let keys: Vec<CounterKey> = trace.limits.iter().map(|_| fresh_key()).collect();
        let (mut oracle, mut slices) = (Oracle::default(), Slices::default());
        for (number, batch) in trace.steps.chunks(5).enumerate() {
            let now_us = trace.start_us + batch[0].at_us;
            let transactions: Vec<Transaction<Op>> = batch
                .iter()
                .map(|step| {
                    let checks = step.checks.iter();
                    all(checks.map(|&(key, hits, enforcement)| {
                        let hits = slices.resolve(&keys[key], hits);
                        check(&keys[key], trace.limits[key], hits, enforcement)
                    }))
                })
                .collect();
            let expected: Vec<_> = transactions
                .iter()
                .map(|transaction| oracle.check(now_us, transaction))
                .collect();
            let found = subject.decide(now_us, &transactions);
            for (transaction, answers) in transactions.iter().zip(&found) {
                slices.note(transaction, answers);
            }
            prop_assert_eq!(found, expected, "batch {}: {:?}", number, transactions);
        }
        Ok(())
    });
}
