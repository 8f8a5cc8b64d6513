//! What happens, as it happens: for readers of the event stream, each with a bounded backlog.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use parking_lot::Mutex;
use serde::Serialize;
use tokio::sync::broadcast;

use super::noted::Noted;
use crate::model::Clock;

/// Events that a reader may lag behind; older ones are lost to it, and it is told how many.
pub const MAX_EVENTS: usize = 256;
/// Reloads that are remembered.
pub const MAX_RELOADS: usize = 20;
/// Between two sampled denials, in microseconds: ten a second.
const SAMPLE_EVERY_US: u64 = 100_000;
/// Longest text of a reload's errors that is remembered, in bytes.
const MAX_ERRORS_BYTES: usize = 16 << 10;
/// What stands where a longer one ends.
const CUT: &str = "\n… cut; `sluicegate check` prints all";

/// One event.
#[derive(Debug, Clone)]
pub enum Event {
    /// A sample of what is denied.
    Denied {
        /// The counter's [name](Noted::name), as it is.
        key: String,
        /// Denials of any counter since the last sample, this one included.
        denials_since_last: u64,
    },
    /// A configuration came into force, or was refused.
    Reload(Reload),
    /// The failure mode took over from a store, or ended.
    Circuit {
        /// Which store.
        store: String,
        /// Whether the failure mode answers now.
        open: bool,
    },
}

/// An attempt to load rules.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Reload {
    /// Milliseconds since 1970.
    pub at_ms: u64,
    /// Whether they are in force.
    pub ok: bool,
    /// Of the configuration in force.
    pub generation: u64,
    /// Short hash of it; empty if there is none.
    pub hash: String,
    /// Rules in force.
    pub rules: usize,
    /// What was wrong, each with its place; empty if nothing was.
    pub errors: String,
}

/// The stream and what it remembers.
pub struct Events {
    clock: Arc<dyn Clock>,
    sender: broadcast::Sender<Event>,
    denials: AtomicU64,
    next_sample_us: AtomicU64,
    reloads: Mutex<VecDeque<Reload>>,
}

impl fmt::Debug for Events {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Events").finish_non_exhaustive()
    }
}

impl Events {
    /// Nobody listens yet.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self {
            clock,
            sender: broadcast::Sender::new(MAX_EVENTS),
            denials: AtomicU64::new(0),
            next_sample_us: AtomicU64::new(0),
            reloads: Mutex::default(),
        }
    }

    /// From now on.
    #[must_use]
    pub fn subscribe(&self) -> broadcast::Receiver<Event> {
        self.sender.subscribe()
    }

    /// Samples a denial; free while nobody reads.
    pub fn denied(&self, counter: Noted<'_>) {
        if self.sender.receiver_count() == 0 {
            return;
        }
        self.denials.fetch_add(1, Relaxed);
        let (now, next) = (self.clock.now_us(), self.next_sample_us.load(Relaxed));
        let won = now >= next
            && self
                .next_sample_us
                .compare_exchange(next, now + SAMPLE_EVERY_US, Relaxed, Relaxed)
                .is_ok();
        if won {
            self.send(Event::Denied {
                key: counter.name(),
                denials_since_last: self.denials.swap(0, Relaxed),
            });
        }
    }

    /// Tells of an attempt to load rules, and remembers it. Filled in here are the time, and for a refused one the hash
    /// that stays in force.
    pub fn reloaded(&self, mut reload: Reload) {
        reload.at_ms = self.clock.now_us() / 1_000;
        if reload.errors.len() > MAX_ERRORS_BYTES {
            let cut = reload.errors.floor_char_boundary(MAX_ERRORS_BYTES);
            reload.errors.truncate(cut);
            reload.errors.push_str(CUT);
        }
        let mut reloads = self.reloads.lock();
        if reload.hash.is_empty() {
            reload.hash = reloads.back().map(|last| last.hash.clone()).unwrap_or_default();
        }
        if reloads.len() == MAX_RELOADS {
            reloads.pop_front();
        }
        reloads.push_back(reload.clone());
        drop(reloads);
        self.send(Event::Reload(reload));
    }

    /// Tells whoever listens.
    pub fn send(&self, event: Event) {
        // Nobody has to.
        let _ = self.sender.send(event);
    }

    /// The newest attempts to load rules, oldest first.
    #[must_use]
    pub fn reloads(&self) -> Vec<Reload> {
        self.reloads.lock().iter().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ManualClock;

    #[test]
    fn the_hash_in_force_outlasts_any_number_of_refused_loads() {
        let events = Events::new(Arc::new(ManualClock::new(0)));
        events.reloaded(Reload::default());
        assert_eq!(events.reloads().last().unwrap().hash, "", "nothing was in force yet");
        events.reloaded(Reload {
            ok: true,
            hash: "abc".to_owned(),
            ..Reload::default()
        });
        for _ in 0..=MAX_RELOADS {
            events.reloaded(Reload::default());
        }
        let reloads = events.reloads();
        assert_eq!(reloads.len(), MAX_RELOADS);
        assert!(reloads.iter().all(|reload| !reload.ok && reload.hash == "abc"));
    }

    #[test]
    fn errors_that_are_cut_say_so() {
        let events = Events::new(Arc::new(ManualClock::new(0)));
        for (bytes, is_cut) in [(MAX_ERRORS_BYTES, false), (MAX_ERRORS_BYTES + 1, true)] {
            let errors = "e".repeat(bytes);
            events.reloaded(Reload {
                errors: errors.clone(),
                ..Reload::default()
            });
            let kept = events.reloads().pop().unwrap().errors;
            assert_eq!(kept.ends_with(CUT), is_cut);
            assert_eq!(kept == errors, !is_cut);
        }
    }
}
