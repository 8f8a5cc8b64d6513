//! Series with request values in their names (`detailed_metric`, `value_to_metric`): looked up on each request, opened
//! rarely, bounded in number.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use parking_lot::RwLock;

use super::series::{RuleStats, SeriesId};

/// Series that request values may open in one process; the rest is counted under the rule alone.
pub const MAX_DETAILED_SERIES: usize = 10_000;

/// Locks, so that requests of many cores seldom meet at one; a power of two.
const SHARDS: usize = 64;

/// A series that a request has opened.
#[derive(Debug)]
pub(super) struct Detailed {
    pub stats: Arc<RuleStats>,
    /// The path of its rule; `None` for limits that requests bring themselves.
    pub rule: Option<Arc<str>>,
}

/// All of them, by domain and path.
#[derive(Debug)]
pub(super) struct DetailedSeries {
    hasher: RandomState,
    shards: [RwLock<HashMap<SeriesId, Detailed>>; SHARDS],
    /// Of all shards.
    open: AtomicUsize,
}

impl Default for DetailedSeries {
    fn default() -> Self {
        Self {
            hasher: RandomState::new(),
            shards: std::array::from_fn(|_| RwLock::default()),
            open: AtomicUsize::new(0),
        }
    }
}

impl DetailedSeries {
    pub fn get(&self, id: &SeriesId) -> Option<Arc<RuleStats>> {
        let shard = self.shard(id).read();
        shard.get(id).map(|series| Arc::clone(&series.stats))
    }

    /// The series, opened if need be; `None` when the bound is reached.
    pub fn open(&self, id: SeriesId, new: impl FnOnce() -> Detailed) -> Option<Arc<RuleStats>> {
        let mut shard = self.shard(&id).write();
        if let Some(series) = shard.get(&id) {
            return Some(Arc::clone(&series.stats));
        }
        // Counted before it is opened, so that shards cannot pass the bound together.
        if self.open.fetch_add(1, Relaxed) >= MAX_DETAILED_SERIES {
            self.open.fetch_sub(1, Relaxed);
            return None;
        }
        Some(Arc::clone(&shard.entry(id).or_insert_with(new).stats))
    }

    pub fn retain(&self, keep: impl Fn(&SeriesId, &Detailed) -> bool) {
        for shard in &self.shards {
            let mut shard = shard.write();
            let before = shard.len();
            shard.retain(|id, series| keep(id, series));
            self.open.fetch_sub(before - shard.len(), Relaxed);
        }
    }

    pub fn for_each(&self, mut visit: impl FnMut(&SeriesId, &Detailed)) {
        for shard in &self.shards {
            shard.read().iter().for_each(|(id, series)| visit(id, series));
        }
    }

    fn shard(&self, id: &SeriesId) -> &RwLock<HashMap<SeriesId, Detailed>> {
        let low = self.hasher.hash_one(id) % SHARDS as u64;
        &self.shards[usize::try_from(low).unwrap_or(0)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::RuleStatsRegistry;

    #[test]
    fn threads_together_stay_in_the_bound_and_share_a_series() {
        let registry = RuleStatsRegistry::new().unwrap();
        let domain: Arc<str> = "d".into();
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let (registry, domain) = (&registry, &domain);
                scope.spawn(move || {
                    for value in 0..MAX_DETAILED_SERIES {
                        let value = format!("user_{}", (value + thread * 500) % (MAX_DETAILED_SERIES * 2));
                        if let Some(stats) = registry.detailed(domain, None, vec![value]) {
                            stats.allowed.fetch_add(1, Relaxed);
                        }
                    }
                });
            }
        });
        let known = |value: usize| registry.detailed(&domain, None, vec![format!("user_{value}")]);
        let counts: Vec<u64> = (0..MAX_DETAILED_SERIES * 2)
            .filter_map(|value| Some(known(value)?.allowed.load(Relaxed)))
            .collect();
        assert_eq!(counts.len(), MAX_DETAILED_SERIES);
        assert!(counts.iter().all(|count| (1..=4).contains(count)));
    }
}
