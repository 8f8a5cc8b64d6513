//! What must hold, kept by somebody who sees everything: every answer, and what became of every message.

mod bound;
mod end;
mod holds;
mod resets;
mod seen;
mod slices;

use std::collections::{BTreeMap, BTreeSet};

use sluicegate::engine::{Counted, Decision, StatusLimit};
use sluicegate::model::{Algorithm, CounterKey, Limit};
use sluicegate::rules::OnStoreError;

use self::holds::HoldBook;
use self::resets::Heard;
pub use self::seen::{Asked, How, Permits, Sent, others_gave_back};
use self::seen::{Changed, changes, signed};
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
    /// What it counted no longer when it was reset last.
    gone: i64,
    /// When it was reset.
    resets: Vec<u64>,
    /// Who has heard of the last time.
    heard: Option<Heard>,
    /// Hits of calls that were carried out and not heard of.
    unheard: u64,
    /// Messages that were under way while fallback counters admitted something, each with the last time of that.
    under_way: BTreeMap<usize, u64>,
}

pub struct Oracle {
    counters: BTreeMap<CounterKey, Counter>,
    replicas: usize,
    /// Processes that died.
    crashed: BTreeSet<(usize, u64)>,
    holds: HoldBook,
    /// What each process has admitted by fallback counters and may have to tell.
    by_fallback: BTreeMap<(usize, u64, CounterKey), i64>,
    /// What it was asked and the store did not decide in time: what is counted of it all the same, it gives back.
    failed: BTreeMap<(usize, u64, CounterKey), i64>,
    /// What it was given back and could not tell the store at once.
    owed: BTreeMap<(usize, u64, CounterKey), i64>,
    /// Corrections that give back were dropped.
    pub dropped: bool,
    /// What fallback counters had counted was forgotten: a counter, or a correction that charges it, found no room.
    pub forgotten: bool,
    /// Permits that releases of denied requests may have freed, since their denials could not be noted.
    pub unnoted: u64,
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
                    gone: 0,
                    resets: Vec::new(),
                    heard: None,
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
            crashed: BTreeSet::new(),
            holds: HoldBook::default(),
            by_fallback: BTreeMap::new(),
            failed: BTreeMap::new(),
            owed: BTreeMap::new(),
            dropped: false,
            forgotten: false,
            unnoted: 0,
        }
    }

    /// Where a counter lives.
    pub fn server_of(&self, key: &CounterKey) -> usize {
        self.counters.get(key).map_or(0, |counter| counter.server)
    }

    /// A request is put to a replica. Nobody holds any longer what is released from then on.
    pub fn asked(&mut self, asked: &Asked) {
        if let Some(id) = asked.settles {
            let known = &versions()[asked.version].known;
            for &(rule, value, cost) in &asked.parts {
                self.holds
                    .may_settle(id, known[rule].key(VALUES[value]), cost.unsigned_abs());
            }
            self.holds.may_end(id);
        }
        self.release(asked, 1);
    }

    /// The same request was not taken.
    pub fn unasked(&mut self, asked: &Asked) {
        self.release(asked, -1);
    }

    fn release(&mut self, asked: &Asked, times: i64) {
        for &(rule, value, hits) in asked.parts.iter().filter(|part| part.2 < 0 && asked.how.is_due()) {
            let key = versions()[asked.version].known[rule].key(VALUES[value]);
            self.released(&key, -hits * times);
        }
    }

    /// A request was decided. The permits that it asked for.
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
    ) -> Result<Vec<Permits>, String> {
        let known = &versions()[asked.version].known;
        let mut permits = Vec::new();
        for (&(rule, value, hits), status) in asked.parts.iter().zip(&decision.statuses) {
            let StatusLimit::Counted(status) = &status.limit else {
                return Err(format!("no rule for {}", known[rule].name));
            };
            let rule_known = &known[rule];
            let key = rule_known.key(VALUES[value]);
            let part = (rule, value, hits.unsigned_abs());
            if hits > 0 && decision.failure.is_some() {
                let failed = self.failed.entry((asked.replica, asked.process, key.clone()));
                *failed.or_default() += hits;
            }
            if hits < 0 {
                // Nobody holds it any longer since the release was asked for; the process must still tell the store, unless
                // it dies.
                if decision.failure.is_some() {
                    *self.owed.entry((asked.replica, asked.process, key)).or_default() -= hits;
                }
            } else if let Some(id) = asked.settles {
                self.settled_hold(asked, id, &key, part.2, decision, status, rule_known, servers)?;
            } else if rule_known.is_held() {
                self.held(asked, &key, part.2, decision, status, rule_known, servers)?;
            } else if is_counted(rule_known, decision, status) {
                self.counted(asked, &key, part.2, decision, now_ms, sent)?;
                if decision.over_limit || status.denied || rule_known.debits {
                    continue;
                }
                self.admitted(asked, &key, part.2, now_ms, servers, sent)?;
                if rule_known.is_permit() {
                    permits.push(Permits { part, granted: true });
                }
            } else if status.permits == Some(0) {
                permits.push(Permits { part, granted: false });
            }
        }
        if let (Some(id), None) = (asked.settles, decision.failure) {
            self.holds.has_ended(id);
        }
        Ok(permits)
    }

    /// Hits that were asked for are counted somewhere.
    fn counted(
        &mut self,
        asked: &Asked,
        key: &CounterKey,
        hits: u64,
        decision: &Decision,
        now_ms: u64,
        sent: &[Sent],
    ) -> Result<(), String> {
        let process = (asked.replica, asked.process);
        let counter = self.counters.get_mut(key).ok_or("an unknown counter")?;
        counter.expected += signed(hits);
        if decision.failure.is_some() {
            let open = |message: &(usize, &Sent)| message.1.is_under_way(process, now_ms);
            let under_way = sent.iter().enumerate().filter(open).map(|(number, _)| (number, now_ms));
            counter.under_way.extend(under_way);
            let by_fallback = self.by_fallback.entry((process.0, process.1, key.clone()));
            *by_fallback.or_default() += signed(hits);
        } else if let Some(heard) = &mut counter.heard {
            heard.count(asked.asked_ms, signed(hits));
        }
        Ok(())
    }

    /// Hits have passed.
    fn admitted(
        &mut self,
        asked: &Asked,
        key: &CounterKey,
        hits: u64,
        now_ms: u64,
        servers: &[Server],
        sent: &[Sent],
    ) -> Result<(), String> {
        let counter = self.counters.get_mut(key).ok_or("an unknown counter")?;
        let server = &servers[counter.server];
        let (from_us, time_us) = (asked.from_us[counter.server], server.steady_us(now_ms));
        counter.admitted.push(Admitted {
            from_us: from_us.min(time_us),
            to_us: from_us.max(time_us),
            hits,
        });
        if matches!(counter.limit.algorithm, Algorithm::Concurrency) {
            counter.held += hits;
        }
        if self.forgotten && counter.local {
            return Ok(());
        }
        let allowance = (self.replicas - 1 + self.crashed.len()) as u64;
        let now = bound::Now {
            ms: now_ms,
            server,
            sent,
            unnoted: self.unnoted,
        };
        bound::check(key, counter, &now, allowance, self.replicas)
    }

    /// A caller gives so many permits back; where it is negative, it has them still, since nobody took them.
    fn released(&mut self, key: &CounterKey, hits: i64) {
        if let Some(counter) = self.counters.get_mut(key) {
            counter.held = counter.held.saturating_add_signed(-hits);
            counter.expected -= hits;
        }
    }

    /// So many hits more may be counted.
    pub fn doubt(&mut self, key: &CounterKey, hits: i64) {
        if let Some(counter) = self.counters.get_mut(key) {
            counter.more += hits;
        }
    }

    /// A server has made a counter as new. What it had counted before is gone, whoever hears of it later; leases on it are
    /// used up, and corrections of it take effect, until their processes hear of the reset.
    pub fn reset(&mut self, key: &CounterKey, now_ms: u64, at_us: u64, processes: Vec<u64>, sent: &[Sent]) {
        let Some(counter) = self.counters.get_mut(key) else {
            return;
        };
        counter.resets.push(now_ms);
        counter.heard = Some(Heard::new(at_us, processes));
        let carried_out = sent.iter().filter(|message| message.answers.is_some());
        let of_key = carried_out.flat_map(changes).filter(|changed| changed.key == *key);
        counter.fewer += of_key.map(|changed| changed.hits).sum::<i64>();
        // Taken out, since each of these hits is lost once at most: now, or when its process hears of the reset or dies.
        let by_fallback = self.by_fallback.iter_mut().filter(|((_, _, of), _)| of == key);
        let by_fallback = by_fallback.map(|(_, hits)| std::mem::take(hits)).sum::<i64>();
        counter.fewer += by_fallback;
        counter.more += by_fallback;
        // Permits are released by those who hold them all the same, and what fallback counters have admitted is charged.
        if !counter.local && !matches!(counter.limit.algorithm, Algorithm::Concurrency) {
            counter.gone = counter.expected.max(0);
        }
    }

    /// A caller went away before it was answered, or its replica died: its hits are counted or not.
    pub fn unanswered(&mut self, asked: &Asked) {
        for &(rule, value, hits) in &asked.parts {
            let known = &versions()[asked.version].known[rule];
            // A hold is none of the hits that are used.
            if !known.is_held() || asked.settles.is_some() {
                self.doubt(&known.key(VALUES[value]), hits.abs());
            }
        }
    }

    /// A process died: its leases, its corrections and its permits in flight died with it.
    pub fn crashed(&mut self, replica: usize, process: u64, sent: &[Sent]) {
        self.crashed.insert((replica, process));
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
}

/// Whether a status says that its hits are counted somewhere.
fn is_counted(known: &Known, decision: &Decision, status: &Counted) -> bool {
    let somewhere = decision.failure.is_none() || known.mode == OnStoreError::Local;
    somewhere && (known.debits || !decision.over_limit && !status.denied)
}
