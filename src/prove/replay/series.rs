//! Counts over time, in a bounded number of steps that become longer with the log.

use serde::Serialize;

/// Steps at most; their number is halved, and their length doubled, when the log goes on beyond them.
const MAX_STEPS: usize = 512;

/// Requests over time.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Series {
    /// When the first step begins, in microseconds since the Unix epoch.
    pub start_us: u64,
    /// Length of a step, in microseconds.
    pub step_us: u64,
    /// Requests of each step.
    pub requests: Vec<u64>,
    /// Denied ones of each step.
    pub denied: Vec<u64>,
}

impl Series {
    /// Counts a request. Time does not go back.
    pub fn add(&mut self, at_us: u64, denied: bool) {
        if self.step_us == 0 {
            self.step_us = 1_000_000;
            self.start_us = at_us - at_us % self.step_us;
        }
        let mut step = at_us.saturating_sub(self.start_us) / self.step_us;
        while step >= MAX_STEPS as u64 {
            self.requests = halved(&self.requests);
            self.denied = halved(&self.denied);
            self.step_us = self.step_us.saturating_mul(2);
            step = at_us.saturating_sub(self.start_us) / self.step_us;
        }
        let step = usize::try_from(step).unwrap_or_default();
        if self.requests.len() <= step {
            self.requests.resize(step + 1, 0);
            self.denied.resize(step + 1, 0);
        }
        self.requests[step] += 1;
        self.denied[step] += u64::from(denied);
    }
}

fn halved(counts: &[u64]) -> Vec<u64> {
    counts.chunks(2).map(|pair| pair.iter().sum()).collect()
}

#[cfg(test)]
mod tests {
    use super::Series;

    #[test]
    fn a_long_log_has_longer_steps_and_loses_nothing() {
        let mut series = Series::default();
        for second in 0..100_000_u64 {
            series.add(1_000_000_000_000 + second * 1_000_000, second % 10 == 0);
        }
        assert!(series.requests.len() <= 512);
        assert_eq!(series.requests.iter().sum::<u64>(), 100_000);
        assert_eq!(series.denied.iter().sum::<u64>(), 10_000);
        assert_eq!(series.step_us, 256_000_000);
    }
}
