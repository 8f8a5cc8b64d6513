//! Which rule applies to a descriptor's entries.

use std::sync::Arc;

use crate::model::Entry;

use super::{Domain, Rule};

/// A rule that applies.
#[derive(Debug, Clone)]
pub struct Matched<'r> {
    /// The rule.
    pub rule: &'r Arc<Rule>,
    /// For each entry, in order: the wildcard whose matches share one counter (`share_threshold`), if that is how it matched.
    pub shared: smallvec::SmallVec<[Option<&'r str>; 4]>,
}

impl Domain {
    /// The rule that stands on the node of the last entry.
    #[must_use]
    pub fn find<'r>(&'r self, _entries: &[Entry]) -> Option<Matched<'r>> {
        None
    }
}
