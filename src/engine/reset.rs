//! Resets of counters by an operator, so that their keys pass again.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use crate::model::Limit;
use crate::model::key::{Identity, rule_prefix};
use crate::rules::Rule;
use crate::rules::pattern::Pattern;
use crate::store::StoreError;
use crate::store::reset::{Cursor, Named, Reset};

use super::{Active, Engine};

/// Most counters of one reset.
pub const MAX_FOUND: usize = 10_000;
/// Longest search, so that it ends before an operator's client times out.
const MAX_SEARCH: Duration = Duration::from_secs(4);

/// A search works for this long, then it pauses for as long.
const TURN: Duration = Duration::from_millis(2);

/// Counters of a rule.
#[derive(Debug, Clone)]
pub struct FoundCounters {
    /// Each once.
    pub counters: Vec<Named>,
    /// All of the rule's counters were found: neither [`MAX_FOUND`] nor the time of a search was reached.
    pub complete: bool,
}

/// Why a rule's counters cannot be found.
#[derive(Debug, thiserror::Error)]
pub enum FindError {
    /// The rule is `unlimited`.
    #[error("the rule counts nothing")]
    Unlimited,
    /// The store is the memory store.
    #[error("the memory store keeps no names of counters: give a descriptor instead of a rule")]
    NoNames,
    /// The store does not answer.
    #[error("{0}")]
    Store(#[from] StoreError),
}

impl Engine {
    /// The counters of a rule whose descriptor, as the counter's key has it (`user=alice|path=%7Cx`), fits a pattern.
    /// Counters whose names were shortened are not found.
    ///
    /// # Errors
    /// [`FindError`] when they cannot be looked for.
    pub async fn find(&self, active: &Active, rule: &Rule, pattern: &Pattern) -> Result<FoundCounters, FindError> {
        let mut names: Vec<(String, Limit)> = Vec::new();
        for limit in rule.limits() {
            let prefix = rule_prefix(&self.options.key_prefix, rule.owner(), &limit, &rule.domain);
            if names.iter().all(|(known, _)| *known != prefix) {
                names.push((prefix, limit));
            }
        }
        if names.is_empty() {
            return Err(FindError::Unlimited);
        }
        let is_wanted = |key: &str, prefix: &str| {
            let descriptor = key.strip_prefix(prefix).and_then(|rest| rest.strip_suffix('}'));
            let is_of_rule = || {
                let identity = Identity::of(key);
                let of = identity.as_ref().and_then(|identity| active.rule_of(identity));
                of.is_some_and(|of| of.index == rule.index)
            };
            // An address is written like any value; a sign that is not a separator is escaped.
            descriptor.is_some_and(|descriptor| pattern.matches(&descriptor.replace("==", "="))) && is_of_rule()
        };
        let start = Instant::now();
        let mut turn = start;
        let mut found = BTreeMap::new();
        let mut complete = true;
        for (prefix, limit) in &names {
            let mut from = Some(Cursor::default());
            while let Some(at) = from
                && found.len() < MAX_FOUND
                && start.elapsed() < MAX_SEARCH
            {
                let page = self.store.names(limit, prefix, at).await?;
                let page = page.ok_or(FindError::NoNames)?;
                let wanted = page.keys.into_iter().filter(|key| is_wanted(key.as_str(), prefix));
                found.extend(wanted.map(|key| (key, *limit)));
                from = page.next;
                if turn.elapsed() >= TURN {
                    // Half of the time at most: decisions wait for the store, too.
                    tokio::time::sleep(TURN).await;
                    turn = Instant::now();
                }
            }
            complete &= from.is_none();
        }
        complete &= found.len() <= MAX_FOUND;
        let counters = found.into_iter().take(MAX_FOUND);
        Ok(FoundCounters {
            counters: counters.collect(),
            complete,
        })
    }

    /// Resets counters to their unused state; see [`Store::reset`](crate::store::Store::reset).
    pub async fn reset(&self, counters: &[Named]) -> Reset {
        self.store.reset(counters).await
    }
}
