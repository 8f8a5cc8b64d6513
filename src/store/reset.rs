//! What an operator does to counters: finding them by their names, and making them as new.

use super::error::StoreError;
use crate::model::{CounterKey, Limit};

/// A counter by its name, with the limit that it is counted by.
pub type Named = (CounterKey, Limit);

/// What a reset came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reset {
    /// Counters that are as new.
    pub counters: usize,
    /// Hits that they had in use, together.
    pub hits: u64,
    /// Whether other processes hear of it; without, they keep cached denials until these end by themselves.
    pub announced: bool,
    /// Why the rest is not reset.
    pub failed: Option<StoreError>,
}

impl Default for Reset {
    fn default() -> Self {
        Self {
            counters: 0,
            hits: 0,
            announced: true,
            failed: None,
        }
    }
}

/// Where a search for counters goes on. The default is its beginning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Cursor {
    /// Which of a cluster's nodes.
    pub node: usize,
    /// Its own mark.
    pub at: u64,
}

/// A part of what a search for counters finds.
#[derive(Debug, Clone, Default)]
pub struct NamePage {
    /// Keys; one may come twice.
    pub keys: Vec<CounterKey>,
    /// Where it goes on; `None` = this was all.
    pub next: Option<Cursor>,
}
