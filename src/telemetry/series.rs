//! The counters of one series: a rule, or a rule with a request's values in its name.

use std::sync::atomic::AtomicU64;
use std::sync::{Arc, OnceLock};

/// One rule's counters.
#[derive(Debug)]
pub struct RuleStats {
    pub(super) domain: Arc<str>,
    pub(super) path: Arc<str>,
    /// `key[_value]`, level by level.
    pub(super) keys: Vec<String>,
    /// Requests that this rule let pass.
    pub allowed: AtomicU64,
    /// Requests that this rule denied.
    pub denied: AtomicU64,
    /// Requests that it would have denied, but it is in shadow mode.
    pub shadow_denied: AtomicU64,
    /// Requests that no counter could decide: `on_store_error` let them pass or denied them.
    pub errors: AtomicU64,
    /// Hits asked for.
    pub total_hits: AtomicU64,
    /// Hits over the limit.
    pub over_limit: AtomicU64,
    /// Hits admitted close to the limit.
    pub near_limit: AtomicU64,
    /// Hits admitted.
    pub within_limit: AtomicU64,
    /// Hits denied without a call to the store.
    pub over_limit_with_local_cache: AtomicU64,
    /// Hits over the limit of a rule in shadow mode.
    pub shadow_mode: AtomicU64,
    pub(super) candidate: OnceLock<Box<CandidateStats>>,
}

/// What a rule's candidate limit decided beside the limit in force.
#[derive(Debug, Default)]
pub struct CandidateStats {
    /// Requests that both let pass.
    pub both_allow: AtomicU64,
    /// Requests that only the candidate would deny.
    pub would_deny: AtomicU64,
    /// Requests that only the limit in force denied.
    pub would_allow: AtomicU64,
    /// Requests that both deny.
    pub both_deny: AtomicU64,
    /// Requests that the candidate did not decide, because the store did not answer.
    pub errors: AtomicU64,
}

impl RuleStats {
    pub(super) fn new(domain: Arc<str>, path: Arc<str>, keys: Vec<String>) -> Self {
        Self {
            domain,
            path,
            keys,
            allowed: AtomicU64::new(0),
            denied: AtomicU64::new(0),
            shadow_denied: AtomicU64::new(0),
            errors: AtomicU64::new(0),
            total_hits: AtomicU64::new(0),
            over_limit: AtomicU64::new(0),
            near_limit: AtomicU64::new(0),
            within_limit: AtomicU64::new(0),
            over_limit_with_local_cache: AtomicU64::new(0),
            shadow_mode: AtomicU64::new(0),
            candidate: OnceLock::new(),
        }
    }

    /// What its candidate decided, if it has or had one.
    #[must_use]
    pub fn candidate(&self) -> Option<&CandidateStats> {
        self.candidate.get().map(|stats| &**stats)
    }
}

/// A domain and a path in it.
pub(super) type SeriesId = (Arc<str>, Arc<str>);
