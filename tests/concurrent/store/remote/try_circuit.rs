//! The circuit: what one task after the other makes of it, and what several at a time do.

use std::time::Duration;

use shuttle::future::block_on;
use shuttle::thread;

use super::circuit::{Circuit, CircuitState};
use super::transport::BreakerScope;
use crate::explore::{explore, once};
use crate::store::StoreError;

const FAILURES: usize = 5;

fn away() -> StoreError {
    StoreError::Unavailable("gone".into())
}

fn slow() -> StoreError {
    StoreError::Timeout(Duration::from_millis(15))
}

#[test]
fn a_failure_while_reconciling_keeps_it_open_and_the_next_probe_can_close_it() {
    once(|| {
        let circuit = Circuit::new(BreakerScope::OneServer);
        circuit.failed(&away());
        assert!(circuit.reconcile());
        circuit.failed(&away());
        assert!(!circuit.close(), "the failure came before");
        assert!(circuit.admit().is_err());
        assert!(circuit.reconcile() && circuit.close());
        assert!(circuit.admit().is_ok());
    });
}

#[test]
fn some_failures_in_a_row_open_it_and_an_answer_between_them_does_not() {
    once(|| {
        let circuit = Circuit::new(BreakerScope::OneServer);
        for _ in 1..FAILURES {
            circuit.failed(&slow());
        }
        circuit.succeeded();
        for _ in 1..FAILURES {
            circuit.failed(&slow());
            assert!(circuit.admit().is_ok());
        }
        circuit.failed(&slow());
        assert!(circuit.admit().is_err());
        circuit.succeeded();
        assert!(circuit.admit().is_err(), "a late answer closes nothing");
    });
}

#[test]
fn a_dead_node_of_a_cluster_does_not_take_the_others_along() {
    once(|| {
        let circuit = Circuit::new(BreakerScope::Cluster);
        circuit.failed(&away());
        assert!(
            matches!(*circuit.watch().borrow(), CircuitState::Open { .. }),
            "it is told"
        );
        assert!(circuit.admit().is_ok());
    });
}

/// Callers whose calls fail and succeed, a prober that closes what it finds open, and one who waits for it to be closed.
#[test]
fn whatever_callers_and_the_prober_do_at_the_same_time_it_can_be_closed_and_says_so() {
    explore(|| {
        let circuit = shuttle::sync::Arc::new(Circuit::new(BreakerScope::OneServer));
        circuit.failed(&away());
        let waiting = {
            let mut state = circuit.watch();
            thread::spawn(move || {
                block_on(async move {
                    let closed = state
                        .wait_for(|state| matches!(state, CircuitState::Closed { .. }))
                        .await;
                    assert!(closed.is_ok());
                });
            })
        };
        let callers: Vec<_> = [away(), slow()]
            .into_iter()
            .map(|error| {
                let circuit = shuttle::sync::Arc::clone(&circuit);
                thread::spawn(move || {
                    circuit.failed(&error);
                    circuit.succeeded();
                })
            })
            .collect();
        let prober = {
            let circuit = shuttle::sync::Arc::clone(&circuit);
            thread::spawn(move || {
                while circuit.admit().is_err() {
                    if circuit.reconcile() {
                        circuit.close();
                    }
                    thread::yield_now();
                }
            })
        };
        for caller in callers {
            caller.join().expect("a caller");
        }
        prober.join().expect("the prober");
        // A failure may have been the last to come; then the prober comes again.
        if circuit.admit().is_err() {
            assert!(circuit.reconcile(), "an open circuit is not stuck");
            assert!(circuit.close());
        }
        assert!(circuit.admit().is_ok());
        assert!(matches!(*circuit.watch().borrow(), CircuitState::Closed { .. }));
        waiting.join().expect("who waits");
    });
}

/// A failure that comes while corrections are sent is not forgotten: the close that begins before it ends does not count.
#[test]
fn a_failure_between_reconciling_and_closing_is_never_lost() {
    explore(|| {
        let circuit = shuttle::sync::Arc::new(Circuit::new(BreakerScope::OneServer));
        circuit.failed(&away());
        assert!(circuit.reconcile());
        let failing = {
            let circuit = shuttle::sync::Arc::clone(&circuit);
            thread::spawn(move || circuit.failed(&away()))
        };
        let closed = circuit.close();
        failing.join().expect("a caller");
        assert!(circuit.admit().is_err(), "closed first: {closed}; the failure opens it");
        assert!(circuit.reconcile() && circuit.close());
    });
}
