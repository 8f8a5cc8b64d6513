//! Heavy hitters: which counters were asked, and denied, most.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use parking_lot::Mutex;

use super::noted::Noted;
use super::sketch::{Hasher, Sketch};
use super::window::{SLICE_US, Summary, Windows};

/// Sketches of a process, at most: 8 of them with all windows and their sums stay below 8 MB.
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

/// How many spans there are.
const SPANS: usize = 3;

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

    /// Which rings of slices it reaches into, and its place in lists of all spans.
    const fn depth(self) -> usize {
        match self {
            Self::Minute => 0,
            Self::TenMinutes => 1,
            Self::Hour => 2,
        }
    }
}

/// One counter in a list. `…_error` is how many more there may have been at most.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hitter {
    /// The counter's [name](Noted::name).
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
    /// By span, until threads are asked again: whoever asks often costs no more sums.
    summed: [Option<Arc<Sums>>; SPANS],
}

/// What was counted in one window.
struct Sums {
    /// Without keys, which have a list of their own: each stands in it once, whatever it is listed by.
    hits: Summary,
    denied: Summary,
    keys: Vec<KeyCounts>,
    /// Places in that list, heaviest first.
    by_hits: Vec<usize>,
    by_denied: Vec<usize>,
}

/// A key in one window; never more of it than there were.
struct KeyCounts {
    key: Box<str>,
    hits: u64,
    denied: u64,
}

impl Collected {
    fn sums(&mut self, span: Span) -> Arc<Sums> {
        let make = || Arc::new(Sums::new(sum(&self.hits, span), sum(&self.denied, span)));
        Arc::clone(self.summed[span.depth()].get_or_insert_with(make))
    }
}

impl Sums {
    fn new(mut hits: Summary, mut denied: Summary) -> Self {
        let mut denied_of = std::mem::take(&mut denied.keys);
        let hits_of = std::mem::take(&mut hits.keys).into_iter();
        let mut keys: Vec<KeyCounts> = hits_of
            .map(|(key, hits)| KeyCounts {
                denied: denied_of.remove(&key).unwrap_or(0),
                key: key.into(),
                hits,
            })
            .collect();
        keys.extend(denied_of.into_iter().map(|(key, denied)| KeyCounts {
            key: key.into(),
            hits: 0,
            denied,
        }));
        keys.shrink_to_fit();
        Self {
            by_hits: ordered(&keys, |counted| counted.hits),
            by_denied: ordered(&keys, |counted| counted.denied),
            hits,
            denied,
            keys,
        }
    }
}

#[cfg(test)]
impl Sums {
    /// What it takes, in bytes.
    fn bytes(&self) -> usize {
        let keys: usize = self
            .keys
            .iter()
            .map(|counted| counted.key.len() + size_of::<KeyCounts>())
            .sum();
        let orders = (self.by_hits.len() + self.by_denied.len()) * size_of::<usize>();
        keys + orders + self.hits.bytes() + self.denied.bytes()
    }
}

/// Places of those that count at all, heaviest first.
fn ordered(keys: &[KeyCounts], count: impl Fn(&KeyCounts) -> u64) -> Vec<usize> {
    let mut order: Vec<usize> = (0..keys.len()).filter(|at| count(&keys[*at]) > 0).collect();
    order.sort_unstable_by(|a, b| {
        let (a, b) = (&keys[*a], &keys[*b]);
        (count(b), &a.key).cmp(&(count(a), &b.key))
    });
    order
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
    pub fn record<'k>(&self, counter: impl Into<Noted<'k>>, denied: bool) {
        let mine = SHARD.with(|shard| *shard) % self.shards.len().max(1);
        if let Some(Shard(shard)) = self.shards.get(mine) {
            let mut sketch = shard.lock();
            let sketch = sketch.get_or_insert_with(|| Box::new(Sketch::new(&self.hasher)));
            sketch.add(&self.hasher, counter.into(), denied);
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
        collected.summed = Default::default();
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
        let order = match by {
            By::Denied => &sums.by_denied,
            By::Hits => &sums.by_hits,
        };
        let counted = order.iter().filter_map(|at| sums.keys.get(*at));
        let hitter = |counted: &KeyCounts| {
            let cell = self.hasher.cell(Noted::read(&counted.key).key);
            // What was denied was asked, too, however little of that is known.
            let hits = counted.hits.max(counted.denied);
            Hitter {
                key: counted.key.to_string(),
                hits,
                hits_error: most(&sums.hits, cell).saturating_sub(hits),
                denied: counted.denied,
                denied_error: most(&sums.denied, cell).saturating_sub(counted.denied),
            }
        };
        TopList {
            hitters: counted
                .filter(|counted| of(&counted.key))
                .take(limit)
                .map(hitter)
                .collect(),
            hits: sums.hits.total,
            denied: sums.denied.total,
            covers_us: sums.hits.length_us + open_us,
        }
    }

    /// A counter's last hour, oldest first: ten-minute slices, then minutes, then ten seconds.
    #[must_use]
    pub fn history(&self, key: &str, now_us: u64) -> Vec<History> {
        self.histories(&[key], Span::Hour, now_us).pop().unwrap_or_default()
    }

    /// The same of several counters, as far back as the span reaches. All have the same slices.
    #[must_use]
    pub fn histories(&self, keys: &[&str], span: Span, now_us: u64) -> Vec<Vec<History>> {
        let mut collected = self.collected.lock();
        self.collect_into(&mut collected, now_us);
        let [hits, denied] = [&collected.hits, &collected.denied].map(|windows| windows.slices(span.depth()));
        let mut histories = vec![Vec::new(); keys.len()];
        let open_us = now_us.saturating_sub(collected.began_us);
        let mut ago_us = open_us + hits.iter().map(|slice| slice.length_us).sum::<u64>();
        for (hits, denied) in hits.into_iter().zip(denied).rev() {
            // The open slice, which is the last one, has no length yet.
            let length_us = if hits.length_us == 0 { open_us } else { hits.length_us };
            for (key, history) in keys.iter().zip(&mut histories) {
                let denied = denied.keys.get(*key).copied().unwrap_or(0);
                history.push(History {
                    began_us_ago: ago_us,
                    length_us,
                    hits: hits.keys.get(*key).copied().unwrap_or(0).max(denied),
                    denied,
                });
            }
            ago_us -= length_us;
        }
        histories
    }
}

fn sum(windows: &Windows, span: Span) -> Summary {
    let mut sum = Summary::default();
    for slice in windows.slices(span.depth()) {
        sum.add(slice);
    }
    sum
}

/// No key of this cell counts more.
fn most(counts: &Summary, cell: usize) -> u64 {
    counts.row.get(cell).copied().map_or(0, u64::from)
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
