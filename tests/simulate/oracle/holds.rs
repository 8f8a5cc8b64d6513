//! Holds: what callers were told that they hold, what has become of it, and what must be left of it.

use std::collections::{BTreeMap, BTreeSet};

use sluicegate::algorithms::op::Op;
use sluicegate::engine::{Counted, Decision};
use sluicegate::model::{CounterKey, HoldId};
use sluicegate::rules::OnStoreError;

use super::seen::{Asked, Sent, signed};
use super::{Counter, Oracle};
use crate::rules::{Known, holds_last};
use crate::server::Server;

/// Whether a hold has been settled.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
enum Ending {
    #[default]
    No,
    /// Somebody has tried to, and the store may have heard it.
    Perhaps,
    Yes,
}

/// A process: its replica's number and its own.
type Process = (usize, u64);

/// What a hold keeps on one counter.
#[derive(Debug, Clone, Copy, Default)]
struct Own {
    /// As the caller was told.
    told: u64,
    /// Fallback counters may have told less than the store has made of the same request.
    most: u64,
    /// It was told by fallback counters: this process has the store make it, unless it dies.
    by: Option<Process>,
}

#[derive(Default)]
struct Hold {
    /// By counter.
    own: BTreeMap<CounterKey, Own>,
    ending: Ending,
    /// Processes that have settled it while the store did not answer: each has the store do so, unless it dies.
    ended_by: BTreeSet<Process>,
}

/// All holds that callers know of.
#[derive(Default)]
pub(super) struct HoldBook {
    holds: BTreeMap<HoldId, Hold>,
    /// Those that the store has charged for, by counter.
    charged: BTreeSet<(HoldId, CounterKey)>,
    /// The smallest cost that was told to be charged for a hold.
    least: BTreeMap<(HoldId, CounterKey), u64>,
    /// The smallest that was asked for: whoever asked may have died before it was told, and the store charges the first it hears.
    asked: BTreeMap<(HoldId, CounterKey), u64>,
    /// By how much settlements were larger than their holds, or had none.
    over: BTreeMap<CounterKey, u64>,
}

impl HoldBook {
    pub fn may_settle(&mut self, id: HoldId, key: CounterKey, cost: u64) {
        let asked = self.asked.entry((id, key)).or_insert(cost);
        *asked = cost.min(*asked);
    }

    /// Notes a cost that was told; the smallest of this hold, before and now.
    fn told(&mut self, id: HoldId, key: &CounterKey, cost: u64) -> (Option<u64>, u64) {
        let hold = (id, key.clone());
        let asked = self.asked.get(&hold).copied().unwrap_or(cost);
        let before = self.least.get(&hold).copied();
        let least = before.unwrap_or(cost).min(cost).min(asked);
        self.least.insert(hold, least);
        (before, least)
    }

    pub fn may_end(&mut self, id: HoldId) {
        let hold = self.holds.entry(id).or_default();
        hold.ending = hold.ending.max(Ending::Perhaps);
    }

    pub fn has_ended(&mut self, id: HoldId) {
        self.holds.entry(id).or_default().ending = Ending::Yes;
    }

    /// What holds of a counter keep at least: those that nobody has tried to end.
    fn least(&self, key: &CounterKey, crashed: &BTreeSet<Process>) -> u64 {
        let holds = self.holds.values().filter(|hold| hold.ending == Ending::No);
        let own = holds.filter_map(|hold| hold.own.get(key));
        own.filter(|own| own.by.is_none_or(|by| !crashed.contains(&by)))
            .map(|own| own.told)
            .sum()
    }

    /// What they keep at most: those that have not ended for certain.
    fn most(&self, key: &CounterKey, crashed: &BTreeSet<Process>) -> u64 {
        let has_ended =
            |hold: &&Hold| hold.ending == Ending::Yes || hold.ended_by.iter().any(|process| !crashed.contains(process));
        let holds = self.holds.values().filter(|hold| !has_ended(hold));
        holds.filter_map(|hold| hold.own.get(key)).map(|own| own.most).sum()
    }

    /// Whether a caller was told that it holds something.
    fn is_told(&self, id: HoldId, key: &CounterKey) -> bool {
        self.holds.get(&id).is_some_and(|hold| hold.own.contains_key(key))
    }

    fn over(&self, key: &CounterKey) -> u64 {
        self.over.get(key).copied().unwrap_or_default()
    }
}

impl Oracle {
    /// A caller was told what it holds.
    ///
    /// # Errors
    /// What is used and held is more than the limit.
    #[allow(clippy::too_many_arguments, reason = "all that an answer says")]
    pub(super) fn held(
        &mut self,
        asked: &Asked,
        key: &CounterKey,
        hits: u64,
        decision: &Decision,
        status: &Counted,
        known: &Known,
        servers: &[Server],
    ) -> Result<(), String> {
        let (Some(id), true) = (decision.hold, status.holds) else {
            return Ok(());
        };
        let told = status.outcome.holds.own;
        let by_fallback = decision.failure.is_some();
        let own = self
            .holds
            .holds
            .entry(id)
            .or_default()
            .own
            .entry(key.clone())
            .or_default();
        own.told += told;
        own.most += if by_fallback { hits } else { told };
        own.by = by_fallback.then_some((asked.replica, asked.process));
        let counter = self.counters.get(key).ok_or("an unknown counter")?;
        if by_fallback || !known.holds_last() || known.mode != OnStoreError::Deny || servers[counter.server].lost_data {
            return Ok(());
        }
        let kept = self.holds.least(key, &self.crashed);
        let used = counter.expected - counter.gone;
        let bound = counter.limit.hits + self.holds.over(key);
        if used + signed(kept) > signed(bound) {
            return Err(format!(
                "{key}: {used} hits are used and {kept} held, {bound} at most may be"
            ));
        }
        Ok(())
    }

    /// A caller was told that its cost is charged, or why not.
    ///
    /// # Errors
    /// The store has charged for this hold before.
    #[allow(clippy::too_many_arguments, reason = "all that an answer says")]
    pub(super) fn settled_hold(
        &mut self,
        asked: &Asked,
        id: HoldId,
        key: &CounterKey,
        cost: u64,
        decision: &Decision,
        status: &Counted,
        known: &Known,
        servers: &[Server],
    ) -> Result<(), String> {
        let process = (asked.replica, asked.process);
        if decision.failure.is_some() {
            self.holds.holds.entry(id).or_default().ended_by.insert(process);
        }
        if status.outcome.holds.repeated {
            // The store may have settled it for this very request, of which another part failed.
            if let (Some(_), Some(counter)) = (decision.failure, self.counters.get_mut(key)) {
                let (before, least) = self.holds.told(id, key, cost);
                counter.expected += signed(least) - signed(before.unwrap_or(least));
                counter.more += signed(before.unwrap_or(0).max(cost));
            }
            return Ok(());
        }
        let lost_data = servers[self.server_of(key)].lost_data;
        let by_store = decision.failure.is_none() && known.holds_last() && !lost_data;
        let is_told = self.holds.is_told(id, key);
        if by_store && is_told && !self.holds.charged.insert((id, key.clone())) {
            return Err(format!("{key}: a hold was charged for twice"));
        }
        let hold = self.holds.holds.get(&id).filter(|hold| hold.ending < Ending::Yes);
        let own = hold.and_then(|hold| hold.own.get(key)).map_or(0, |own| own.told);
        *self.holds.over.entry(key.clone()).or_default() += cost.saturating_sub(own);
        // Several processes may settle a hold while the store does not answer, which then charges for the first that it hears.
        let (before, least) = self.holds.told(id, key, cost);
        if let Some(counter) = self.counters.get_mut(key) {
            counter.expected += signed(least) - signed(before.unwrap_or(0));
            counter.more += signed(before.map_or(cost - least, |before| before.max(cost)));
            if decision.failure.is_some() && !known.holds_last() {
                // The store may have settled it, and have forgotten that when it hears of it again.
                counter.more += signed(cost);
            }
        }
        if decision.failure.is_some() {
            let by_fallback = self.by_fallback.entry((asked.replica, asked.process, key.clone()));
            *by_fallback.or_default() += signed(cost);
        }
        Ok(())
    }

    /// After everything had its time, a counter keeps what its callers know of and have not settled, and nothing else.
    pub(super) fn holds_are_told(
        &self,
        key: &CounterKey,
        counter: &Counter,
        sent: &[Sent],
        server: &Server,
        now_ms: u64,
    ) -> Result<(), String> {
        if counter.limit.hold_us == 0 {
            return Ok(());
        }
        let (_, open) = server.look(now_ms, key, &counter.limit);
        let (least, most) = if holds_last(&counter.limit) {
            let least = if self.forgotten {
                0
            } else {
                self.holds.least(key, &self.crashed)
            };
            let most = self.holds.most(key, &self.crashed) + self.held_in_doubt(key, sent);
            let is_unbounded = self.dropped || self.forgotten;
            (least, if is_unbounded { u64::MAX } else { most })
        } else {
            (0, 0)
        };
        if open < least || open > most {
            return Err(format!("{key}: {open} hits are held, {least} to {most} must be"));
        }
        Ok(())
    }

    /// What may be held for callers that do not know of it, and that nobody can release.
    fn held_in_doubt(&self, key: &CounterKey, sent: &[Sent]) -> u64 {
        let in_doubt = sent.iter().filter(|message| {
            let has_died = self.crashed.contains(&(message.replica, message.process));
            !message.refused && has_died
        });
        let checks = in_doubt
            .flat_map(|message| &message.calls)
            .flat_map(|call| &call.checks);
        let held = checks.filter(|check| check.key == *key).map(|check| match check.hits {
            Op::Hold { hits, id } if !self.holds.is_told(id, key) => hits,
            _ => 0,
        });
        held.sum()
    }
}
