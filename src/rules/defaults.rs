//! What rules are compiled with.

use crate::model::AlgorithmKind;

/// What the compile step fills in where a file is silent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Defaults {
    /// `--default-algorithm`.
    pub algorithm: AlgorithmKind,
    /// Denied hits count where a rule does not say, as in envoyproxy/ratelimit.
    pub count_denied: bool,
    /// `MERGE_DOMAIN_CONFIG`: the same domain may stand in several files.
    pub merge_domains: bool,
}

impl Default for Defaults {
    fn default() -> Self {
        Self {
            algorithm: AlgorithmKind::SlidingWindow,
            count_denied: false,
            merge_domains: false,
        }
    }
}
