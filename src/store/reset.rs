//! Resets of counters by an operator, and the search for counters by their names.

use super::error::StoreError;
use crate::model::{CounterKey, Limit};

/// A counter's key, with its limit.
pub type Named = (CounterKey, Limit);

/// The result of a reset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reset {
    /// The number of counters that were reset.
    pub counters: usize,
    /// The number of counters that may have been reset: their call was sent, and its fate is unknown.
    pub unknown: usize,
    /// The sum of the hits that they had in use.
    pub hits: u64,
    /// Whether other processes can read of it in the log of resets; if not, they keep cached denials until these end.
    pub announced: bool,
    /// Why the other counters were not reset; `None` = all were.
    pub failed: Option<StoreError>,
}

impl Default for Reset {
    fn default() -> Self {
        Self {
            counters: 0,
            unknown: 0,
            hits: 0,
            announced: true,
            failed: None,
        }
    }
}

/// The position at which a search for counters continues. The default is its beginning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Cursor {
    /// The index of the cluster's node.
    pub node: usize,
    /// The node's own cursor.
    pub at: u64,
}

/// A page of the results of a search for counters.
#[derive(Debug, Clone, Default)]
pub struct NamePage {
    /// Keys; a key may be in two pages.
    pub keys: Vec<CounterKey>,
    /// The position of the next page; `None` = this is the last page.
    pub next: Option<Cursor>,
}
