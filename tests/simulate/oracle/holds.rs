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

#[derive(Default)]
struct Hold {
    /// By counter.
    own: BTreeMap<CounterKey, u64>,
    ending: Ending,
}

/// All holds that callers know of.
#[derive(Default)]
pub(super) struct HoldBook {
    holds: BTreeMap<HoldId, Hold>,
    /// Those that the store has charged for, by counter.
    charged: BTreeSet<(HoldId, CounterKey)>,
    /// By how much settlements were larger than their holds, or had none.
    over: BTreeMap<CounterKey, u64>,
}

impl HoldBook {
    pub fn may_end(&mut self, id: HoldId) {
        let hold = self.holds.entry(id).or_default();
        hold.ending = hold.ending.max(Ending::Perhaps);
    }

    pub fn has_ended(&mut self, id: HoldId) {
        self.holds.entry(id).or_default().ending = Ending::Yes;
    }

    /// What holds of a counter keep whose endings are at most this.
    fn kept(&self, key: &CounterKey, most: Ending) -> u64 {
        let holds = self.holds.values().filter(|hold| hold.ending <= most);
        holds.filter_map(|hold| hold.own.get(key)).sum()
    }

    /// Whether a caller was told by the store that it holds something. One that fallback counters answered knows the id, too.
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
    pub(super) fn held(
        &mut self,
        key: &CounterKey,
        decision: &Decision,
        status: &Counted,
        known: &Known,
        servers: &[Server],
    ) -> Result<(), String> {
        // What fallback counters keep is no hold of the store's.
        let (Some(id), None, true) = (decision.hold, decision.failure, status.holds) else {
            return Ok(());
        };
        let own = status.outcome.holds.own;
        *self
            .holds
            .holds
            .entry(id)
            .or_default()
            .own
            .entry(key.clone())
            .or_default() += own;
        let counter = self.counters.get(key).ok_or("an unknown counter")?;
        if !known.holds_last() || known.mode != OnStoreError::Deny || servers[counter.server].lost_data {
            return Ok(());
        }
        let (used, kept) = (counter.expected - counter.gone, self.holds.kept(key, Ending::No));
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
        let somewhere = decision.failure.is_none() || known.mode == OnStoreError::Local;
        if !somewhere || status.outcome.holds.repeated {
            return Ok(());
        }
        let lost_data = servers[self.server_of(key)].lost_data;
        let by_store = decision.failure.is_none() && known.holds_last() && !lost_data;
        let is_told = self.holds.is_told(id, key);
        if by_store && is_told && !self.holds.charged.insert((id, key.clone())) {
            return Err(format!("{key}: a hold was charged for twice"));
        }
        let hold = self.holds.holds.get(&id).filter(|hold| hold.ending < Ending::Yes);
        let own = hold.and_then(|hold| hold.own.get(key)).copied().unwrap_or_default();
        *self.holds.over.entry(key.clone()).or_default() += cost.saturating_sub(own);
        if let Some(counter) = self.counters.get_mut(key) {
            counter.expected += signed(cost);
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
            let least = self.holds.kept(key, Ending::No);
            let most = self.holds.kept(key, Ending::Perhaps) + self.held_in_doubt(key, sent);
            (least, if self.dropped { u64::MAX } else { most })
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
            !message.refused && (has_died || message.failed || message.heard.at_ms().is_none())
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
