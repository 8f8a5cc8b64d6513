//! What happens, as it happens: for readers of the event stream, each with a bounded backlog.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use parking_lot::Mutex;
use serde::Serialize;
use tokio::sync::broadcast;

use crate::model::Clock;

/// Events that a reader may lag behind; older ones are lost to it, and it is told how many.
pub const MAX_EVENTS: usize = 256;
/// Reloads that are remembered.
pub const MAX_RELOADS: usize = 20;
/// Between two sampled denials, in microseconds: ten a second.
const SAMPLE_EVERY_US: u64 = 100_000;
/// Longest text of a reload's errors that is remembered, in bytes.
const MAX_ERRORS_BYTES: usize = 16 << 10;

/// One event.
#[derive(Debug, Clone)]
pub enum Event {
    /// A sample of what is denied.
    Denied {
        /// The counter's key, as it is.
        key: String,
        /// Denials since the last sample, this one included.
        count: u64,
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
    pub fn denied(&self, key: &str) {
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
            let count = self.denials.swap(0, Relaxed);
            self.send(Event::Denied {
                key: key.to_owned(),
                count,
            });
        }
    }

    /// Tells of an attempt to load rules, and remembers it. The time is filled in here.
    pub fn reloaded(&self, mut reload: Reload) {
        reload.at_ms = self.clock.now_us() / 1_000;
        let cut = reload.errors.floor_char_boundary(MAX_ERRORS_BYTES);
        reload.errors.truncate(cut);
        let mut reloads = self.reloads.lock();
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
