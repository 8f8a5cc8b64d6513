//! How much each key asks of a rule in a window: what a limit can be chosen by.

use hdrhistogram::Histogram;
use serde::Serialize;

/// Digits of the histogram: an advice is off by at most 0.1 %.
const DIGITS: u8 = 3;

/// Hits that one key asked for in one window of its rule, over all keys and windows.
#[derive(Default)]
pub struct Demand {
    /// Made when the first window is over: most of many rules may never be asked.
    windows: Option<Histogram<u64>>,
}

/// Quantiles of a rule's demand, in hits that one key asked for in one window.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Quantiles {
    /// Windows in which a key asked at all.
    pub windows: u64,
    /// Half of the windows have at most this many.
    pub p50: u64,
    /// 9 of 10.
    pub p90: u64,
    /// 99 of 100.
    pub p99: u64,
    /// 999 of 1000.
    pub p999: u64,
    /// The largest.
    pub max: u64,
    /// The smallest limit that would have denied at most the wanted share of requests.
    pub limit_for_share: u64,
}

impl Demand {
    /// A window of a key is over.
    pub fn add(&mut self, hits: u32) {
        if self.windows.is_none() {
            // No failure: these digits are among those that the histogram takes.
            self.windows = Histogram::new(DIGITS).ok();
        }
        if let Some(windows) = &mut self.windows {
            windows.saturating_record(hits.into());
        }
    }

    /// The quantiles, and the limit for a share of denied requests between 0 and 1.
    #[must_use]
    pub fn quantiles(&self, share: f64) -> Quantiles {
        let Some(windows) = &self.windows else {
            return Quantiles::default();
        };
        let at = |quantile| windows.value_at_quantile(quantile);
        Quantiles {
            windows: windows.len(),
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p999: at(0.999),
            max: windows.max(),
            limit_for_share: limit_for(windows, share),
        }
    }
}

/// The smallest limit that denies at most the share: what is above it in each window is denied.
fn limit_for(windows: &Histogram<u64>, share: f64) -> u64 {
    let steps: Vec<(u64, u64)> = windows
        .iter_recorded()
        .map(|step| (step.value_iterated_to(), step.count_at_value()))
        .collect();
    let asked: u128 = steps
        .iter()
        .map(|(value, count)| u128::from(*value) * u128::from(*count))
        .sum();
    #[allow(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a share of a count"
    )]
    let budget = (asked as f64 * share) as u128;
    // From the largest value down: windows above it, and what of them is over it.
    let (mut above, mut denied, mut limit) = (0_u128, 0_u128, windows.max());
    for (at, (value, count)) in steps.iter().enumerate().rev() {
        above += u128::from(*count);
        limit = *value;
        let next = if at == 0 { 0 } else { steps[at - 1].0 };
        let room = (budget.saturating_sub(denied)) / above.max(1);
        let step = u128::from(value - next);
        if room < step {
            return limit.saturating_sub(u64::try_from(room).unwrap_or(0)).max(1);
        }
        denied += step * above;
    }
    limit
}

#[cfg(test)]
mod tests {
    use super::Demand;

    #[test]
    fn a_limit_is_the_smallest_that_denies_at_most_the_share() {
        let mut demand = Demand::default();
        // 10,000 requests: 990 windows of 10, and one of 100.
        for _ in 0..990 {
            demand.add(10);
        }
        demand.add(100);
        let limit = |share| demand.quantiles(share).limit_for_share;
        assert_eq!(limit(0.0), 100);
        // At most 100 of 10,000: 90 are over a limit of 10.
        assert_eq!(limit(0.01), 10);
        // At most 50 of them.
        assert_eq!(limit(0.005), 50);
        assert_eq!(demand.quantiles(0.0).p99, 10);
        assert_eq!(demand.quantiles(0.0).max, 100);
    }
}
