//! The bounds of the pipeline, and how often each was reached.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Checks in one call at most, unless a request has more.
pub const MAX_CHECKS: usize = 128;

/// Bounds that protect the server and this process; no setting changes them. Simulations make them small.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Checks in one call, and corrections in front of them: a script blocks all others while it runs. A request with more checks
    /// has a call of its own.
    pub checks: usize,
    /// For each thread and server, requests that wait to be sent, or for a key; the failure mode answers more.
    pub waiting: usize,
    /// Requests that wait for one key; more are sent without waiting.
    pub joined: usize,
    /// For each thread and server, calls in flight, with those whose callers have stopped waiting; the failure mode answers
    /// the requests of more calls.
    pub in_flight: usize,
    /// Counters whose corrections the flusher has in flight at the same time.
    pub flushed: usize,
    /// Counters that a reset has in flight at the same time; the dispatcher puts those of one shard into one call.
    pub reset: usize,
    /// Entries of the log of resets that are read at a time.
    pub log_entries: usize,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            checks: MAX_CHECKS,
            waiting: 8192,
            joined: 1024,
            in_flight: 4096,
            flushed: 64,
            reset: 64,
            log_entries: 1000,
        }
    }
}

/// A bound; the label of the metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bound {
    /// Corrections in the ledger: one was dropped.
    Corrections,
    /// [`Bounds::checks`]: more than one call was needed.
    Checks,
    /// [`Bounds::waiting`].
    Waiting,
    /// [`Bounds::joined`].
    Joined,
    /// [`Bounds::in_flight`].
    InFlight,
    /// [`Bounds::flushed`]: the corrections of other counters waited for the next call of the flusher.
    Flushed,
    /// [`Bounds::reset`]: the others were reset after them.
    Reset,
    /// [`Bounds::log_entries`]: the log was read once more.
    LogEntries,
    /// Counters that the lease stage keeps: another one gets no lease.
    LeaseKeys,
    /// Sizes of request whose denial is cached for one counter: the oldest was forgotten.
    DenialSizes,
    /// The grace period of a call: its fate stays unknown, so hits that it counted stay counted.
    Grace,
}

impl Bound {
    /// All of them.
    pub const ALL: [Self; 11] = [
        Self::Corrections,
        Self::Checks,
        Self::Waiting,
        Self::Joined,
        Self::InFlight,
        Self::Flushed,
        Self::Reset,
        Self::LogEntries,
        Self::LeaseKeys,
        Self::DenialSizes,
        Self::Grace,
    ];

    /// The label in metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Corrections => "corrections",
            Self::Checks => "checks",
            Self::Waiting => "waiting",
            Self::Joined => "joined",
            Self::InFlight => "in_flight",
            Self::Flushed => "flushed",
            Self::Reset => "reset",
            Self::LogEntries => "log_entries",
            Self::LeaseKeys => "lease_keys",
            Self::DenialSizes => "denial_sizes",
            Self::Grace => "grace",
        }
    }
}

/// How often each bound was reached since the start.
#[derive(Debug, Default)]
pub(super) struct BoundCounts([AtomicU64; Bound::ALL.len()]);

impl BoundCounts {
    pub(super) fn reached(&self, bound: Bound) {
        self.0[bound as usize].fetch_add(1, Relaxed);
    }

    pub(super) fn read(&self) -> [u64; Bound::ALL.len()] {
        Bound::ALL.map(|bound| self.0[bound as usize].load(Relaxed))
    }
}
