//! What is checked of the replicas themselves: their bounds after every event, and their rest at the end.

use sluicegate::store::Cause;
use sluicegate::store::remote::RemoteStats;

use super::World;
use crate::replica::bounds;
use crate::script::VALUES;

impl World<'_> {
    pub(super) fn dropped(&mut self, stats: &RemoteStats) {
        for cause in &stats.causes {
            if cause.cause == Cause::Fallback {
                self.oracle.dropped_charges += cause.dropped;
            } else {
                self.oracle.dropped += cause.dropped;
            }
        }
    }

    pub(super) fn check_bounds(&mut self) -> Result<(), String> {
        let bounds = bounds(self.setup);
        for process in &self.processes {
            let Some(replica) = &process.replica else { continue };
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
            let full = setup_is_full(self.setup.tight, stats.lease_keys, lease_keys);
            self.reached.lease_keys |= full;
            self.reached.denials |= setup_is_full(self.setup.tight, stats.denials.entries, denials);
            self.reached.corrections |= self.setup.tight && stats.corrections >= bounds.max_corrections;
        }
        Ok(())
    }

    pub(super) fn end(&mut self) -> Result<(), String> {
        for number in 0..self.processes.len() {
            let Some(replica) = &self.processes[number].replica else {
                continue;
            };
            let (stats, is_closed) = (replica.stats(), replica.is_closed());
            if !is_closed {
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
            self.dropped(&stats);
        }
        self.oracle.settled(&self.sent, &self.servers, self.now_ms)
    }
}

fn setup_is_full(tight: bool, held: usize, most: usize) -> bool {
    tight && most > 0 && held >= most
}
