//! How often the bounds of the structures in a run were reached.

use std::collections::BTreeMap;

use sluicegate::store::remote::Bound;

/// What has a bound and is not counted by the pipeline as a [`Bound`].
const OTHERS: [&str; 6] = [
    "denied counters",
    "fallback counters",
    "failures in a row",
    "requests under way",
    "answers held back",
    "denials noted",
];

/// Times that bounds were reached, in one run or in all.
#[derive(Debug, Default)]
pub struct Reached(BTreeMap<&'static str, Times>);

#[derive(Debug, Default, Clone, Copy)]
struct Times {
    seeds: u64,
    times: u64,
}

impl Reached {
    /// A bound was reached so often in this run.
    pub fn add(&mut self, bound: &'static str, times: u64) {
        let entry = self.0.entry(bound).or_default();
        entry.times += times;
        entry.seeds = u64::from(entry.times > 0);
    }

    /// Adds what another run reached.
    pub fn merge(&mut self, other: &Self) {
        for (bound, times) in &other.0 {
            let entry = self.0.entry(bound).or_default();
            entry.seeds += times.seeds;
            entry.times += times.times;
        }
    }

    /// Every bound that a run can reach.
    fn all() -> impl Iterator<Item = &'static str> {
        Bound::ALL.iter().map(|bound| bound.name()).chain(OTHERS)
    }

    /// Bounds that were not reached.
    pub fn missing(&self) -> Vec<&'static str> {
        let reached = |bound: &&str| self.0.get(bound).is_some_and(|times| times.times > 0);
        Self::all().filter(|bound| !reached(bound)).collect()
    }

    /// A table of all bounds.
    pub fn table(&self) -> String {
        let row = |bound: &'static str| {
            let Times { seeds, times } = self.0.get(bound).copied().unwrap_or_default();
            format!("{bound:<20} {seeds:>8} {times:>10}")
        };
        let rows: Vec<String> = Self::all().map(row).collect();
        format!(
            "{:<20} {:>8} {:>10}\n{}",
            "bound reached",
            "seeds",
            "times",
            rows.join("\n")
        )
    }
}
