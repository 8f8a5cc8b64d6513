//! limitador as it decides Envoy's requests: every limit whose entries the first descriptor has is counted, in a window that
//! begins with its first hit; all or none.

use std::collections::HashMap;

type Condition = (&'static str, fn(&str) -> bool);

pub struct Limit {
    max: u64,
    seconds: u64,
    conditions: Vec<Condition>,
    variables: Vec<&'static str>,
}

impl Limit {
    pub fn new(max: u64, seconds: u64, conditions: &[Condition], variables: &[&'static str]) -> Self {
        Self {
            max,
            seconds,
            conditions: conditions.to_vec(),
            variables: variables.to_vec(),
        }
    }

    /// The values that its counter is of, if it applies.
    fn values(&self, request: &[(&str, &str)]) -> Option<Vec<String>> {
        let value = |key: &str| request.iter().find(|(known, _)| *known == key).map(|(_, value)| *value);
        let applies = self.conditions.iter().all(|(key, holds)| value(key).is_some_and(holds));
        let values = self.variables.iter().map(|key| value(key).map(ToOwned::to_owned));
        applies.then(|| values.collect()).flatten()
    }
}

pub struct Limitador {
    limits: Vec<Limit>,
    /// By limit and values: hits, and when they are forgotten.
    counters: HashMap<(usize, Vec<String>), (u64, u64)>,
}

impl Limitador {
    pub fn new(limits: Vec<Limit>) -> Self {
        Self {
            limits,
            counters: HashMap::new(),
        }
    }

    pub fn decide(&mut self, now_us: u64, request: &[(&str, &str)]) -> bool {
        let asked: Vec<_> = self
            .limits
            .iter()
            .enumerate()
            .filter_map(|(at, limit)| Some(((at, limit.values(request)?), limit.max, limit.seconds)))
            .collect();
        let used = |key: &(usize, Vec<String>)| match self.counters.get(key) {
            Some((hits, end)) if *end > now_us => *hits,
            _ => 0,
        };
        if asked.iter().any(|(key, max, _)| used(key) + 1 > *max) {
            return false;
        }
        for (key, _, seconds) in asked {
            let counter = self.counters.entry(key).or_default();
            if counter.1 <= now_us {
                *counter = (0, now_us + seconds * 1_000_000);
            }
            counter.0 += 1;
        }
        true
    }
}
