//! Selections of counters, between the dry run that made them and the call that confirms them.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::store::reset::Named;

/// How long a selection may be confirmed.
pub(super) const VALID: Duration = Duration::from_secs(60);
/// Selections that wait; the oldest goes first.
const MAX_WAITING: usize = 4;

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
        let mut waiting = self.0.lock();
        if waiting.len() >= MAX_WAITING {
            waiting.pop_front();
        }
        waiting.push_back(Selection {
            token: blake3::hash(token.as_bytes()),
            until: Instant::now() + VALID,
            counters,
            what,
        });
        token
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
