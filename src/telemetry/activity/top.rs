//! Heavy hitters: which counters were asked, and denied, most.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use parking_lot::Mutex;

use super::sketch::{Hasher, Sketch};
use super::window::{SLICE_US, Summary, Windows};

/// Sketches of a process, at most: 8 of them with all windows stay below 8 MB.
const MAX_SHARDS: usize = 8;
/// Between two collections, at least, in microseconds: reading often must not cost the request path.
const COLLECT_EVERY_US: u64 = 1_000_000;

/// What a list is ordered by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum By {
    /// Denied decisions.
    Denied,
    /// All of them.
    Hits,
}

/// How far back a list reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Span {
    /// 1 minute.
    Minute,
    /// 10 minutes.
    TenMinutes,
    /// 1 hour.
    Hour,
}

impl Span {
    /// Its length in microseconds, to which the open slice comes on top.
    #[must_use]
    pub const fn micros(self) -> u64 {
        match self {
            Self::Minute => 60_000_000,
            Self::TenMinutes => 600_000_000,
            Self::Hour => 3_600_000_000,
        }
    }
}

/// One counter in a list. `…_error` is how many more there may have been at most.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hitter {
    /// The counter's key.
    pub key: String,
    /// Decisions, at least.
    pub hits: u64,
    /// At most this many more.
    pub hits_error: u64,
    /// Denied ones, at least.
    pub denied: u64,
    /// At most this many more.
    pub denied_error: u64,
}

/// The heaviest counters of a window.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TopList {
    /// Heaviest first.
    pub hitters: Vec<Hitter>,
    /// Decisions of all counters.
    pub hits: u64,
    /// Denied ones of all counters.
    pub denied: u64,
    /// How much time it covers, in microseconds.
    pub covers_us: u64,
}

/// A counter in one slice of time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct History {
    /// When the slice began, before now, in microseconds.
    pub began_us_ago: u64,
    /// Its length in microseconds.
    pub length_us: u64,
    /// Decisions, at least.
    pub hits: u64,
    /// Denied ones, at least.
    pub denied: u64,
}

/// Sketches of all threads, and what was collected of them.
pub struct Top {
    hasher: Hasher,
    shards: Box<[Shard]>,
    collected: Mutex<Collected>,
}

/// On a cache line of its own.
#[repr(align(128))]
struct Shard(Mutex<Option<Box<Sketch>>>);

#[derive(Default)]
struct Collected {
    hits: Windows,
    denied: Windows,
    /// When the open slice began, and when threads were last asked.
    began_us: u64,
    asked_us: u64,
    /// The window that was asked for last, until threads are asked again: whoever asks often costs no more sums.
    summed: Option<(Span, Arc<Sums>)>,
}

/// What was counted in one window.
struct Sums {
    hits: Summary,
    denied: Summary,
    /// Keys, heaviest first.
    by_hits: Vec<String>,
    by_denied: Vec<String>,
}

impl Collected {
    fn sums(&mut self, span: Span) -> Arc<Sums> {
        if let Some((_, sums)) = self.summed.as_ref().filter(|(of, _)| *of == span) {
            return Arc::clone(sums);
        }
        let (hits, denied) = (sum(&self.hits, span), sum(&self.denied, span));
        let sums = Arc::new(Sums {
            by_hits: ordered(&hits),
            by_denied: ordered(&denied),
            hits,
            denied,
        });
        self.summed = Some((span, Arc::clone(&sums)));
        sums
    }
}

fn ordered(counts: &Summary) -> Vec<String> {
    let mut keys: Vec<(&String, u64)> = counts.keys.iter().map(|(key, count)| (key, *count)).collect();
    keys.sort_unstable_by(|a, b| (b.1, a.0).cmp(&(a.1, b.0)));
    keys.into_iter().map(|(key, _)| key.clone()).collect()
}

thread_local! {
    /// Which shard a thread counts in.
    static SHARD: usize = {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        NEXT.fetch_add(1, Relaxed)
    };
}

impl Default for Top {
    fn default() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZeroUsize::get);
        Self {
            hasher: Hasher::default(),
            shards: (0..cores.min(MAX_SHARDS)).map(|_| Shard(Mutex::new(None))).collect(),
            collected: Mutex::default(),
        }
    }
}

impl Top {
    /// Counts one decision about a counter. The lock is the thread's own, or nearly: it is never held for longer than
    /// another decision takes.
    pub fn record(&self, key: &str, denied: bool) {
        let mine = SHARD.with(|shard| *shard) % self.shards.len().max(1);
        if let Some(Shard(shard)) = self.shards.get(mine) {
            let mut sketch = shard.lock();
            let sketch = sketch.get_or_insert_with(|| Box::new(Sketch::new(&self.hasher)));
            sketch.add(&self.hasher, key, denied);
        }
    }

    /// Takes over what threads have counted, at most once a second, and ends slices that are over.
    pub fn collect(&self, now_us: u64) {
        let mut collected = self.collected.lock();
        self.collect_into(&mut collected, now_us);
    }

    fn collect_into(&self, collected: &mut Collected, now_us: u64) {
        if collected.began_us == 0 {
            collected.began_us = now_us;
        }
        if now_us.saturating_sub(collected.asked_us) < COLLECT_EVERY_US {
            return;
        }
        collected.asked_us = now_us;
        collected.summed = None;
        for Shard(shard) in &self.shards {
            if shard.lock().is_none() {
                continue;
            }
            // Made outside the lock, which is held for the exchange alone.
            let fresh = Some(Box::new(Sketch::new(&self.hasher)));
            let Some(sketch) = std::mem::replace(&mut *shard.lock(), fresh) else {
                continue;
            };
            if sketch.is_empty() {
                continue;
            }
            collected.hits.open.add_counts(&sketch.passed);
            collected.hits.open.add_counts(&sketch.denied);
            collected.denied.open.add_counts(&sketch.denied);
        }
        collected.hits.open.trim();
        collected.denied.open.trim();
        let length_us = now_us.saturating_sub(collected.began_us);
        if length_us >= SLICE_US {
            collected.hits.close(length_us);
            collected.denied.close(length_us);
            collected.began_us = now_us;
        }
    }

    /// The heaviest counters of a window that `of` takes, at most `limit` of them.
    #[must_use]
    pub fn list(&self, by: By, span: Span, limit: usize, now_us: u64, of: impl Fn(&str) -> bool) -> TopList {
        let mut collected = self.collected.lock();
        self.collect_into(&mut collected, now_us);
        let sums = collected.sums(span);
        let open_us = now_us.saturating_sub(collected.began_us);
        // Nothing below needs what threads write to.
        drop(collected);
        let Sums { hits, denied, .. } = &*sums;
        let order = match by {
            By::Denied => &sums.by_denied,
            By::Hits => &sums.by_hits,
        };
        let hitters = order.iter().filter(|key| of(key)).take(limit);
        let hitter = |key: &String| {
            let cell = self.hasher.cell(key);
            let [(hits, hits_error), (denied, denied_error)] = [hits, denied].map(|counts| bounds(counts, key, cell));
            // What was denied was asked, too, however little of that is known.
            let raised = hits.max(denied);
            Hitter {
                key: key.clone(),
                hits: raised,
                hits_error: (hits + hits_error).saturating_sub(raised),
                denied,
                denied_error,
            }
        };
        TopList {
            hitters: hitters.map(hitter).collect(),
            hits: hits.total,
            denied: denied.total,
            covers_us: hits.length_us + open_us,
        }
    }

    /// A counter's last hour, oldest first: ten-minute slices, then minutes, then ten seconds.
    #[must_use]
    pub fn history(&self, key: &str, now_us: u64) -> Vec<History> {
        let mut collected = self.collected.lock();
        self.collect_into(&mut collected, now_us);
        let slices = collected.hits.slices(2).into_iter().zip(collected.denied.slices(2));
        let mut ago_us = 0;
        let mut history: Vec<History> = slices
            .enumerate()
            .map(|(at, (hits, denied))| {
                let length_us = match at {
                    0 => now_us.saturating_sub(collected.began_us),
                    _ => hits.length_us,
                };
                ago_us += length_us;
                let denied = denied.keys.get(key).copied().unwrap_or(0);
                History {
                    began_us_ago: ago_us,
                    length_us,
                    hits: hits.keys.get(key).copied().unwrap_or(0).max(denied),
                    denied,
                }
            })
            .collect();
        history.reverse();
        history
    }
}

fn sum(windows: &Windows, span: Span) -> Summary {
    let depth = match span {
        Span::Minute => 0,
        Span::TenMinutes => 1,
        Span::Hour => 2,
    };
    let mut sum = Summary {
        keys: HashMap::new(),
        ..Summary::default()
    };
    for slice in windows.slices(depth) {
        sum.add(slice);
    }
    sum
}

/// At least, and how many more at most.
fn bounds(counts: &Summary, key: &str, cell: usize) -> (u64, u64) {
    let least = counts.keys.get(key).copied().unwrap_or(0);
    let most = counts.row.get(cell).copied().map_or(0, u64::from);
    (least, most.saturating_sub(least))
}

impl fmt::Debug for Top {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Top")
            .field("shards", &self.shards.len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
