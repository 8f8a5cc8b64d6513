//! Resets of counters by an operator, so that their keys pass again.

use std::collections::BTreeMap;
use std::fmt;
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
    /// Where the search goes on; `None` = it has looked at all keys.
    pub next: Option<SearchPosition>,
}

/// Where a search for a rule's counters goes on. The default is its beginning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SearchPosition {
    /// Which of the rule's kinds of names.
    kind: usize,
    cursor: Cursor,
}

impl fmt::Display for SearchPosition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.kind, self.cursor.node, self.cursor.at)
    }
}

impl SearchPosition {
    /// Reads what its `Display` writes; `None` if it did not write it.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('.');
        let kind = parts.next()?.parse().ok()?;
        let node = parts.next()?.parse().ok()?;
        let at = parts.next()?.parse().ok()?;
        let cursor = Cursor { node, at };
        parts.next().is_none().then_some(Self { kind, cursor })
    }
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
    /// The rule has changed since the search began.
    #[error("from: the rule has changed since the search began; begin anew, without `from`")]
    Position,
    /// The store does not answer.
    #[error("{0}")]
    Store(#[from] StoreError),
}

impl Engine {
    /// The counters of a rule whose descriptor, as the counter's key has it (`user=alice|path=%7Cx`), fits a pattern; the search
    /// begins at `from`, and ends early after [`MAX_SEARCH`] or where more than [`MAX_FOUND`] would be found.
    /// Counters whose names were shortened are not found.
    ///
    /// # Errors
    /// [`FindError`] when they cannot be looked for.
    pub async fn find(
        &self,
        active: &Active,
        rule: &Rule,
        pattern: &Pattern,
        from: SearchPosition,
    ) -> Result<FoundCounters, FindError> {
        let names = self.names_of(rule);
        if names.is_empty() {
            return Err(FindError::Unlimited);
        }
        if from.kind >= names.len() {
            return Err(FindError::Position);
        }
        let is_wanted = |key: &str, prefix: &str| {
            let descriptor = key.strip_prefix(prefix).and_then(|rest| rest.strip_suffix('}'));
            let is_of_rule = || {
                let identity = Identity::of(key);
                let of = identity.as_ref().and_then(|identity| active.rule_of(identity, None));
                of.is_some_and(|of| of.index == rule.index)
            };
            // An address is written like any value; a sign that is not a separator is escaped.
            descriptor.is_some_and(|descriptor| pattern.matches(&descriptor.replace("==", "="))) && is_of_rule()
        };
        let start = Instant::now();
        let mut turn = start;
        let mut found = BTreeMap::new();
        let mut at = from;
        while let Some((prefix, limit)) = names.get(at.kind)
            && start.elapsed() < MAX_SEARCH
        {
            let page = self.store.names(limit, prefix, at.cursor).await?;
            let page = page.ok_or(FindError::NoNames)?;
            let mut wanted = page.keys;
            wanted.retain(|key| is_wanted(key.as_str(), prefix));
            // What does not fit is found again where the search goes on.
            if !found.is_empty() && found.len() + wanted.len() > MAX_FOUND {
                break;
            }
            found.extend(wanted.into_iter().map(|key| (key, *limit)));
            at = match page.next {
                Some(cursor) => SearchPosition { cursor, ..at },
                None => SearchPosition {
                    kind: at.kind + 1,
                    cursor: Cursor::default(),
                },
            };
            if turn.elapsed() >= TURN {
                // Half of the time at most: decisions wait for the store, too.
                tokio::time::sleep(TURN).await;
                turn = Instant::now();
            }
        }
        Ok(FoundCounters {
            counters: found.into_iter().collect(),
            next: (at.kind < names.len()).then_some(at),
        })
    }

    /// What the names of a rule's counters begin with, and the limit of those.
    fn names_of(&self, rule: &Rule) -> Vec<(String, Limit)> {
        let mut names: Vec<(String, Limit)> = Vec::new();
        for limit in rule.limits() {
            let prefix = rule_prefix(&self.options.key_prefix, rule.owner(), &limit, &rule.domain);
            if names.iter().all(|(known, _)| *known != prefix) {
                names.push((prefix, limit));
            }
        }
        names
    }

    /// Resets counters to their unused state; see [`Store::reset`](crate::store::Store::reset).
    pub async fn reset(&self, counters: &[Named]) -> Reset {
        self.store.reset(counters).await
    }
}
