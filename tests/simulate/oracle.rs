//! What must hold, kept by somebody who sees everything: every answer, and what became of every message.

mod bound;

use std::collections::BTreeMap;
use std::sync::Arc;

use sluicegate::algorithms::op::Op;
use sluicegate::algorithms::quota;
use sluicegate::engine::{Counted, Decision, StatusLimit};
use sluicegate::model::{Algorithm, CounterKey, Limit, Transaction};
use sluicegate::rules::OnStoreError;
use sluicegate::store::remote::transport::Answers;

use crate::network::Heard;
use crate::rules::{Known, versions};
use crate::script::{Setup, VALUES};
use crate::server::Server;

/// Hits that a caller was given: counted at some time of the server's clock between these two.
#[derive(Debug, Clone, Copy)]
struct Admitted {
    from_us: u64,
    to_us: u64,
    hits: u64,
}

/// All that is known of one counter.
struct Counter {
    /// The largest of its limits: the number may change with the rules.
    limit: Limit,
    server: usize,
    /// Some version of its rule answers by fallback counters.
    local: bool,
    /// Some version lets everything pass while the store cannot answer.
    allow: bool,
    admitted: Vec<Admitted>,
    /// Permits that callers hold.
    held: u64,
    /// What a server that has heard everything counts.
    expected: i64,
    /// How many more it may count: calls that were carried out and not heard of, and such.
    more: i64,
    /// How many fewer: what a process had still to tell when it died.
    fewer: i64,
    /// Hits of calls that were carried out and not heard of.
    unheard: u64,
    /// Messages that were under way while fallback counters admitted something, each with the last time of that.
    under_way: BTreeMap<usize, u64>,
}

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
    fn is_under_way(&self, process: (usize, u64), at_ms: u64) -> bool {
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
}

pub struct Oracle {
    counters: BTreeMap<CounterKey, Counter>,
    replicas: usize,
    /// Processes that died.
    crashes: u64,
    /// What each process has admitted by fallback counters.
    by_fallback: BTreeMap<(usize, u64, CounterKey), i64>,
    /// What it was given back and could not tell the store at once.
    owed: BTreeMap<(usize, u64, CounterKey), i64>,
    /// Corrections that give back were dropped.
    pub dropped: bool,
    /// What fallback counters had counted was forgotten: a counter, or a correction that charges it, found no room.
    pub forgotten: bool,
}

impl Oracle {
    pub fn new(setup: &Setup, server_of: impl Fn(&CounterKey, &Limit) -> usize) -> Self {
        let mut counters: BTreeMap<CounterKey, Counter> = BTreeMap::new();
        for known in versions().iter().flat_map(|version| &version.known) {
            for value in VALUES {
                let key = known.key(value);
                let server = server_of(&key, &known.limit);
                let counter = counters.entry(key).or_insert(Counter {
                    limit: known.limit,
                    server,
                    local: false,
                    allow: false,
                    admitted: Vec::new(),
                    held: 0,
                    expected: 0,
                    more: 0,
                    fewer: 0,
                    unheard: 0,
                    under_way: BTreeMap::new(),
                });
                counter.local |= known.mode == OnStoreError::Local;
                counter.allow |= known.mode == OnStoreError::Allow;
                if known.limit.hits > counter.limit.hits {
                    counter.limit = known.limit;
                }
            }
        }
        Self {
            counters,
            replicas: setup.replicas,
            crashes: 0,
            by_fallback: BTreeMap::new(),
            owed: BTreeMap::new(),
            dropped: false,
            forgotten: false,
        }
    }

    /// A request was decided. The permits that its caller holds now, as rule, value and number.
    ///
    /// # Errors
    /// A limit that was passed.
    pub fn decided(
        &mut self,
        asked: &Asked,
        decision: &Decision,
        now_ms: u64,
        servers: &[Server],
        sent: &[Sent],
    ) -> Result<Vec<(usize, usize, u64)>, String> {
        let known = &versions()[asked.version].known;
        let process = (asked.replica, asked.process);
        let mut permits = Vec::new();
        for (&(rule, value, hits), status) in asked.parts.iter().zip(&decision.statuses) {
            let StatusLimit::Counted(status) = &status.limit else {
                return Err(format!("no rule for {}", known[rule].name));
            };
            let rule_known = &known[rule];
            let key = rule_known.key(VALUES[value]);
            if hits < 0 {
                // Nobody holds it any longer since the release was asked for; the process must still tell the store, unless
                // it dies.
                if decision.failure.is_some() {
                    *self.owed.entry((asked.replica, asked.process, key)).or_default() -= hits;
                }
                continue;
            }
            if !is_counted(rule_known, decision, status) {
                continue;
            }
            let counter = self.counters.get_mut(&key).ok_or("an unknown counter")?;
            counter.expected += hits;
            if decision.failure.is_some() {
                let open = |message: &(usize, &Sent)| message.1.is_under_way(process, now_ms);
                let under_way = sent.iter().enumerate().filter(open).map(|(number, _)| (number, now_ms));
                counter.under_way.extend(under_way);
                *self
                    .by_fallback
                    .entry((asked.replica, asked.process, key.clone()))
                    .or_default() += hits;
            }
            if decision.over_limit || status.denied || rule_known.debits {
                continue;
            }
            let server = &servers[counter.server];
            let (from_us, time_us) = (asked.from_us[counter.server], server.steady_us(now_ms));
            counter.admitted.push(Admitted {
                from_us: from_us.min(time_us),
                to_us: from_us.max(time_us),
                hits: hits.unsigned_abs(),
            });
            if rule_known.is_permit() {
                counter.held += hits.unsigned_abs();
                permits.push((rule, value, hits.unsigned_abs()));
            }
            let allowance = self.replicas as u64 - 1 + self.crashes;
            if self.forgotten && counter.local {
                continue;
            }
            let now = bound::Now {
                ms: now_ms,
                server,
                sent,
            };
            bound::check(&key, counter, &now, allowance, self.replicas)?;
        }
        Ok(permits)
    }

    /// A caller gives so many permits back; where it is negative, it has them still, since nobody took them.
    pub fn released(&mut self, key: &CounterKey, hits: i64) {
        if let Some(counter) = self.counters.get_mut(key) {
            counter.held = counter.held.saturating_add_signed(-hits);
            counter.expected -= hits;
        }
    }

    /// A caller went away before it was answered, or its replica died: its hits are counted or not.
    pub fn unanswered(&mut self, asked: &Asked) {
        for &(rule, value, hits) in &asked.parts {
            let known = &versions()[asked.version].known[rule];
            if let Some(counter) = self.counters.get_mut(&known.key(VALUES[value])) {
                counter.more += hits.abs();
            }
        }
    }

    /// A process died: its leases, its corrections and its permits in flight died with it.
    pub fn crashed(&mut self, replica: usize, process: u64, sent: &[Sent]) {
        self.crashes += 1;
        for message in sent
            .iter()
            .filter(|sent| (sent.replica, sent.process) == (replica, process))
        {
            for Changed { key, hits, .. } in changes(message) {
                if let Some(counter) = self.counters.get_mut(&key) {
                    counter.more += hits;
                }
            }
        }
        let of_process = |(of, at, _): &(usize, u64, CounterKey)| (*of, *at) == (replica, process);
        for ((_, _, key), hits) in self.owed.iter().filter(|(of, _)| of_process(of)) {
            if let Some(counter) = self.counters.get_mut(key) {
                counter.more += hits;
            }
        }
        let debts = self.by_fallback.iter();
        for ((_, _, key), hits) in debts.filter(|(of, _)| of_process(of)) {
            if let Some(counter) = self.counters.get_mut(key) {
                counter.fewer += hits;
            }
        }
    }

    /// Nobody will hear of this message any more.
    pub fn is_unheard(&mut self, message: &Sent) {
        if message.answers.is_none() {
            return;
        }
        for Changed { key, hits, .. } in changes(message) {
            if let Some(counter) = self.counters.get_mut(&key) {
                counter.unheard += hits.unsigned_abs();
            }
        }
    }

    /// After the faults and the load have ended and everything had its time.
    ///
    /// # Errors
    /// A counter that is not what it must be.
    pub fn settled(&mut self, sent: &[Sent], servers: &[Server], now_ms: u64) -> Result<(), String> {
        for message in sent {
            if message.heard.at_ms().is_some() && !message.failed || message.refused {
                continue;
            }
            for Changed { key, hits, .. } in changes(message) {
                if let Some(counter) = self.counters.get_mut(&key) {
                    counter.more += hits;
                }
            }
        }
        for (key, counter) in &self.counters {
            let server = &servers[counter.server];
            let lasts = counter.limit.window_us >= 60_000_000;
            if !lasts || counter.allow || server.lost_data {
                continue;
            }
            let used = i64::try_from(server.used(now_ms, key, &counter.limit)).unwrap_or(i64::MAX);
            let most = i64::try_from(quota(&counter.limit)).unwrap_or(i64::MAX);
            let least = (counter.expected - counter.fewer).clamp(0, most);
            if used < least && !(self.forgotten && counter.local) {
                return Err(format!(
                    "{key}: {used} hits are counted, {least} were admitted: too few"
                ));
            }
            // A release that overtakes the charge of its permit, which another replica still owes, finds nothing to free:
            // the permit stays counted until its ttl.
            let overtaken = counter.local && matches!(counter.limit.algorithm, Algorithm::Concurrency);
            let largest = (counter.expected + counter.more).clamp(0, most);
            if used > largest && !self.dropped && !overtaken {
                return Err(format!(
                    "{key}: {used} hits are counted, {} were admitted and {} are in doubt: too many",
                    counter.expected, counter.more
                ));
            }
        }
        Ok(())
    }
}

/// Whether a status says that its hits are counted somewhere.
fn is_counted(known: &Known, decision: &Decision, status: &Counted) -> bool {
    let somewhere = decision.failure.is_none() || known.mode == OnStoreError::Local;
    somewhere && (known.debits || !decision.over_limit && !status.denied)
}

/// What a message changes in a counter where it is carried out, or would.
struct Changed {
    key: CounterKey,
    hits: i64,
    /// The store has admitted them: a request's, or a lease's.
    admitted: bool,
}

fn changes(message: &Sent) -> Vec<Changed> {
    let mut all = Vec::new();
    for (at, call) in message.calls.iter().enumerate() {
        let answers = message.answers.as_ref().and_then(|answers| answers.get(at));
        let passes = answers.is_some_and(|answers| call.passes(answers.iter().map(|answer| answer.outcome.allowed)));
        for (number, check) in call.checks.iter().enumerate() {
            let answer = answers.and_then(|answers| answers.get(number));
            let (hits, admitted) = match (check.hits, answer) {
                (Op::Refund(hits) | Op::Return { hits, .. } | Op::Debit(hits), _) => (hits, false),
                (Op::Acquire(hits), Some(answer)) if passes && answer.outcome.allowed => (hits, true),
                (Op::Lease(_), Some(answer)) if passes => (answer.grant.map_or(0, |grant| grant.hits), true),
                _ => continue,
            };
            all.push(Changed {
                key: check.key.clone(),
                hits: i64::try_from(hits).unwrap_or(0),
                admitted,
            });
        }
    }
    all
}
