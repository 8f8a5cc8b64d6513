//! How two sets of rules differ, request by request.

use std::collections::HashMap;

/// Keys whose change is followed.
const MAX_CHANGED: usize = 20_000;

/// What one side made of a request: whether it was denied, and by which counters.
pub struct Answer {
    /// Whether it was denied.
    pub denied: bool,
    /// Names of the counters that denied it.
    pub by: Vec<Box<str>>,
}

/// How two sets of rules differ, request by request.
#[derive(Debug, Default)]
pub struct Change {
    /// Denied by the new rules only.
    pub newly_denied: u64,
    /// Denied by the old rules only.
    pub newly_allowed: u64,
    /// By counter: requests that the new rules, and the old ones, deny alone.
    pub keys: HashMap<Box<str>, (u64, u64)>,
    /// More keys than are followed were decided otherwise.
    pub overflowed: bool,
}

impl Change {
    /// Compares the two answers to a request.
    pub fn add(&mut self, new: &Answer, old: &Answer) {
        let by = match (new.denied, old.denied) {
            (true, false) => {
                self.newly_denied += 1;
                &new.by
            }
            (false, true) => {
                self.newly_allowed += 1;
                &old.by
            }
            _ => return,
        };
        for name in by {
            if self.keys.len() >= MAX_CHANGED && !self.keys.contains_key(name) {
                self.overflowed = true;
                continue;
            }
            let counts = self.keys.entry(name.clone()).or_default();
            counts.0 += u64::from(new.denied);
            counts.1 += u64::from(old.denied);
        }
    }
}
