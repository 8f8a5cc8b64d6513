//! Resets: once every process has heard of one, nothing that was counted before is taken from what is counted after.

use std::collections::BTreeSet;

use sluicegate::algorithms::op::Op;
use sluicegate::model::{Check, CounterKey};

use super::Oracle;
use super::seen::{Asked, Sent, signed};
use crate::rules::versions;
use crate::script::VALUES;

/// A counter's last reset, and who has heard of it.
pub(super) struct Heard {
    /// When it was carried out, by the server's clock.
    at_us: u64,
    /// Which process each replica was then.
    processes: Vec<u64>,
    /// Replicas that have read it in the log.
    replicas: BTreeSet<usize>,
    /// When all had, and how many hits of requests and calls that were under way then may still be taken back.
    all: Option<(u64, i64)>,
    /// What the store has counted of requests that came later.
    counted: i64,
}

impl Heard {
    pub(super) const fn new(at_us: u64, processes: Vec<u64>) -> Self {
        Self {
            at_us,
            processes,
            replicas: BTreeSet::new(),
            all: None,
            counted: 0,
        }
    }

    /// The store has counted hits of a request.
    pub(super) fn count(&mut self, asked_ms: u64, hits: i64) {
        if self.all.is_some_and(|(since_ms, _)| asked_ms > since_ms) {
            self.counted += hits;
        }
    }

    /// Hits that must be there.
    pub(super) fn least(&self) -> i64 {
        self.all.map_or(0, |(_, in_doubt)| self.counted - in_doubt)
    }

    /// Whether nobody serves who has not heard of it.
    fn is_known(&self, numbers: &[u64]) -> bool {
        let mut then = self.processes.iter().zip(numbers).enumerate();
        then.all(|(replica, (then, now))| now > then || self.replicas.contains(&replica))
    }
}

impl Oracle {
    /// A process forgets what it keeps of a counter, since it has reset it or heard of a reset. That may be some time after the
    /// reset, and whatever it owes the counter by then goes, too: charges of its fallback counters, so that fewer hits are
    /// counted; and what it gives back of calls that were answered too late, so that more are. It cannot know which of that
    /// is older than the reset, which was carried out by another clock (docs/operate.md, "Letting a key through again").
    pub fn forgets(&mut self, key: &CounterKey, replica: usize, process: u64) {
        let Some(counter) = self.counters.get_mut(key) else {
            return;
        };
        let of = (replica, process, key.clone());
        counter.fewer += self.by_fallback.remove(&of).unwrap_or_default();
        counter.more += self.failed.remove(&of).unwrap_or_default();
    }

    /// A replica reads an entry of the log of resets. `numbers` says which process each replica is.
    pub fn hears_of_reset(
        &mut self,
        (key, at_us): &(CounterKey, u64),
        replica: usize,
        numbers: &[u64],
        (now_ms, sent, asked): (u64, &[Sent], &[Asked]),
    ) {
        let Some(heard) = self.counters.get_mut(key).and_then(|counter| counter.heard.as_mut()) else {
            return;
        };
        if *at_us < heard.at_us || heard.all.is_some() {
            return;
        }
        heard.replicas.insert(replica);
        if heard.is_known(numbers) {
            heard.all = Some((now_ms, under_way(key, sent, asked)));
        }
    }
}

/// Hits of a counter in requests that are not answered and calls that are not heard of.
fn under_way(key: &CounterKey, sent: &[Sent], asked: &[Asked]) -> i64 {
    let requests = asked.iter().filter(|asked| !asked.answered);
    let parts = requests.flat_map(|asked| {
        let known = &versions()[asked.version].known;
        asked
            .parts
            .iter()
            .map(|&(rule, value, hits)| (known[rule].key(VALUES[value]), hits.abs()))
    });
    let asked: i64 = parts.filter(|(of, _)| of == key).map(|(_, hits)| hits).sum();
    let calls = sent.iter().filter(|sent| !sent.refused && sent.heard.at_ms().is_none());
    let checks = calls.flat_map(|sent| &sent.calls).flat_map(|call| &call.checks);
    let checks = checks.filter(|check: &&Check<_>| check.key == *key);
    let hits = checks.map(|check| match check.hits {
        Op::Acquire(hits) | Op::Lease(hits) | Op::Refund(hits) | Op::Return { hits, .. } => signed(hits),
        _ => 0,
    });
    asked + hits.sum::<i64>()
}
