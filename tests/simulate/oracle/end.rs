//! The end of a run: what the counters must be once everything had its time.

use sluicegate::algorithms::quota;
use sluicegate::model::{Algorithm, CounterKey};

use super::resets::Heard;
use super::seen::{Changed, Sent, changes, signed};
use super::{Counter, Oracle, slices};
use crate::server::Server;

impl Oracle {
    /// After the faults and the load have ended and everything had its time.
    ///
    /// # Errors
    /// A counter that is not what it must be.
    pub fn settled(&mut self, sent: &[Sent], servers: &[Server], now_ms: u64) -> Result<(), String> {
        for message in sent.iter().filter(|message| !message.refused) {
            let in_doubt = message.heard.at_ms().is_none() || message.failed;
            for Changed { key, hits, leased, .. } in changes(message) {
                if let Some(counter) = self.counters.get_mut(&key)
                    // A process that hears of a reset drops its lease, also one that was granted after the reset.
                    && (in_doubt || leased && !counter.resets.is_empty())
                {
                    counter.more += hits;
                }
            }
        }
        for (key, counter) in &self.counters {
            let server = &servers[counter.server];
            let lasts = counter.limit.window_us >= 60_000_000;
            if counter.allow || server.lost_data {
                continue;
            }
            self.holds_are_told(key, counter, sent, server, now_ms)?;
            if lasts {
                self.uses_are_told(key, counter, server, now_ms)?;
            }
            slices::check(key, counter, server, now_ms, self.dropped)?;
        }
        Ok(())
    }

    /// What a counter has in use is what was admitted, and what is in doubt at most.
    fn uses_are_told(&self, key: &CounterKey, counter: &Counter, server: &Server, now_ms: u64) -> Result<(), String> {
        let (in_use, held) = server.look(now_ms, key, &counter.limit);
        let (in_use, held) = (signed(in_use), signed(held));
        let most = signed(quota(&counter.limit));
        let is_permit = matches!(counter.limit.algorithm, Algorithm::Concurrency);
        let unnoted = if is_permit { signed(self.unnoted) } else { 0 };
        let least = ((counter.expected - counter.fewer - unnoted).max(0) + held).min(most);
        let may_be_forgotten = counter.local || counter.limit.hold_us > 0;
        if in_use < least && !(self.forgotten && may_be_forgotten) {
            return Err(format!(
                "{key}: {in_use} hits are in use ({held} of them held), {least} were admitted: too few"
            ));
        }
        let least = counter.heard.as_ref().map_or(0, Heard::least).min(most);
        if in_use < least && !is_permit {
            return Err(format!(
                "{key}: {in_use} hits are in use, {least} were counted since every process had heard of its reset"
            ));
        }
        // A release that overtakes the charge of its permit, which another replica still owes, finds nothing to free:
        // the permit stays counted until its ttl.
        let overtaken = counter.local && is_permit;
        let largest = ((counter.expected - counter.gone + counter.more).max(0) + held).min(most);
        if in_use > largest && !self.dropped && !overtaken {
            return Err(format!(
                "{key}: {in_use} hits are in use ({held} of them held), {} were admitted since it was as new and {} are in \
                 doubt: too many",
                counter.expected - counter.gone,
                counter.more
            ));
        }
        Ok(())
    }
}
