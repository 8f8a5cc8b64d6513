//! What reaches the upstream, and when.

/// Microseconds of one entry.
pub const STEP_US: u64 = 10_000;

/// Requests that were admitted, by step.
#[derive(Debug, Default)]
pub struct Upstream {
    admitted: Vec<u32>,
}

impl Upstream {
    /// Counts requests in the present step.
    pub fn add(&mut self, step: usize, requests: u32) {
        if self.admitted.len() <= step {
            self.admitted.resize(step + 1, 0);
        }
        self.admitted[step] += requests;
    }

    /// The most in any window of this length.
    pub fn worst(&self, window_us: u64) -> u64 {
        let steps = usize::try_from(window_us / STEP_US).expect("a few");
        let (mut sum, mut worst) = (0_u64, 0);
        for (at, requests) in self.admitted.iter().enumerate() {
            sum += u64::from(*requests);
            if at >= steps {
                sum -= u64::from(self.admitted[at - steps]);
            }
            worst = worst.max(sum);
        }
        worst
    }

    /// All from this step on.
    pub fn since(&self, step: usize) -> u64 {
        self.admitted
            .iter()
            .skip(step)
            .map(|requests| u64::from(*requests))
            .sum()
    }
}
