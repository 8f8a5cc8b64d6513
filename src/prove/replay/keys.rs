//! Counters by hash: how many there are, what each asked in its window, and which were denied most; bounded.

use std::hash::{BuildHasher, Hash, Hasher};
use std::hint::black_box;

use hashbrown::{DefaultHashBuilder, HashMap, HashTable};

use crate::config::problem::Clipped;
use crate::model::Descriptor;
use crate::rules::Rule;
use crate::telemetry::activity::among_heaviest;

use super::demand::Demand;

/// Keys whose demand is followed; 25 bytes each. Further ones are only counted as lines.
const MAX_KEYS: usize = 2_000_000;
/// Denied keys that are kept by name; half of these after they were thinned out.
const MAX_DENIED: usize = 20_000;

/// All keys of all rules.
#[derive(Default)]
pub struct Keys {
    hasher: DefaultHashBuilder,
    /// By hash, which stands for the key.
    windows: HashTable<Window>,
    denied: HashMap<u64, DeniedKey>,
    /// Keys beyond the bound were seen.
    pub overflowed: bool,
}

/// A key's present window.
struct Window {
    key: u64,
    /// Modulo 2^32: a key is not silent for so many windows.
    index: u32,
    hits: u32,
    rule: u32,
}

/// A key that was denied.
#[derive(Debug, Clone)]
pub struct DeniedKey {
    /// Index of the rule.
    pub rule: usize,
    /// The entries that the counter is for.
    pub name: Box<str>,
    /// Requests denied.
    pub denied: u64,
    /// Microseconds since the Unix epoch.
    pub first_us: u64,
    /// As `first_us`.
    pub last_us: u64,
    /// The longest time in which every request of the key was denied, in microseconds.
    pub longest_us: u64,
    /// When the present one began; `None` while requests pass.
    since_us: Option<u64>,
}

/// Name of a counter: entries whose values share a counter go without them.
fn own_entries<'d>(rule: &'d Rule, descriptor: &'d Descriptor) -> impl Iterator<Item = (&'d str, &'d str)> {
    let shared = |level: usize| rule.shared.get(level).copied().unwrap_or_default();
    let entries = descriptor.entries.iter().enumerate();
    entries.map(move |(level, entry)| {
        (
            entry.key.as_str(),
            if shared(level) { "" } else { entry.value.as_str() },
        )
    })
}

/// A counter's name for people.
#[must_use]
pub fn name(rule: &Rule, descriptor: &Descriptor) -> Box<str> {
    let parts = own_entries(rule, descriptor).map(|(key, value)| match value {
        "" => Clipped(key).to_string(),
        value => format!("{}={}", Clipped(key), Clipped(value)),
    });
    parts.collect::<Vec<_>>().join(", ").into()
}

impl Keys {
    /// Which counter a descriptor has under a rule.
    #[must_use]
    pub fn hash(&self, rule: &Rule, descriptor: &Descriptor) -> u64 {
        let mut hasher = self.hasher.build_hasher();
        rule.index.hash(&mut hasher);
        for entry in own_entries(rule, descriptor) {
            entry.hash(&mut hasher);
        }
        hasher.finish()
    }

    /// Hits of a key; `true` if they are its first. A window that is over goes into the rule's demand.
    pub fn ask(&mut self, key: u64, hits: u32, window: u64, rule: usize, demand: &mut Demand) -> bool {
        let index = u32::try_from(window % (1 << 32)).unwrap_or_default();
        let rule = u32::try_from(rule).unwrap_or(u32::MAX);
        if let Some(known) = self.windows.find_mut(key, |window| window.key == key) {
            if known.index == index {
                known.hits = known.hits.saturating_add(hits);
            } else {
                demand.add(known.hits);
                (known.index, known.hits, known.rule) = (index, hits, rule);
            }
            return false;
        }
        if self.windows.len() >= MAX_KEYS {
            self.overflowed = true;
            return false;
        }
        let window = Window { key, index, hits, rule };
        self.windows.insert_unique(key, window, |window| window.key);
        true
    }

    /// Brings what is known of these keys near, side by side: they lie scattered over all the memory that keys take.
    pub fn warm(&self, keys: &[u64]) {
        for key in keys {
            black_box(self.windows.find(*key, |window| window.key == *key));
        }
    }

    /// The keys' last windows: the rule's index, and hits.
    pub fn open_windows(&self) -> impl Iterator<Item = (usize, u32)> {
        self.windows.iter().map(|window| (window.rule as usize, window.hits))
    }

    /// A request of the key passed.
    pub fn admit(&mut self, key: u64) {
        if self.denied.is_empty() {
            return;
        }
        if let Some(known) = self.denied.get_mut(&key) {
            known.since_us = None;
        }
    }

    /// A request of the key was denied.
    pub fn deny(&mut self, key: u64, at_us: u64, rule: &Rule, descriptor: &Descriptor) {
        let known = self.denied.entry(key).or_insert_with(|| DeniedKey {
            rule: rule.index,
            name: name(rule, descriptor),
            denied: 0,
            first_us: at_us,
            last_us: at_us,
            longest_us: 0,
            since_us: None,
        });
        known.denied += 1;
        known.last_us = at_us;
        let since_us = *known.since_us.get_or_insert(at_us);
        known.longest_us = known.longest_us.max(at_us.saturating_sub(since_us));
        if self.denied.len() > MAX_DENIED {
            self.thin_out();
        }
    }

    /// Keeps the half that was denied most.
    fn thin_out(&mut self) {
        let counts = self.denied.values().map(|key| key.denied).collect();
        let mut stays = among_heaviest(counts, MAX_DENIED / 2);
        self.denied.retain(|_, key| stays(key.denied));
        self.overflowed = true;
    }

    /// Those that were denied most, most first.
    #[must_use]
    pub fn worst(&self, rule: usize, count: usize) -> Vec<&DeniedKey> {
        let mut keys: Vec<&DeniedKey> = self.denied.values().filter(|key| key.rule == rule).collect();
        keys.sort_by(|one, other| other.denied.cmp(&one.denied).then_with(|| one.name.cmp(&other.name)));
        keys.truncate(count);
        keys
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Many keys that are denied once each are an attack, too.
    #[test]
    fn of_keys_that_are_denied_alike_half_stay() {
        let mut keys = Keys::default();
        let known = |denied| DeniedKey {
            rule: 0,
            name: "".into(),
            denied,
            first_us: 0,
            last_us: 0,
            longest_us: 0,
            since_us: None,
        };
        keys.denied
            .extend((0..20_001).map(|key| (key, known(1 + u64::from(key == 7)))));
        keys.thin_out();
        assert_eq!(keys.denied.len(), MAX_DENIED / 2);
        assert_eq!(keys.worst(0, 1).first().map(|key| key.denied), Some(2));
        assert!(keys.overflowed);
    }
}
