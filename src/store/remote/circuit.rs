//! The circuit breaker: whether calls are sent to a server.
//!
//! The circuit opens after a few failures in a row, or at once when there is no connection: from then on every call fails
//! without being sent, so that the failure mode answers without waiting. A periodic probe (never a user's request) notices when
//! the server answers again; then the ledger's corrections are sent before users' requests are (`Reconciling`).
//!
//! Over a cluster the circuit stops no calls: each node's connections fail at once by themselves while it is away, and the
//! other nodes must still be asked. There the circuit only reports that calls fail.
//!
//! The state is one watched value: every reader sees one whole state, and every transition is atomic.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use super::transport::BreakerScope;
use crate::store::StoreError;

/// Failures in a row that open the circuit. A lost connection opens it at once.
const FAILURES: u32 = 5;
/// After this long without a failure, the circuit of a cluster closes.
const QUIET: Duration = Duration::from_secs(1);

/// Whether calls are sent to the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CircuitState {
    /// Calls are sent.
    Closed {
        /// Calls that failed since the last answer.
        failures: u32,
    },
    /// Calls are not sent.
    Open {
        /// When the last call failed.
        failed: Instant,
        /// How it failed.
        why: StoreError,
    },
    /// The server answers again and gets the corrections that were recorded meanwhile; users' calls are not sent yet.
    Reconciling,
}

/// The circuit of one server or cluster.
#[derive(Debug)]
pub struct Circuit {
    state: watch::Sender<CircuitState>,
    scope: BreakerScope,
}

impl Circuit {
    /// A closed circuit.
    #[must_use]
    pub fn new(scope: BreakerScope) -> Self {
        Self {
            state: watch::Sender::new(CircuitState::Closed { failures: 0 }),
            scope,
        }
    }

    /// Watches the state.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<CircuitState> {
        self.state.subscribe()
    }

    /// What a failure says about other calls.
    #[must_use]
    pub const fn scope(&self) -> BreakerScope {
        self.scope
    }

    /// Whether a user's call may be sent.
    ///
    /// # Errors
    /// Why it may not; the call counts as not sent.
    pub fn admit(&self) -> Result<(), StoreError> {
        if self.scope == BreakerScope::Cluster {
            return Ok(());
        }
        let text = match &*self.state.borrow() {
            CircuitState::Closed { .. } => return Ok(()),
            CircuitState::Open { why, .. } => format!("the circuit is open: {why}"),
            CircuitState::Reconciling => {
                "the circuit is open: the server first gets the hits that were admitted while it was away".to_owned()
            }
        };
        Err(StoreError::Unavailable(text))
    }

    /// Records that the server has answered.
    pub fn succeeded(&self) {
        if matches!(*self.state.borrow(), CircuitState::Closed { failures: 1.. }) {
            self.step(|state| match state {
                CircuitState::Closed { .. } => Some(CircuitState::Closed { failures: 0 }),
                CircuitState::Open { .. } | CircuitState::Reconciling => None,
            });
        }
    }

    /// Records that a call has failed.
    pub fn failed(&self, error: &StoreError) {
        if !error.is_about_the_server() {
            return;
        }
        let open = || {
            Some(CircuitState::Open {
                failed: Instant::now(),
                why: error.clone(),
            })
        };
        self.step(|state| match state {
            CircuitState::Closed { failures } if failures + 1 < FAILURES && !error.is_away() => {
                Some(CircuitState::Closed { failures: failures + 1 })
            }
            CircuitState::Closed { .. } | CircuitState::Reconciling => open(),
            // A call that was sent before the circuit opened, or a call to a cluster, whose circuit stops none.
            CircuitState::Open { .. } => open(),
        });
    }

    /// Whether a cluster has been without failures for long enough that its circuit can close. (A probe would reach only one
    /// of its servers.)
    #[must_use]
    pub fn is_quiet(&self) -> bool {
        match &*self.state.borrow() {
            CircuitState::Open { failed, .. } => failed.elapsed() >= QUIET,
            CircuitState::Closed { .. } | CircuitState::Reconciling => true,
        }
    }

    /// Changes the circuit from open to reconciling; returns whether it was open.
    #[must_use]
    pub fn reconcile(&self) -> bool {
        self.step(|state| match state {
            CircuitState::Open { .. } => Some(CircuitState::Reconciling),
            CircuitState::Closed { .. } | CircuitState::Reconciling => None,
        })
    }

    /// Changes the circuit from reconciling to closed; returns `false` if a failure has opened it meanwhile.
    pub fn close(&self) -> bool {
        self.step(|state| match state {
            CircuitState::Reconciling => Some(CircuitState::Closed { failures: 0 }),
            CircuitState::Closed { .. } | CircuitState::Open { .. } => None,
        })
    }

    /// Makes one transition, to what `next` returns; returns whether one was made.
    fn step(&self, next: impl FnOnce(&CircuitState) -> Option<CircuitState>) -> bool {
        self.state.send_if_modified(|state| match next(state) {
            Some(new) => {
                *state = new;
                true
            }
            None => false,
        })
    }
}
