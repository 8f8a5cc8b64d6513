//! Selections of counters, between the dry run that made them and the call that confirms them.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::engine::MAX_FOUND;
use crate::store::reset::Named;

/// How long a selection may be confirmed.
pub(super) const VALID: Duration = Duration::from_secs(60);
/// Selections that wait; the oldest goes first.
pub(super) const MAX_WAITING: usize = 64;
/// Counters of all of them, which bounds their memory.
pub(super) const MAX_COUNTERS: usize = 4 * MAX_FOUND;

/// Selections that wait to be confirmed.
#[derive(Default)]
pub(super) struct Selections(Mutex<VecDeque<Selection>>);

/// Counters that are to be reset.
pub(super) struct Selection {
    token: blake3::Hash,
    until: Instant,
    pub counters: Vec<Named>,
    /// For the log.
    pub what: String,
}

impl Selections {
    /// Keeps a selection; its token.
    pub fn keep(&self, counters: Vec<Named>, what: String) -> String {
        let token = format!("{:032x}", rand::random::<u128>());
        self.put_back(Selection {
            token: blake3::hash(token.as_bytes()),
            until: Instant::now() + VALID,
            counters,
            what,
        });
        token
    }

    /// Keeps a selection for the rest of its time, such as one whose reset has failed: its token repeats the reset. The oldest make
    /// room.
    pub fn put_back(&self, selection: Selection) {
        let mut waiting = self.0.lock();
        let now = Instant::now();
        waiting.retain(|selection| selection.until > now);
        waiting.push_back(selection);
        let counters =
            |waiting: &VecDeque<Selection>| waiting.iter().map(|selection| selection.counters.len()).sum::<usize>();
        while waiting.len() > 1 && (waiting.len() > MAX_WAITING || counters(&waiting) > MAX_COUNTERS) {
            waiting.pop_front();
        }
    }

    /// Takes the selection of a token, once.
    pub fn take(&self, token: &str) -> Option<Selection> {
        let token = blake3::hash(token.as_bytes());
        let mut waiting = self.0.lock();
        let now = Instant::now();
        waiting.retain(|selection| selection.until > now);
        let at = waiting.iter().position(|selection| selection.token == token)?;
        waiting.remove(at)
    }
}
