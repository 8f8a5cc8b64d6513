//! The circuit breaker: whether a server is asked at all.
//!
//! The circuit opens after a few failures in a row, or at once when there is no connection: from then on every call fails
//! without being sent, so that the failure mode answers without waiting. A probe of our own (no user's request) finds out
//! when the server answers again; then the ledger's corrections are sent before users' requests are (`Reconciling`).
//!
//! Over a cluster the circuit stops no calls: each node's connections fail at once by themselves while it is away, and the
//! other nodes must still be asked. It only tells that something fails.
//!
//! All of it is one watched value: whoever reads it sees one state, and every transition is one step from one state.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use super::transport::BreakerScope;
use crate::store::StoreError;

/// Failures in a row that open the circuit. A lost connection opens it at once.
const FAILURES: u32 = 5;
/// Without a failure for so long, a cluster counts as whole.
const QUIET: Duration = Duration::from_secs(1);

/// Whether the server is asked.
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
    /// The server answers again and is told what was decided meanwhile; users' calls are not sent yet.
    Reconciling,
}

/// The circuit of one server or cluster.
#[derive(Debug)]
pub struct Circuit {
    state: watch::Sender<CircuitState>,
    scope: BreakerScope,
}

impl Circuit {
    /// A closed one.
    #[must_use]
    pub fn new(scope: BreakerScope) -> Self {
        Self {
            state: watch::Sender::new(CircuitState::Closed { failures: 0 }),
            scope,
        }
    }

    /// The state, to be watched.
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
    /// Why not; the call counts as not sent.
    pub fn admit(&self) -> Result<(), StoreError> {
        if self.scope == BreakerScope::Cluster {
            return Ok(());
        }
        let text = match &*self.state.borrow() {
            CircuitState::Closed { .. } => return Ok(()),
            CircuitState::Open { why, .. } => format!("the circuit is open: {why}"),
            CircuitState::Reconciling => {
                "the circuit is open: the server is told what was decided while it was away".to_owned()
            }
        };
        Err(StoreError::Unavailable(text))
    }

    /// The server has answered.
    pub fn succeeded(&self) {
        if matches!(*self.state.borrow(), CircuitState::Closed { failures: 1.. }) {
            self.step(|state| match state {
                CircuitState::Closed { .. } => Some(CircuitState::Closed { failures: 0 }),
                CircuitState::Open { .. } | CircuitState::Reconciling => None,
            });
        }
    }

    /// A call has failed.
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
            // One that was sent before, or that a cluster was asked all the same.
            CircuitState::Open { .. } => open(),
        });
    }

    /// Whether the time has come to see if an open circuit can be closed without a probe: over a cluster, where a probe
    /// would ask only one of the servers.
    #[must_use]
    pub fn is_quiet(&self) -> bool {
        match &*self.state.borrow() {
            CircuitState::Open { failed, .. } => failed.elapsed() >= QUIET,
            CircuitState::Closed { .. } | CircuitState::Reconciling => true,
        }
    }

    /// From open to reconciling; whether it was open.
    #[must_use]
    pub fn reconcile(&self) -> bool {
        self.step(|state| match state {
            CircuitState::Open { .. } => Some(CircuitState::Reconciling),
            CircuitState::Closed { .. } | CircuitState::Reconciling => None,
        })
    }

    /// From reconciling to closed; `false` where a failure has opened it meanwhile.
    pub fn close(&self) -> bool {
        self.step(|state| match state {
            CircuitState::Reconciling => Some(CircuitState::Closed { failures: 0 }),
            CircuitState::Closed { .. } | CircuitState::Open { .. } => None,
        })
    }

    /// One transition, whether it was made; none if `next` says so.
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
