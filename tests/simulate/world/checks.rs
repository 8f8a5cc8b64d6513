//! What is checked of the replicas themselves: their bounds after every event, and their rest at the end.

use sluicegate::store::Cause;
use sluicegate::store::remote::{Bound, CircuitState};

use super::World;
use crate::replica::{Replica, bounds};
use crate::script::{MAX_WAITING, VALUES};

/// Permits that one request asks for at most, together.
const MOST_DENIED: u64 = 9;

impl World<'_> {
    /// A process has ended: what it counted of itself.
    pub(super) fn note_end(&mut self, replica: &Replica) {
        let stats = replica.stats();
        for cause in &stats.causes {
            self.oracle.dropped |= cause.cause != Cause::Fallback && cause.dropped > 0;
            // Where few can wait, no caller of a leaky bucket has a deadline: the only other reason not to wait.
            if cause.cause == Cause::Wait && self.setup.small.max_waiting <= MAX_WAITING {
                self.reached.add("answers held back", cause.recorded);
            }
        }
        for (bound, times) in Bound::ALL.into_iter().zip(stats.bounds) {
            self.reached.add(bound.name(), times);
        }
        self.reached.add("denied counters", stats.denials.evicted);
        self.reached.add("fallback counters", replica.evicted());
        self.reached.add("denials noted", replica.unnoted());
        self.unnoted += replica.unnoted();
    }

    pub(super) fn check_bounds(&mut self) -> Result<(), String> {
        let bounds = bounds(self.setup);
        let mut unnoted = self.unnoted;
        for process in &mut self.processes {
            let Some(replica) = &process.replica else { continue };
            unnoted += replica.unnoted();
            let stats = replica.stats();
            // Those in flight with a call are no longer among the records.
            let most = bounds.max_corrections + 128 + crate::rules::RULES * VALUES.len();
            if stats.corrections > most {
                return Err(format!("{} corrections", stats.corrections));
            }
            let (lease_keys, denials) = (bounds.lease_keys.unwrap_or(0), bounds.denial_keys.unwrap_or(0));
            // Leases are kept in shards, each with a key at least.
            if stats.lease_keys > lease_keys.max(64) || stats.denials.entries > denials {
                return Err(format!(
                    "{} leases, {} denials",
                    stats.lease_keys, stats.denials.entries
                ));
            }
            let dropped = |cause| stats.causes[cause as usize].dropped > 0;
            self.oracle.forgotten |= replica.evicted() > 0 || dropped(Cause::Fallback) || dropped(Cause::Settlement);
            let circuits = replica.circuits();
            let is_open = circuits.iter().map(|state| matches!(state, CircuitState::Open { .. }));
            process.opened.resize(circuits.len(), false);
            for ((state, is_open), was_open) in circuits.iter().zip(is_open).zip(&mut process.opened) {
                let by_failures = matches!(state, CircuitState::Open { why, .. } if !why.is_away());
                self.reached
                    .add("failures in a row", u64::from(by_failures && !*was_open));
                *was_open = is_open;
            }
        }
        self.oracle.unnoted = unnoted * MOST_DENIED;
        Ok(())
    }

    pub(super) fn end(&mut self) -> Result<(), String> {
        for number in 0..self.processes.len() {
            let Some(replica) = self.processes[number].replica.take() else {
                continue;
            };
            let (stats, circuits) = (replica.stats(), replica.circuits());
            if !circuits
                .iter()
                .all(|state| matches!(state, CircuitState::Closed { .. }))
            {
                return Err(format!("replica {number}: a circuit is still open"));
            }
            if stats.corrections > 0 {
                return Err(format!("replica {number}: {} corrections are stuck", stats.corrections));
            }
            if stats.leased_hits > 0 {
                return Err(format!(
                    "replica {number}: {} leased hits are not back",
                    stats.leased_hits
                ));
            }
            self.note_end(&replica);
        }
        self.oracle.settled(&self.sent, &self.servers, self.now_ms)
    }
}
