//! Drops expired counters without a pause in service: a bounded number of buckets of every shard at each tick.

use std::sync::Weak;
use std::time::Duration;

use super::MemoryStore;
use crate::store::ticker::Ticker;

/// Time between two ticks.
const TICK: Duration = Duration::from_millis(100);
/// Buckets of each shard for each tick: some 10 µs under its lock, and all of a shard of 16,384 every 13 s.
const BUCKETS_PER_TICK: usize = 128;

/// Sweeps until the store is dropped. The composition root spawns it.
pub async fn sweep_forever(store: Weak<MemoryStore>) {
    let mut ticker = Ticker::new(store, TICK);
    while let Some(store) = ticker.next().await {
        store.sweep(BUCKETS_PER_TICK);
    }
}
