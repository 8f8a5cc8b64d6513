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
        self.worst_since(0, window_us)
    }

    /// The same from this step on.
    pub fn worst_since(&self, first: usize, window_us: u64) -> u64 {
        let steps = usize::try_from(window_us / STEP_US).expect("a few");
        let (mut sum, mut worst) = (0_u64, 0);
        let admitted = self.admitted.get(first..).unwrap_or_default();
        for (at, requests) in admitted.iter().enumerate() {
            sum += u64::from(*requests);
            if at >= steps {
                sum -= u64::from(admitted[at - steps]);
            }
            worst = worst.max(sum);
        }
        worst
    }

    /// The least that a bucket of this size and rate would have had left; below 0, its promise was broken.
    #[allow(clippy::cast_precision_loss, reason = "a step is a hundredth of a second")]
    pub fn least(&self, burst: u64, per_second: f64) -> f64 {
        let (mut left, mut least) = (burst as f64, burst as f64);
        for requests in &self.admitted {
            left = (left + per_second * STEP_US as f64 / 1e6).min(burst as f64) - f64::from(*requests);
            least = least.min(left);
        }
        least
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
