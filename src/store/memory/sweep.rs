//! Expired counters go without a pause: a bounded slice of every shard for each tick.

use std::sync::Weak;
use std::time::Duration;

use super::MemoryStore;
use crate::store::ticker::Ticker;

/// Time between two slices.
const TICK: Duration = Duration::from_millis(100);
/// Buckets of each shard in a slice: some 10 µs under its lock, and a shard of 16,384 is seen whole every 13 s.
const BUCKETS_PER_TICK: usize = 128;

/// Sweeps until the store is gone. The composition root spawns it.
pub async fn sweep_forever(store: Weak<MemoryStore>) {
    let mut ticker = Ticker::new(store, TICK);
    while let Some(store) = ticker.next().await {
        store.sweep(BUCKETS_PER_TICK);
    }
}
